"""What is read at the door: one module a kind of reader."""
