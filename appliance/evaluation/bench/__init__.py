"""How fast and how heavy a door is, beside its peers; nothing here runs at one.

- `speed`, `enrolled`, `idle`, and what they share (`machine`, `spread`, `tables`): `drempel bench`.
- `peers/`: other people's software, each in an environment of its own.
- `instructions`, `aarch64`, `one_frame`: what a frame takes on a Pi's kind of processor.
"""
