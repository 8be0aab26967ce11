"""The four zones in the foreground, for a bench: what systemd does on a device, in one terminal.

As root, each zone runs under the system user that the settings name; else all run as the user who calls.
A zone that ends is started again after a moment. A zone that says that its configuration is wrong stays down:
the others go on, but where it is door there is nothing to go on for.
"""

import os
import pwd
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import ConfigurationError
from appliance.hardening import ENVIRONMENT
from appliance.process import WRONG_CONFIGURATION, ZONES, Zone, stop_event
from appliance.settings import DEFAULT_PATH, Settings

RESTART_DELAY = 2.0
"""Seconds between the end of a zone and its next start."""
STOP_TIME = 10.0
"""Seconds in which a zone that was asked to stop must have; then it is killed."""


@dataclass(frozen=True, slots=True)
class User:
    """Whom a zone runs as: the ids that the kernel knows."""

    uid: int
    gid: int
    groups: list[int]


def run_zones(
    settings: Settings, config: Path | None, command: Callable[[Zone], list[str]] | None = None
) -> int:
    """Run door, lens, vault and admin until asked to stop. Main thread only.

    Args:
        settings: what `config` says.
        config: the file that the zones read.
        command: what starts a zone, where it is not `drempel` itself.

    Returns:
        The exit status: 0 after a stop, 2 where door cannot start with these settings.

    Raises:
        ConfigurationError: the settings name users, and this process is not root or there are no such users;
            or the zones' folders cannot be made.
    """
    users = _users(settings)
    _make_folders(settings, users)
    path = str((config or Path(os.environ.get("DREMPEL_CONFIG") or DEFAULT_PATH)).absolute())
    stop = stop_event()
    wrong = threading.Event()

    def keep(zone: Zone) -> None:
        arguments = (
            command(zone) if command else [sys.executable, "-m", "appliance.cli", zone, "--config", path]
        )
        while not stop.is_set():
            status = _run(zone, arguments, users.get(zone), stop)
            if status == WRONG_CONFIGURATION and zone == "door":
                wrong.set()
                stop.set()
            if stop.is_set():
                return
            if status == WRONG_CONFIGURATION:
                _say(f"{zone} cannot start with these settings, and stays down; the other zones go on")
                return
            _say(f"{zone} ended with {status}; it starts again")
            stop.wait(RESTART_DELAY)

    threads = [threading.Thread(target=keep, args=(zone,), name=zone) for zone in ZONES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return WRONG_CONFIGURATION if wrong.is_set() else 0


def _run(zone: Zone, arguments: list[str], user: User | None, stop: threading.Event) -> int | None:
    """Run a zone until it ends or is to stop; its exit status, or None where it could not be started."""
    try:
        process = subprocess.Popen(
            arguments,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=user.groups if user else None,
            env={**os.environ, **ENVIRONMENT},
        )
    except (OSError, subprocess.SubprocessError) as error:
        _say(f"{zone} cannot be started: {error}")
        return None
    with process:
        _say(f"{zone} started")
        while process.poll() is None and not stop.wait(0.1):
            pass
        process.terminate()
        try:
            return process.wait(STOP_TIME)
        except subprocess.TimeoutExpired:
            _say(f"{zone} does not stop: it is killed")
            process.kill()
            return process.wait()


def _users(settings: Settings) -> dict[Zone, User]:
    """The user of each zone; empty where all run as the user who calls."""
    names: dict[Zone, str] = {zone: getattr(settings.users, zone) for zone in ZONES}
    if not any(names.values()):
        return {}
    if os.geteuid() != 0:
        raise ConfigurationError(
            "the settings name a user for each zone, which needs root: run as root, or set the four [users] "
            'to "" to run all zones as yourself, on a bench'
        )
    users: dict[Zone, User] = {}
    for zone, name in names.items():
        try:
            entry = pwd.getpwnam(name)
        except KeyError as error:
            raise ConfigurationError(
                f"there is no user {name!r} for {zone}: create it, or mend [users] in the settings"
            ) from error
        users[zone] = User(entry.pw_uid, entry.pw_gid, os.getgrouplist(name, entry.pw_gid))
    return users


def _make_folders(settings: Settings, users: dict[Zone, User]) -> None:
    """Make the folders that zones under users of their own cannot make; each is its zone's."""
    for zone, user in users.items():
        for folder, mode in ((settings.zone_state(zone), 0o700), (settings.paths.runtime / zone, 0o755)):
            try:
                _make_parent(folder.parent)
                folder.mkdir(exist_ok=True)
                folder.chmod(mode)
                os.chown(folder, user.uid, user.gid, follow_symlinks=False)
            except OSError as error:
                raise ConfigurationError(
                    f"{folder} cannot be made: {error.strerror or error}; mend [paths] in the settings"
                ) from error


def _make_parent(folder: Path) -> None:
    """Make `folder` and what is above it, open for all to pass through; one that exists is left as it is."""
    if not folder.exists():
        _make_parent(folder.parent)
        folder.mkdir()
        folder.chmod(0o755)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
