"""The four zones in the foreground, for a bench: what systemd does on a device, in one terminal.

As root, each zone runs under the system user that the settings name; else all run as the user who calls.
A zone that ends is started again after a moment, unless its configuration is wrong.
"""

import os
import subprocess
import sys
import threading
from pathlib import Path

from appliance.errors import ConfigurationError
from appliance.process import stop_event
from appliance.settings import DEFAULT_PATH, Settings

RESTART_DELAY = 2.0
"""Seconds between the end of a zone and its next start."""
WRONG_CONFIGURATION = 2
"""The exit status of a zone that cannot start with these settings."""


def run_zones(settings: Settings, config: Path | None) -> int:
    """Run door, lens, vault and admin until asked to stop; the exit status.

    Raises:
        ConfigurationError: the settings name users, and this process is not root.
    """
    users = {
        "door": settings.users.door,
        "vault": settings.users.vault,
        "lens": settings.users.lens,
        "admin": settings.users.admin,
    }
    if os.geteuid() != 0 and any(users.values()):
        raise ConfigurationError(
            "the settings name a user for each zone, which needs root: run as root, or set the four [users] "
            'to "" to run all zones as yourself, on a bench'
        )
    path = str((config or Path(os.environ.get("DREMPEL_CONFIG") or DEFAULT_PATH)).absolute())
    stop = stop_event()
    wrong = threading.Event()

    def keep(zone: str, user: str) -> None:
        command = [sys.executable, "-m", "appliance.cli", zone, "--config", path]
        while not stop.is_set():
            with subprocess.Popen(
                command, user=user or None, group=user or None, extra_groups=[] if user else None
            ) as process:
                print(f"{zone} started", file=sys.stderr)
                while process.poll() is None and not stop.wait(0.1):
                    pass
                process.terminate()
            if process.returncode == WRONG_CONFIGURATION:
                wrong.set()
                stop.set()
            if not stop.is_set():
                print(f"{zone} ended with {process.returncode}; it starts again", file=sys.stderr)
                stop.wait(RESTART_DELAY)

    threads = [threading.Thread(target=keep, args=item, name=item[0]) for item in users.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return WRONG_CONFIGURATION if wrong.is_set() else 0
