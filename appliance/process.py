"""What every zone does at its start: its own folders, no core dumps, a journal, and a way to stop.

Called once, first, by each `service.run`.
"""

import os
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Literal

from appliance.errors import ConfigurationError
from appliance.journal import Journal
from appliance.settings import Settings

Zone = Literal["door", "lens", "vault", "admin"]


def begin(settings: Settings, zone: Zone) -> Journal:
    """Prepare this process to be `zone`, and open its journal.

    Files that it makes are for its user alone, and a crash leaves no core file with what it held.

    Raises:
        ConfigurationError: a folder of this zone cannot be made or is another user's.
        JournalError, JournalBroken: see `appliance.journal`.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _own_folder(settings.zone_state(zone), 0o700)
    # Peers must reach the sockets in it; the kernel's word on their user id decides who is heard.
    _own_folder(settings.paths.runtime / zone, 0o755)
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
