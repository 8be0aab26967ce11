"""What every zone does at its start: its user, its own folders, memory of its own, a journal, a way to stop.

Called once, first, by each `service.run`.
"""

import fcntl
import os
import pwd
import signal
import sys
import threading
from collections.abc import Callable
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


def _lock(path: Path, zone: Zone) -> None:
    """Make sure that no other process is this zone, and that none becomes it before this one ends."""
    if path in _locks:
        return
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be opened: {error.strerror or error}; give it to the user of this zone"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigurationError(
            f"{zone} runs already, and holds {path}: stop that one, or give this one other [paths]"
        ) from error
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
