"""Records that end by themselves: refused at once, erased a day later, or thirty.

A clock that is wrong for a while must not cost anybody their template. So a record that is over does not
open any more from that second on, and is given for erasing only when a trusted clock has found it over
throughout a day of the device's life (`Clock.age`, which nobody can put forward), and it is over by what is
proved of the time (`Clock.proved`) as well. Where it is over only because a jump ahead was believed, of a
time server or of a device that was off, thirty days take the place of the day: who is refused by a wrong
clock will say so, and an administrator puts it right (`Clock.confirm`). If it is not over after all, since
it was given a longer validity, the day begins anew when it is.
"""

import sys

from appliance.rights import BadRights, Rights
from appliance.vault.clock import DAY, Clock, Database

UNPROVED = 30 * DAY
"""Seconds of the device's life for which a record is kept that is over by unproved time alone."""


def ends(expires_at: int | None, rights: Rights | None) -> int | None:
    """When a record is over, Unix seconds: the earlier of its own end and of its person's; None for never."""
    known = [each for each in (expires_at, rights.valid_until if rights else None) if each is not None]
    return min(known, default=None)


def expired(expires_at: int | None, rights: Rights | None, clock: Clock) -> bool:
    """Whether a record is over; once it was said to be, it is, unless its end is moved or time confirmed.

    Raises:
        StoreError: it is over, but that could not be kept: refuse it all the same.
    """
    end = ends(expires_at, rights)
    return end is not None and clock.past(end)


def due_for_erasure(store: Database, clock: Clock) -> list[bytes]:
    """The handles of records to be erased now; ask every hour.

    Notes of each record that is over since which age it is known to be (`record.over_since`). With the time
    untrusted, nothing is noted and nothing given.

    Raises:
        StoreError: the database cannot be read or written; nothing was noted.
    """
    moment, age, proved = clock.moment(), clock.age, clock.proved
    if moment is None:
        return []
    # What is noted as over must be over after a power cut, too.
    clock.keep()
    noted: list[tuple[int | None, bytes]] = []
    found: list[bytes] = []
    with store.transaction() as db:
        rows = db.execute(
            "SELECT handle, expires_at, rights, over_since FROM record "
            "WHERE expires_at IS NOT NULL OR rights IS NOT NULL OR over_since IS NOT NULL"
        )
        for handle, expires_at, rights, since in rows:
            end = ends(expires_at, _decoded(rights))
            if end is None or end > moment:
                if since is not None:
                    noted.append((None, handle))
            elif since is None:
                noted.append((age, handle))
            elif age - since >= (DAY if end <= proved else UNPROVED):
                found.append(handle)
        db.executemany("UPDATE record SET over_since = ? WHERE handle = ?", noted)
    return found


def _decoded(rights: bytes | None) -> Rights | None:
    """The rights of a record; damaged ones open nothing, but end nothing either."""
    try:
        return None if rights is None else Rights.decode(rights)
    except BadRights as error:
        print(f"drempel vault: a record's rights are damaged: {error}", file=sys.stderr)
        return None
