"""The wall: pins, badge readers and the relay. Works when every other zone is down."""
