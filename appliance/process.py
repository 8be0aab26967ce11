"""What every zone does at its start: its user, its own folders, memory of its own, a journal, a way to stop.

`begin` is called once, first, by each `service.run`. `in_place_of` and `acting_as` are for commands that
touch a zone's files.
"""

import contextlib
import fcntl
import os
import pwd
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Literal, get_args

from appliance.errors import ConfigurationError, DrempelError
from appliance.hardening import close_to_others, keep_secrets_in_place
from appliance.journal import Journal
from appliance.link.sockets import user_ids
from appliance.settings import Settings

Zone = Literal["door", "lens", "vault", "admin"]
ZONES: tuple[Zone, ...] = get_args(Zone)
WRONG_CONFIGURATION = 2
"""The exit status of a zone that cannot start with these settings; starting it again does not help."""


def run_zone(zone: Zone, serve: Callable[[], int]) -> int:
    """Serve as `zone`; its exit status, with one line on standard error for each error of ours.

    Returns:
        What `serve` returns (0 after a stop); 2 where the configuration is wrong, 1 for any other error,
        after which starting again may help.
    """
    try:
        return serve()
    except ConfigurationError as error:
        print(f"drempel {zone}: {error}", file=sys.stderr)
        return WRONG_CONFIGURATION
    except DrempelError as error:
        print(f"drempel {zone}: {error}", file=sys.stderr)
        return 1


def begin(settings: Settings, zone: Zone) -> Journal:
    """Prepare this process to be `zone`, and open its journal.

    Files that it makes are for its user alone, no process of that user reads its memory, and a crash leaves
    no core file with what it held; vault's memory is never swapped. From here to its end this process is the
    only one that is this zone, whether or not its journal opens.

    Raises:
        ConfigurationError: another user should be this zone, another process is, or a folder of this zone
            cannot be made or is another user's.
        NotHardened: the kernel does not close its memory to others.
        JournalError, JournalBroken: see `appliance.journal`.
    """
    os.umask(0o077)
    close_to_others()
    _check_user(getattr(settings.users, zone), zone)
    _own_folder(settings.zone_state(zone), 0o700)
    # Peers must reach the sockets in it; the kernel's word on their user id decides who is heard.
    _own_folder(settings.paths.runtime / zone, 0o755)
    _lock(settings.zone_state(zone) / "lock", zone)
    if zone == "vault":
        keep_secrets_in_place()
    return Journal(settings.zone_state(zone) / "journal.jsonl")


def on_stop(act: Callable[[], None]) -> None:
    """Call `act` when this process is asked to stop (SIGTERM, SIGINT). Main thread only."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        act()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


def stop_event() -> threading.Event:
    """An event that is set when this process is asked to stop. Main thread only."""
    event = threading.Event()
    on_stop(event.set)
    return event


@contextlib.contextmanager
def in_place_of(settings: Settings, *zones: Zone) -> Iterator[None]:
    """Hold what makes a process each of `zones`: none of them runs, or starts, before this ends.

    A zone's folder that does not exist yet is made, and is its user's.

    Raises:
        ConfigurationError: one of them runs; or this user may not act for it.
    """
    taken: list[Path] = []
    try:
        for zone in zones:
            user, path = getattr(settings.users, zone), settings.zone_state(zone) / "lock"
            _give_folder(path.parent, user)
            with acting_as(user):
                _lock(path, zone, "stop Drempel first, all of its zones")
            taken.append(path)
        yield
    finally:
        for path in taken:
            os.close(_locks.pop(path))


@contextlib.contextmanager
def acting_as(name: str) -> Iterator[None]:
    """Touch files as the user `name` would: with their rights, and as their own. An empty name: as who calls.

    What a zone gone bad puts in the place of its files (a link, say) then leads root nowhere that the zone
    could not go itself. For the whole process: no other thread may touch files meanwhile.

    Raises:
        ConfigurationError: there is no such user, or this process may not act for them.
    """
    if not name or os.geteuid() in user_ids(name):
        yield
        return
    if os.geteuid() != 0:
        raise ConfigurationError(f"this needs the files of {name}: run it as root")
    entry = pwd.getpwnam(name)
    before = os.getgroups(), os.getegid()
    os.setgroups(os.getgrouplist(name, entry.pw_gid))
    os.setegid(entry.pw_gid)
    os.seteuid(entry.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(before[1])
        os.setgroups(before[0])


def _give_folder(path: Path, user: str) -> None:
    """Make a zone's folder for its user, where it is not there yet."""
    try:
        if path.exists():
            return
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
            # Every zone passes through it.
            path.parent.chmod(0o755)
        path.mkdir(mode=0o700)
        if user:
            entry = pwd.getpwnam(user)
            os.chown(path, entry.pw_uid, entry.pw_gid)
    except (OSError, KeyError) as error:
        raise ConfigurationError(
            f"{path} cannot be made for {user or 'you'}: run this as root, or mend [paths] and [users] in "
            "the settings"
        ) from error


def _check_user(name: str, zone: Zone) -> None:
    """Refuse to be `zone` as another user than the settings name; an empty name is whoever runs this."""
    if os.geteuid() in user_ids(name):
        return
    try:
        caller = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        caller = str(os.geteuid())
    raise ConfigurationError(
        f"{zone} was started as user {caller}: start it as {name}, or mend [users] in the settings"
    )


_locks: dict[Path, int] = {}
"""The locks that this process holds until it ends, by path: the kernel lets go of them when it does.

A second `begin` in the same process finds its lock here. Only a test does that: a process is one zone, once.
"""


def _lock(path: Path, zone: Zone, advice: str = "stop that one, or give this one other [paths]") -> None:
    """Make sure that no other process is this zone, and that none becomes it before this one ends."""
    if path in _locks:
        return
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be opened: {error.strerror or error}; give it to the user of this zone"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigurationError(f"{zone} runs already, and holds {path}: {advice}") from error
    _locks[path] = descriptor


def _own_folder(path: Path, mode: int) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        if path.stat().st_uid != os.geteuid():
            raise ConfigurationError(f"{path} belongs to another user: give it to the user of this zone")
        path.chmod(mode)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be made: {error.strerror or error}; make it for the user of this zone, "
            "or mend [paths] in the settings"
        ) from error
