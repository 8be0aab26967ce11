"""The root of every error that Drempel raises on purpose.

Each module derives its own from `DrempelError` *and* from the builtin a caller would expect, so
that both `except DrempelError` and `except ValueError` read naturally. A message is one line that
says what to do next. It never holds a name, a secret, a template or an image.
"""


class DrempelError(Exception):
    """Something a caller can handle or a person can act on."""


class ConfigurationError(DrempelError, ValueError):
    """The settings, or the way a command was called, are wrong; nothing was started."""
