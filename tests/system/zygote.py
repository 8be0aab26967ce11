"""Starts zones quickly: `python -m tests.system.zygote vault admin` has their code loaded, and forks.

One line of JSON on its input, `[zone, settings file, log file]`, is one zone started; its process id is one
line on the output. A zone ends with this process. For tests that start zones hundreds of times: what is
started is the real service in a process of its own, without the half second that Python needs to import it.
"""

import importlib
import json
import os
import signal
import sys
from pathlib import Path

from appliance.settings import load
from appliance.simulation.zone import end_with


def main() -> None:
    """Start what is asked for, until the input ends."""
    services = {zone: importlib.import_module(f"appliance.{zone}.service") for zone in sys.argv[1:]}
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries them
    me = os.getpid()
    for line in sys.stdin:
        zone, config, log = json.loads(line)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                _be_alone(Path(log))
                end_with(me)
                status = services[zone].run(load(Path(config)))
            finally:
                sys.stdout.flush()
                os._exit(status)
        print(pid, flush=True)


def _be_alone(log: Path) -> None:
    """Speak to the log, and hear nothing."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing = os.open("/dev/null", os.O_RDONLY)
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((nothing, 0), (written, 1), (written, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(written)


if __name__ == "__main__":
    main()
