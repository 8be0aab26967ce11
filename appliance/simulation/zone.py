"""Start one zone of a simulated door: `python -m appliance.simulation.zone door --config FILE --board PATH`.

The zone is the real one; only the door's pins are replaced, by those on the wire of a `Board`. Nothing
of another zone is imported.
"""

import argparse
import ctypes
import importlib
import os
import signal
import sys
from pathlib import Path

from appliance.errors import ConfigurationError, DrempelError
from appliance.process import WRONG_CONFIGURATION, ZONES
from appliance.settings import load

PR_SET_PDEATHSIG = 1
"""prctl(2): which signal a process is sent when the thread that started it ends."""


def end_with(parent: int) -> None:
    """Have the kernel send this process SIGTERM when its parent ends, in whatever way.

    Raises:
        DrempelError: the parent, whose process id is `parent`, has ended already.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise DrempelError("the simulated door that this zone belongs to has ended")


def main(arguments: list[str] | None = None) -> int:
    """Run the zone that the command line names; its exit status."""
    parser = argparse.ArgumentParser(prog="appliance.simulation.zone", description=__doc__.split("\n")[0])
    parser.add_argument("zone", choices=ZONES)
    parser.add_argument("--config", type=Path, required=True, help="the settings of this door")
    parser.add_argument("--board", type=Path, help="the socket of the simulated wall; for door only")
    parser.add_argument("--parent", type=int, help="the process with which this one ends")
    options = parser.parse_args(arguments)
    try:
        if options.parent is not None:
            end_with(options.parent)
        settings = load(options.config)
        if options.zone == "door":
            if options.board is None:
                raise ConfigurationError("a simulated door needs --board, the socket of its wall")
            from appliance.simulation.board import use_board  # noqa: PLC0415 - no other zone has pins

            use_board(options.board)
        service = importlib.import_module(f"appliance.{options.zone}.service")
    except ConfigurationError as error:
        print(f"drempel {options.zone}: {error}", file=sys.stderr)
        return WRONG_CONFIGURATION
    except (DrempelError, OSError) as error:
        print(f"drempel {options.zone}: {error}", file=sys.stderr)
        return 1
    return int(service.run(settings))


if __name__ == "__main__":
    sys.exit(main())
