"""The command `drempel`: thin, one function a command.

Exit status: 0 done, 1 the answer is no, 2 the call or the configuration is wrong. Every error is one line
that says what to do. Libraries that only one command needs are imported in it, so that a zone does not carry
what the others use.
"""

import contextlib
import importlib.metadata
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.commands.backup import backup, restore
from appliance.commands.bench import bench
from appliance.commands.evaluate import evaluate
from appliance.commands.models import models_app
from appliance.commands.people import badges_app, consent_app, enrol, erase, people_app
from appliance.commands.shared import AsJson, Config, Packs, default_packs, ensure_pack, progress, show_table
from appliance.commands.simulate import simulate_app
from appliance.commands.site import accounts_app, events, status
from appliance.commands.vault import check, decommission, rotate_keys, trust_clock
from appliance.errors import ConfigurationError, DrempelError
from appliance.process import ZONES
from appliance.settings import load

app = typer.Typer(
    help="A door with a badge reader, and a face as an equal beside it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
journal_app = typer.Typer(help="The zones' tamper-evident journals.", no_args_is_help=True)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer's signature
    if wanted:
        print(importlib.metadata.version("drempel"))
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; every error of ours is one line."""
    try:
        app()
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except DrempelError as error:
        print(error, file=sys.stderr)
        sys.exit(1)


# --- the door itself ----------------------------------------------------------------------------


@app.command()
def demo(
    as_json: AsJson = False,
    pictures: Annotated[
        Path | None,
        typer.Option(help="A folder with obama.jpg, obama2.jpg and biden.jpg, instead of the ones fetched."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Where to write the timeline as a page.")] = None,
    packs: Packs = None,
) -> None:
    """Tell a day at a simulated door: badge, consent, enrolment, face, failure, erasure."""
    from appliance.packs.portraits import portraits  # noqa: PLC0415
    from appliance.simulation import demo as story_of  # noqa: PLC0415
    from appliance.simulation.door import SimulatedDoor, temporary_state  # noqa: PLC0415
    from appliance.simulation.timeline import show_moment, show_scenes, write_page  # noqa: PLC0415

    folder = packs.absolute() if packs else default_packs()
    if pictures is not None:
        shown = {name: pictures / name for name in story_of.PICTURES}
        for path in shown.values():
            if not path.is_file():
                raise ConfigurationError(f"{path} is missing: --pictures needs {', '.join(shown)}")
    ensure_pack("edge", folder)
    if pictures is None:
        shown = portraits(progress)
    page = html or _demo_page()
    # An end from outside is an end in order: zones stopped, folders removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with temporary_state() as state, SimulatedDoor(state, story_of.plan(folder)) as door:
        story = story_of.Story(door, shown, (lambda _: None) if as_json else show_moment)
        ok = story.run()
        write_page(page, story)
    if as_json:
        print(json.dumps(story_of.as_json(story), indent=2))
    else:
        show_scenes(story)
        print(f"The timeline as a page: {page}")
    sys.exit(0 if ok else 1)


@app.command()
def run(
    config: Config = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Without hardware: pins, reader and camera.")
    ] = False,
    state: Annotated[
        Path | None, typer.Option(help="With --simulate: keep people, badges and templates in this folder.")
    ] = None,
    badge_only: Annotated[
        bool, typer.Option("--badge-only", help="With --simulate: recognition off.")
    ] = False,
    packs: Packs = None,
) -> None:
    """Run the four zones in the foreground; on a device systemd does."""
    if not simulate:
        if state or badge_only or packs:
            raise ConfigurationError(
                "--state, --badge-only and --packs are for --simulate: add it, or drop them"
            )
        from appliance.foreground import run_zones  # noqa: PLC0415

        sys.exit(run_zones(load(config), config))
    from appliance.process import stop_event  # noqa: PLC0415
    from appliance.simulation.control import Control  # noqa: PLC0415
    from appliance.simulation.door import Plan, SimulatedDoor, temporary_state  # noqa: PLC0415

    if config:
        raise ConfigurationError("--simulate makes its own settings: drop --config, or drop --simulate")
    folder = packs.absolute() if packs else default_packs()
    if not badge_only:
        ensure_pack("edge", folder)
    stop: threading.Event = stop_event()
    with contextlib.ExitStack() as stack:
        place = state.absolute() if state else stack.enter_context(temporary_state())
        place.mkdir(parents=True, exist_ok=True)
        plan = Plan(packs=folder, recognition=not badge_only)
        door = stack.enter_context(SimulatedDoor(place, plan))
        control = place / "control.sock"
        stack.enter_context(Control(door, control, stop))
        print("A simulated door is open for business. In another terminal:")
        print(f"  export DREMPEL_CONFIG={door.config} DREMPEL_CONTROL={control}")
        print("  drempel status; drempel people add Ada; drempel badges add Ada 26:1a2b3c")
        print("  drempel simulate badge 26:1a2b3c; drempel simulate pins")
        print("Ctrl-C ends it.", flush=True)
        stop.wait()


def _zone(name: str, config: Path | None) -> None:
    import importlib  # noqa: PLC0415

    service = importlib.import_module(f"appliance.{name}.service")
    sys.exit(service.run(load(config)))


@app.command()
def door(config: Config = None) -> None:
    """Be the door zone: pins, badge readers, the relay."""
    _zone("door", config)


@app.command()
def lens(config: Config = None) -> None:
    """Be the lens zone: the camera, and the first four steps of recognition."""
    _zone("lens", config)


@app.command()
def vault(config: Config = None) -> None:
    """Be the vault zone: templates, keys, and the comparison."""
    _zone("vault", config)


@app.command()
def admin(config: Config = None) -> None:
    """Be the admin zone: people, consent, and the local API."""
    _zone("admin", config)


def _demo_page() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "drempel"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "demo.html"


# --- the journals -------------------------------------------------------------------------------


@journal_app.command("verify")
def journal_verify(config: Config = None, as_json: AsJson = False) -> None:
    """Check every zone's journal, as root: each line must follow from the line before.

    A chain that was rewritten whole, or cut at its end, is found by comparing the head with one noted before.
    """
    from appliance.journal import JournalBroken, JournalError, verify  # noqa: PLC0415

    settings = load(config)
    rows: list[dict[str, Any]] = []
    for zone in ZONES:
        path = settings.paths.state / zone / "journal.jsonl"
        row: dict[str, Any] = {"zone": zone, "ok": False, "lines": None, "head": None, "problem": None}
        rows.append(row)
        try:
            head = verify(path)
            row.update(ok=True, lines=head.lines, head=head.digest)
        except (JournalBroken, JournalError) as problem:
            row["problem"] = str(problem)
    show_table(rows, as_json=as_json)
    sys.exit(0 if all(row["ok"] for row in rows) else 1)


for name, group in (
    ("models", models_app),
    ("people", people_app),
    ("consent", consent_app),
    ("badges", badges_app),
    ("accounts", accounts_app),
    ("journal", journal_app),
    ("simulate", simulate_app),
):
    app.add_typer(group, name=name)
for command in (
    *(bench, evaluate, enrol, erase, status, events),
    *(check, rotate_keys, trust_clock, backup, restore, decommission),
):
    app.command()(command)

if __name__ == "__main__":
    main()
