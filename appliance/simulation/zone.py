"""Start one zone of a simulated door: `python -m appliance.simulation.zone door --config FILE --board PATH`.

The zone is the real one; only the door's pins are replaced, by those on the wire of a `Board`. Nothing
of another zone is imported.
"""

import argparse
import importlib
import sys
from pathlib import Path

from appliance.errors import ConfigurationError, DrempelError
from appliance.settings import load


def main(arguments: list[str] | None = None) -> int:
    """Run the zone that the command line names; its exit status."""
    parser = argparse.ArgumentParser(prog="appliance.simulation.zone", description=__doc__.split("\n")[0])
    parser.add_argument("zone", choices=["door", "lens", "vault", "admin"])
    parser.add_argument("--config", type=Path, required=True, help="the settings of this door")
    parser.add_argument("--board", type=Path, help="the socket of the simulated wall; for door only")
    options = parser.parse_args(arguments)
    try:
        settings = load(options.config)
        if options.zone == "door":
            if options.board is None:
                raise ConfigurationError("a simulated door needs --board, the socket of its wall")
            from appliance.simulation.board import use_board  # noqa: PLC0415 - no other zone has pins

            use_board(options.board)
        service = importlib.import_module(f"appliance.{options.zone}.service")
        return int(service.run(settings))
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 2
    except DrempelError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
