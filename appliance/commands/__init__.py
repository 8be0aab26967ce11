"""The groups of commands below `drempel`; each command is one thin function."""
