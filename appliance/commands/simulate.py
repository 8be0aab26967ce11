"""`drempel simulate`: act at a door that `drempel run --simulate` runs."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.commands.shared import AsJson, badge_number, show
from appliance.errors import ConfigurationError

simulate_app = typer.Typer(help="Act at a door that `drempel run --simulate` runs.", no_args_is_help=True)


@simulate_app.command("press")
def simulate_press() -> None:
    """Press the button."""
    _simulate({"do": "press"})


@simulate_app.command("badge")
def simulate_badge(number: Annotated[str, typer.Argument(help="BITS:HEX, such as 26:1a2b3c.")]) -> None:
    """Hold up a badge."""
    bits, value = badge_number(number)
    _simulate({"do": "badge", "bits": bits, "number": f"{value:x}"})


@simulate_app.command("show")
def simulate_show(
    pictures: Annotated[
        list[Path] | None, typer.Argument(help="Pictures, one after the other, 1.5 s each; none for nobody.")
    ] = None,
) -> None:
    """Put pictures before the lens, from the next press on."""
    _simulate({"do": "show", "pictures": [{"picture": str(path.absolute())} for path in pictures or []]})


@simulate_app.command("pins")
def simulate_pins(as_json: AsJson = False) -> None:
    """Relay and lamps, as they are now."""
    pins = _simulate({"do": "pins"})
    del pins["ok"]
    show(
        pins,
        "\n".join(f"{name}: {'on' if state else 'off'}" for name, state in pins.items()),
        as_json=as_json,
    )


@simulate_app.command("kill")
def simulate_kill(zone: Annotated[str, typer.Argument(help="door, lens, vault or admin.")]) -> None:
    """Kill a zone; it starts again after a moment, as under systemd."""
    _simulate({"do": "kill", "zone": zone})


def _simulate(command: dict[str, Any]) -> dict[str, Any]:
    from appliance.simulation.control import ask  # noqa: PLC0415 - it brings the pins with it

    path = os.environ.get("DREMPEL_CONTROL")
    if not path:
        raise ConfigurationError(
            "set DREMPEL_CONTROL to the control socket that `drempel run --simulate` names"
        )
    return ask(Path(path), command)
