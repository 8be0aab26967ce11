"""How the registry writes down when something happened."""

from datetime import UTC, datetime


def now() -> str:
    """This moment, UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
