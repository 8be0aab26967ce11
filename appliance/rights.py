"""When a person may enter: validity and weekly hours, the same for badge and face (design §6).

Vault asks before a face is embedded, door before a badge opens; both call `allows`, so neither route can be
kinder than the other. Nothing here knows whose rights they are. No zone, and nothing of numpy or
cryptography, may enter this module.

Encoded (`RIGHTS` = 122 bytes, big-endian): format 1 in the upper three bits and the number of windows in the
lower five of one byte; valid_from and valid_until (8 each, signed); 21 windows of weekday (1), start (2) and
end (2), unused ones zero. 122 zero bytes are of format 0, and decode to nothing: what was never written
allows nobody.
"""

import struct
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from appliance.errors import DrempelError

FORMAT = 1
MAX_WINDOWS = 21
"""Three for each day of the week."""
DAY_MINUTES = 1440

_HEAD = struct.Struct("!Bqq")
_WINDOW = struct.Struct("!BHH")
RIGHTS = _HEAD.size + MAX_WINDOWS * _WINDOW.size
"""Bytes of encoded rights."""

_FOREVER = 2**63 - 1
_EVER = -(2**63)
"""What stands for no limit; no time that a calendar knows."""
_LAST_MOMENT = 253_402_214_400
"""9999-12-31 UTC: the last day that a calendar knows in every time zone."""


class BadRights(DrempelError, ValueError):
    """No rights: a window, a time or the encoding is not as it must be."""


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A part of one day of every week, in local time.

    Hours over midnight are two windows. On the day on which the clock is put forward, the minutes that it
    leaves out are in no window; on the day on which it is put back, those that come twice count twice.

    Attributes:
        weekday: 0 (Monday) to 6.
        start: minute of the local day from which on it is open, 0 to 1439.
        end: the minute from which on it is not, above `start`, to 1440.
    """

    weekday: int
    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.weekday <= 6 or not 0 <= self.start < self.end <= DAY_MINUTES:
            raise BadRights(
                "a window is a weekday from 0 to 6 and minutes of that day, the start before the end: "
                "make two of one that goes over midnight"
            )


@dataclass(frozen=True, slots=True)
class Rights:
    """A person's validity, Unix seconds, and weekly hours; without any window, every hour is theirs.

    Attributes:
        valid_from: the first second that is valid; None from ever.
        valid_until: the first that is not any more; None for ever.
        hours: windows, at most `MAX_WINDOWS`.
    """

    valid_from: int | None = None
    valid_until: int | None = None
    hours: tuple[Window, ...] = ()

    def __post_init__(self) -> None:
        for moment in (self.valid_from, self.valid_until):
            if moment is not None and not -_LAST_MOMENT <= moment <= _LAST_MOMENT:
                raise BadRights("a validity is in Unix seconds, and before the year 10000")
        if len(self.hours) > MAX_WINDOWS:
            raise BadRights(f"{len(self.hours)} windows in a week: write at most {MAX_WINDOWS}")

    def encode(self) -> bytes:
        """The rights as `RIGHTS` bytes, as they are sent and stored."""
        first = FORMAT << 5 | len(self.hours)
        start = _EVER if self.valid_from is None else self.valid_from
        end = _FOREVER if self.valid_until is None else self.valid_until
        windows = b"".join(_WINDOW.pack(each.weekday, each.start, each.end) for each in self.hours)
        return (_HEAD.pack(first, start, end) + windows).ljust(RIGHTS, b"\0")

    @classmethod
    def decode(cls, encoded: bytes) -> "Rights":
        """The rights from `RIGHTS` bytes.

        Raises:
            BadRights: it is no encoding that `encode` gives; each rights have one only.
        """
        if len(encoded) != RIGHTS:
            raise BadRights(f"rights are {RIGHTS} bytes, these are {len(encoded)}")
        first, start, end = _HEAD.unpack_from(encoded)
        count = first & 0b11111
        if first >> 5 != FORMAT or count > MAX_WINDOWS:
            raise BadRights("rights of an unknown format: upgrade Drempel, or set them anew")
        hours = tuple(
            Window(*_WINDOW.unpack_from(encoded, _HEAD.size + number * _WINDOW.size))
            for number in range(count)
        )
        rights = cls(None if start == _EVER else start, None if end == _FOREVER else end, hours)
        if rights.encode() != encoded:
            raise BadRights("rights with something behind their last window: set them anew")
        return rights


ALWAYS = Rights().encode()
"""Of who may enter at any time."""


def allows(rights: Rights, moment: int | None, zone: ZoneInfo, not_before: int) -> bool:
    """Whether a person with these rights may enter.

    With the time untrusted only its lower bound is known. So a validity must have begun before it, none that
    ended before it comes back to life, and of weekly hours nothing can be said: they allow nothing.

    Args:
        rights: of the person.
        moment: Unix seconds now; None where the clock cannot be trusted.
        zone: in which the hours are meant.
        not_before: the latest time, Unix seconds, that was ever trusted: it is not earlier than that now.
    """
    now = not_before if moment is None else max(moment, not_before)
    if rights.valid_from is not None and now < rights.valid_from:
        return False
    if rights.valid_until is not None and now >= rights.valid_until:
        return False
    if not rights.hours:
        return True
    if moment is None or not 0 <= now <= _LAST_MOMENT:
        return False
    local = datetime.fromtimestamp(now, zone)
    minute = local.hour * 60 + local.minute
    return any(each.weekday == local.weekday() and each.start <= minute < each.end for each in rights.hours)
