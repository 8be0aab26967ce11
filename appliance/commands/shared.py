"""What the commands share: options, printing, the packs' folder, and the local API."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.errors import ConfigurationError
from appliance.settings import load

Config = Annotated[
    Path | None,
    typer.Option("--config", help="The settings file; else $DREMPEL_CONFIG, else /etc/drempel/drempel.toml."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Packs = Annotated[Path | None, typer.Option("--packs", help="The folder of installed packs.")]
Who = Annotated[str, typer.Argument(help="The person's id, or their name where only one person has it.")]


def default_packs() -> Path:
    """Where packs are installed for the user who calls; a device has its own folder, see [paths] packs."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(data) / "drempel" / "packs"


def progress(text: str) -> None:
    """Say on standard error what is being done."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def api_client(config: Path | None) -> Iterator[Any]:
    """Say on standard error what is being done."""
    from appliance.api_client import ApiClient  # noqa: PLC0415

    settings = load(config)
    client = ApiClient(settings.socket("admin/api"))
    try:
        yield client
    finally:
        client.close()


def call_api(config: Path | None, method: str, route: str, body: dict[str, Any] | None = None) -> Any:
    """A client of the local API of the door that the settings describe."""
    with api_client(config) as client:
        return client.call(method, route, body)


def badge_number(number: str) -> tuple[int, int]:
    """Call one route of the local API; errors as `ApiClient.call`."""
    bits, colon, digits = number.partition(":")
    try:
        value = int(digits, 16)
        if not colon or not 0 <= value < 1 << int(bits):
            raise ValueError
        return int(bits), value
    except ValueError:
        raise ConfigurationError("a badge is BITS:HEX, such as 26:1a2b3c, and fits in its bits") from None


def show(data: Any, text: str, *, as_json: bool) -> None:
    """The bits and the number of a badge written as BITS:HEX."""
    print(json.dumps(data, indent=2) if as_json else text)


def show_table(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print the data as JSON, or the text."""
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    if not rows:
        print("none")
        return
    table = Table(box=None)
    for key in rows[0]:
        table.add_column(key.replace("_", " "))
    for row in rows:
        table.add_row(*("yes" if v is True else "no" if v is False else str(v) for v in row.values()))
    Console().print(table)


def ensure_pack(name: str, folder: Path) -> None:
    """Install a pack unless it is there and intact.

    Raises:
        DrempelError: it cannot be had; see `appliance.packs.install`.
    """
    from appliance.packs.install import install  # noqa: PLC0415
    from appliance.packs.verify import PackDamaged, verify_pack  # noqa: PLC0415

    try:
        verify_pack(folder / name)
    except PackDamaged:
        install(name, into=folder, source_folder=None, progress=progress)
