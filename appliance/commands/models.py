"""`drempel models`: what finds and describes a face."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.commands.evaluate import Jobs, KeepNothing, be_stopped_in_order, embeddings_of, find_source
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


@models_app.command("calibrate")
def models_calibrate(
    pack: Annotated[str, typer.Argument(help="edge or dlib.")],
    dataset: Annotated[Path, typer.Argument(help="A folder with one folder of photographs a person.")],
    fmr: Annotated[
        list[float] | None, typer.Option(help="A false match rate to have a threshold for; may be repeated.")
    ] = None,
    describe: Annotated[
        str | None, typer.Option(help="What the photographs are, for the manifest; else the folder's name.")
    ] = None,
    subtract_mean: Annotated[
        bool, typer.Option("--mean/--no-mean", help="Whether the mean embedding is subtracted.")
    ] = True,
    output: Annotated[
        Path | None, typer.Option(help="Write the manifest here, not where the pack's own one is.")
    ] = None,
    keep_nothing: KeepNothing = False,
    jobs: Jobs = None,
    packs: Packs = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Measure a pack's thresholds on photographs, and write them into its manifest with the evidence.

    It takes thousands of people for FMR 1e-5, and other people than those on whom error rates are stated
    afterwards. A rate that the photographs cannot decide is left out, and said so.

    \b
    drempel models calibrate edge photographs
    drempel models calibrate edge photographs --fmr 1e-3 --fmr 1e-4 --output edge.toml
    """  # noqa: D301 - click's mark for lines that stay as they are
    from appliance.evaluation import calibration  # noqa: PLC0415
    from appliance.evaluation.dataset import read_dataset  # noqa: PLC0415

    rates = fmr or list(calibration.RATES)
    if not all(0 < rate < 1 for rate in rates):
        raise ConfigurationError("a false match rate is between 0 and 1, such as --fmr 1e-4")
    be_stopped_in_order()
    data = read_dataset(dataset)
    source = find_source(pack, packs, config)
    seen = embeddings_of(data, source, jobs=jobs, keep_nothing=keep_nothing)
    made = calibration.calibrate(data, seen, rates, subtract_mean=subtract_mean)
    words = ["drempel", "models", "calibrate", pack, data.name]
    words += [word for rate in fmr or () for word in ("--fmr", f"{rate:g}")]
    command = shlex.join(words + ([] if subtract_mean else ["--no-mean"]))
    table = calibration.calibration_table(command, describe or data.name, data, seen, source, made)
    path = calibration.write_manifest(pack, table, output)
    for (rate, frames), why in made.left_out.items():
        progress(f"FMR {rate:g} of {frames} frame(s): left out, {why}")
    rows = [
        {
            "fmr": each.fmr,
            "frames": each.frames,
            "threshold": each.threshold,
            "fnmr": round(each.fnmr, 6),
            "low": round(each.low, 6),
            "high": round(each.high, 6),
            "impostors_above": each.impostors_above,
        }
        for each in made.thresholds
    ]
    show_table(rows, as_json=as_json)
    progress(f"written to {path}")
