"""What is measured, on the same code as the door; nothing here runs at one.

- `calibration`, `gates`: the thresholds of a pack, and the gates on a picture.
- `speed`, `enrolled`, `idle`, and what they share (`machine`, `spread`, `tables`): `drempel bench`.
- `peers/`: other people's software, each in an environment of its own, for the bench.
- `instructions`, `aarch64`, `one_frame`: what a frame takes on a Pi's kind of processor.
"""
