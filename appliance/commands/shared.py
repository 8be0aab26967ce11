"""What the commands share: options, printing, the packs' folder, and the local API."""

import contextlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.api_client import ApiClient
from appliance.errors import ConfigurationError
from appliance.link.sockets import user_ids
from appliance.settings import DEFAULT_PATH, load

_PERSON_ID = re.compile(r"[0-9a-f]{16}")

Config = Annotated[
    Path | None,
    typer.Option("--config", help="The settings file; else $DREMPEL_CONFIG, else /etc/drempel/drempel.toml."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Packs = Annotated[Path | None, typer.Option("--packs", help="The folder of installed packs.")]
Who = Annotated[str, typer.Argument(help="The person's id, or their name where only one person has it.")]


def packs_folder(packs: Path | None, config: Path | None) -> Path:
    """The folder of packs: the one named, or the device's where there are settings, or the user's own.

    Raises:
        ConfigurationError: the settings are wrong.
    """
    if packs is not None:
        return packs.absolute()
    if config is not None or os.environ.get("DREMPEL_CONFIG") or DEFAULT_PATH.is_file():
        return load(config).paths.packs
    return default_packs()


def default_packs() -> Path:
    """Where packs are installed for the user who calls; a device has its own folder, see [paths] packs."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(data) / "drempel" / "packs"


def progress(text: str) -> None:
    """Say on standard error what is being done."""
    print(text, file=sys.stderr, flush=True)


def api_client(config: Path | None) -> ApiClient:
    """A client of the local API of the door that the settings describe."""
    settings = load(config)
    return ApiClient(settings.socket("admin/api"), user_ids(settings.users.admin))


def person_id(api: ApiClient, who: str) -> str:
    """The id of a person given by id, or by a name that only one person has.

    Raises:
        ConfigurationError: nobody is called so, or several people are.
    """
    if _PERSON_ID.fullmatch(who):
        # Asked for as an id first; whoever is called so is found below.
        with contextlib.suppress(ConfigurationError):
            return str(api.call("GET", f"/people/{who}")["id"])
    found = [each["id"] for each in api.pages("/people/search", {"name": who.strip()})]
    if len(found) != 1:
        raise ConfigurationError(
            "several people have this name: give the id, see `drempel people list`"
            if found
            else "no such person: see `drempel people list`, or add them with `drempel people add`"
        )
    return str(found[0])


def call_api(config: Path | None, method: str, route: str, body: dict[str, Any] | None = None) -> Any:
    """Call one route of the local API; errors as `ApiClient.call`."""
    return api_client(config).call(method, route, body)


def badge_number(number: str) -> tuple[int, int]:
    """The bits and the number of a badge written as BITS:HEX.

    Raises:
        ConfigurationError: it is not written so.
    """
    bits, colon, digits = number.partition(":")
    try:
        value = int(digits, 16)
        if not colon or not 0 <= value < 1 << int(bits):
            raise ValueError
        return int(bits), value
    except ValueError:
        raise ConfigurationError("a badge is BITS:HEX, such as 26:1a2b3c, and fits in its bits") from None


def show(data: Any, text: str, *, as_json: bool, indent: int | None = 2) -> None:
    """Print the data as JSON (on one line with `indent` None), or the text."""
    print(json.dumps(data, indent=indent) if as_json else text, flush=True)


def show_table(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print rows that have the same keys, as JSON or as a table."""
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
        table.add_row(
            *(
                "yes" if v is True else "no" if v is False else "" if v is None else str(v)
                for v in row.values()
            )
        )
    Console().print(table)


def ensure_pack(name: str, folder: Path) -> None:
    """Install a pack, with progress, unless it is there, intact, and of this version's making.

    Raises:
        DrempelError: it cannot be had; see `appliance.packs.install`.
    """
    from appliance.packs.install import ensure  # noqa: PLC0415

    ensure(name, into=folder, progress=progress)
