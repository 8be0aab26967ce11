"""`drempel bench`: how fast and how heavy a door is, beside its peers."""

import json
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.commands.shared import (
    AsJson,
    Packs,
    ensure_pack,
    packs_folder,
    progress,
)
from appliance.errors import ConfigurationError
from appliance.settings import load

Against = Annotated[
    list[str] | None,
    typer.Option(help="face_recognition or insightface, in an environment of its own; may be repeated."),
]
Watched = Annotated[
    Path | None,
    typer.Option(
        "--config", help="With --idle: the settings of a door that runs, to watch it and not a simulated one."
    ),
]


def bench(
    against: Against = None,
    rounds: Annotated[
        int, typer.Option(min=6, help="Rounds: each contestant does one frame in each; not for --enrolled.")
    ] = 120,
    enrolled: Annotated[
        bool, typer.Option(help="Also an attempt with 10, 1,000 and 100,000 enrolled (500 MB of disk).")
    ] = True,
    pictures: Annotated[
        list[Path] | None, typer.Option("--picture", help="A portrait, instead of the ones that are fetched.")
    ] = None,
    idle: Annotated[
        bool, typer.Option("--idle", help="Memory, processor and camera of a door that waits, and no more.")
    ] = False,
    erase: Annotated[
        bool, typer.Option("--erase", help="Open and erase one record among 100,000, and no more.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=1, help="With --idle: for how long.")] = 60.0,
    packs: Packs = None,
    config: Watched = None,
    as_json: AsJson = False,
) -> None:
    """Measure the door's own code: each step, the whole, its peers, many enrolled, or a door at rest.

    Steps 2 to 5 (detection, alignment, embedding, comparison) with one face in a frame of 640 x 480, on one
    thread and one core. With --against the peers do the same frames in turn with ours, round by round; a
    ratio is the median of the rounds' ratios, with its 95 % interval.

    --idle starts a simulated door and watches its four zones; with --config it watches the door that runs
    with these settings, for which it needs to be root.

    The figures say what was asked of them and whether they meet it; the exit status does not, since it is
    the machine's load as much as the code that decides.

    \b
    drempel bench --against face_recognition --against insightface
    drempel bench --no-enrolled --rounds 500 --json
    drempel bench --idle --seconds 60
    drempel bench --erase
    """  # noqa: D301 - click's mark for lines that stay as they are
    # An end from outside is an end in order: peers and zones stopped, folders removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if erase:
        if against or idle:
            raise ConfigurationError("--erase is measured alone: drop the other options")
        _show(_erase(), as_json=as_json)
        return
    if idle:
        if against:
            raise ConfigurationError("--idle and --against disturb each other: run one after the other")
        _show(_idle(seconds, packs, config), as_json=as_json)
        return
    if config:
        raise ConfigurationError("--config is for --idle: add it, or drop --config")
    from appliance.evaluation.bench import machine, speed  # noqa: PLC0415
    from appliance.evaluation.bench.peers.environment import known_peer  # noqa: PLC0415
    from appliance.packs.portraits import portraits  # noqa: PLC0415

    peers = list(dict.fromkeys(known_peer(name) for name in against or []))
    folder = packs_folder(packs, None)
    ensure_pack(speed.PACK, folder)
    # Before the run, which is a load of its own.
    conditions = machine.describe()
    frames = speed.frames_of(pictures or list(portraits(progress).values()))
    figures: dict[str, Any] = {}
    with machine.one_core() as core:
        door = speed.load_door(folder)
        figures |= speed.race_as_json(
            speed.race(door, frames, peers, packs=folder, rounds=rounds, progress=progress)
        )
        if enrolled:
            figures |= speed.measure_enrolled(
                door,
                frames,
                speed.COUNTS,
                rounds=speed.ENROLLED_ROUNDS,
                vault_rounds=speed.VAULT_ROUNDS,
                progress=progress,
            )
    figures |= {"rounds": rounds, "frames": len(frames), "core": core, "machine": conditions}
    figures["networks"] = speed.networks(folder)
    _show(figures, as_json=as_json)


def _idle(seconds: float, packs: Path | None, config: Path | None) -> dict[str, Any]:
    """The figures of a door at rest: the running one's where settings are given, else a simulated one's."""
    from appliance.evaluation.bench import idle, machine, speed  # noqa: PLC0415

    conditions = machine.describe()
    if config:
        figures = idle.watch_running(load(config), seconds, progress)
    else:
        folder = packs_folder(packs, None)
        ensure_pack(speed.PACK, folder)
        figures = idle.watch_simulated(folder, seconds, progress)
    return figures | {"machine": conditions}


def _erase() -> dict[str, Any]:
    """The figures of opening and erasing one record among many."""
    from appliance.evaluation.bench import erasure, machine  # noqa: PLC0415

    conditions = machine.describe()
    figures = erasure.measure_erasing(
        erasure.COUNT, opened=erasure.OPENED, erased=erasure.ERASED, progress=progress
    )
    return figures | {"machine": conditions}


def _show(figures: dict[str, Any], *, as_json: bool) -> None:
    """Print the figures as JSON, or as tables."""
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    from appliance.evaluation.bench.tables import show  # noqa: PLC0415

    show(figures)
