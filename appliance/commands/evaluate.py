"""`drempel evaluate`: how often recognition errs, on photographs of people."""

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from appliance.commands.shared import AsJson, Config, Packs, ensure_pack, packs_folder, progress, show
from appliance.errors import ConfigurationError

if TYPE_CHECKING:
    from appliance.evaluation.dataset import Dataset
    from appliance.evaluation.embeddings import Embeddings, Source
    from appliance.evaluation.report import Report

TEMPLATE = 5
INTERRUPTED = 130
"""Exit status of a program that Ctrl-C ended, as shells have it."""
TOLD_EVERY = 10
"""Per cent, where progress is not drawn on a terminal."""

Jobs = Annotated[
    int | None, typer.Option(min=1, max=64, help="Processes at work; else one for each core. 250 MB each.")
]
KeepNothing = Annotated[
    bool, typer.Option("--keep-nothing", help="Keep no embedding on disk; then it cannot be resumed.")
]


def evaluate(
    dataset: Annotated[
        Path | None, typer.Argument(help="A folder with one folder of photographs a person.")
    ] = None,
    pack: Annotated[str, typer.Option(help="edge or dlib.")] = "edge",
    template: Annotated[int, typer.Option(min=1, max=50, help="Photographs in a template.")] = TEMPLATE,
    frames: Annotated[
        int, typer.Option(min=1, max=10, help="Photographs in an attempt; the best counts.")
    ] = 1,
    pairs: Annotated[
        Path | None,
        typer.Option(help="A CSV file of pairs: two files of the folder, and yes where they are one person."),
    ] = None,
    fmr: Annotated[
        float, typer.Option(help="With --pairs: the FMR at whose threshold they are decided.")
    ] = 1e-4,
    report: Annotated[
        Path | None,
        typer.Option(help="Folder for report.html, report.json and plots; else named by the data."),
    ] = None,
    show_faces: Annotated[
        bool, typer.Option("--show-faces", help="Put the hardest pairs' faces in.")
    ] = False,
    keep_nothing: KeepNothing = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Delete all embeddings that were kept, and end.")
    ] = False,
    jobs: Jobs = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn by chance.")] = 7,
    packs: Packs = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Measure how often the right person is refused, and somebody else is let in.

    Photographs go through the door's own detection, alignment and embedding, and vault's own template and
    comparison. DATASET holds one folder a person; a groups.csv in it (person,ATTRIBUTE,...) adds error rates
    by group. Interrupted, it goes on where it was when started again: embeddings are kept in a file that is
    yours alone, until the first evaluation after a week. They are biometric data: --keep-nothing keeps none,
    --forget deletes them.

    \b
    drempel evaluate photographs
    drempel evaluate photographs --pack dlib --frames 3 --json
    drempel evaluate portraits --pairs portraits/pairs.csv

    How to measure on your own consenting people: docs/evaluate.md.
    """  # noqa: D301 - click's mark for lines that stay as they are
    if forget:
        _forget(as_json=as_json)
        return
    if dataset is None:
        raise ConfigurationError("give a folder with one folder of photographs a person, see --help")
    be_stopped_in_order()
    began = time.monotonic()
    from appliance.evaluation import dataset as datasets  # noqa: PLC0415
    from appliance.evaluation.faces import with_faces  # noqa: PLC0415
    from appliance.evaluation.labelled_pairs import study_pairs  # noqa: PLC0415
    from appliance.evaluation.report import write_report  # noqa: PLC0415
    from appliance.evaluation.study import Circumstances, Protocol, study  # noqa: PLC0415
    from appliance.packs.manifest import load_manifest  # noqa: PLC0415

    if pairs is not None and (template, frames) not in {(TEMPLATE, 1), (1, 1)}:
        raise ConfigurationError(
            "pairs are a template of one photograph and one frame: drop --template, --frames"
        )
    if pairs is not None:
        load_manifest(pack).threshold(fmr, 1)
    folder = report or Path(f"report-{dataset.resolve().name}-{pack}")
    if folder.resolve().is_relative_to(dataset.resolve()):
        raise ConfigurationError(
            "the report would lie among the photographs, and count as a person: give --report"
        )
    listed = datasets.read_pairs(pairs, dataset) if pairs is not None else None
    data = listed.data if listed else datasets.read_dataset(dataset)
    if data.ignored:
        progress(f"{data.ignored} files are no photographs by their names, and are passed over")
    source = find_source(pack, packs, config)
    seen = embeddings_of(data, source, jobs=jobs, keep_nothing=keep_nothing)
    made = Circumstances(
        command=shlex.join(["drempel", *sys.argv[1:]]),
        source=source,
        manifest=load_manifest(pack),
        pack_hash=source.fingerprint(),
    )
    progress("comparing")
    if listed is not None:
        found = study_pairs(listed, seen, Protocol(1, 1, seed), made, fmr)
    else:
        found = study(data, seen, Protocol(template, frames, seed), made)
    if show_faces:
        found = with_faces(found, data, source)
    found = found.model_copy(update={"seconds": time.monotonic() - began})
    page = write_report(found, folder)
    # The faces are in report.json: standard output ends up in logs.
    faces = {"__all__": {"template_faces", "probe_faces"}}
    shown = found.model_dump(
        mode="json",
        exclude={"det": True, "histograms": True, "hardest": {"genuine": faces, "impostor": faces}},
    )
    show(shown, _in_words(found, page), as_json=as_json)


def find_source(pack: str, packs: Path | None, config: Path | None) -> "Source":
    """The pack, installed where it was not, with its conditions said."""
    from appliance.evaluation.embeddings import Source  # noqa: PLC0415
    from appliance.packs.manifest import load_manifest  # noqa: PLC0415

    manifest = load_manifest(pack)
    folder = packs_folder(packs, config)
    ensure_pack(pack, folder)
    if manifest.needs_acknowledgement:
        progress(f"pack {pack}: {manifest.acknowledgement}")
    return Source(folder, pack)


def embeddings_of(data: "Dataset", source: "Source", *, jobs: int | None, keep_nothing: bool) -> "Embeddings":
    """What the lens sees in a data set, with progress on standard error; Ctrl-C ends the program in order."""
    from appliance.evaluation.embeddings import Store, embed_all, store_path  # noqa: PLC0415

    path = None if keep_nothing else store_path(kept_folder(), source)
    store = Store(path)
    try:
        with _drawn("photographs", len(data.photographs)) as tell:
            return embed_all(
                data.photographs, source, store, workers=jobs or len(os.sched_getaffinity(0)), progress=tell
            )
    except KeyboardInterrupt:
        progress(
            "interrupted: nothing was kept"
            if path is None
            else "interrupted: what was done is kept, start it again to go on from here"
        )
        sys.exit(INTERRUPTED)
    finally:
        store.close()
        if path is not None:
            progress(f"embeddings are kept in {path}: delete them with drempel evaluate --forget")


def kept_folder() -> Path:
    """Where embeddings are kept: in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "drempel" / "evaluation"


def _forget(*, as_json: bool) -> None:
    count = 0
    for path in kept_folder().glob("*.db*"):
        path.unlink(missing_ok=True)
        count += path.suffix == ".db"
    show({"forgotten": count}, f"{count} files of embeddings are deleted", as_json=as_json)


def be_stopped_in_order() -> None:
    """An end from outside is one in order, too: workers are stopped, and what was done is kept."""

    def stop(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


@contextmanager
def _drawn(what: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; else a line for every tenth part."""
    if not sys.stderr.isatty():
        told = 0

        def tell(done: int, of: int) -> None:
            nonlocal told
            if 100 * done // max(of, 1) >= told + TOLD_EVERY:
                told = 100 * done // of // TOLD_EVERY * TOLD_EVERY
                progress(f"{done} of {of} {what}")

        yield tell
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, _of: bar.update(task, completed=done)


def _in_words(report: "Report", page: Path) -> str:
    from appliance.evaluation.report.words import name  # noqa: PLC0415

    lines = [
        f"{report.data}: {report.photographs:,} photographs of {report.people:,} people, pack {report.pack}",
        f"failure to acquire {report.fta:.2%}, failure to enrol {report.fte:.2%}",
        f"{report.templates:,} templates of {report.template} by {report.template_people:,} people",
        f"{report.genuine:,} genuine attempts by {report.genuine_people:,} people, frames: {report.frames}",
        f"{report.impostor:,} impostor attempts by {report.impostor_people:,} people",
    ]
    if report.eer is not None:
        lines.append(f"EER {_span(report.eer, report.eer_low, report.eer_high)}")
    if report.fnmr_at_fmr:
        lines += ["", f"{'FMR':<10}{'FNMR':<26}threshold"]
        lines += [
            f"{fmr:<10}{_span(each.fnmr, each.low, each.high):<26}{each.threshold:.4f}"
            for fmr, each in report.fnmr_at_fmr.items()
        ]
    lines += [f"{fmr:<10}not stated: {why}" for fmr, why in report.left_out.items()]
    if report.at_pack_thresholds:
        lines += ["", "At the pack's own thresholds, which were set before:", f"{'named':<10}{'FNMR':<26}FMR"]
        lines += [
            f"{each.named_fmr:<10g}{_span(each.fnmr.rate, each.fnmr.low, each.fnmr.high):<26}"
            f"{each.fmr.rate:.2g} ({each.fmr.low:.2g} to {each.fmr.high:.2g})"
            for each in report.at_pack_thresholds
        ]
    for what, value in (report.pairs or {}).items():
        listed = value if isinstance(value, tuple) else (value,)
        lines += [f"{what}: {name(str(each))}" for each in listed]
    return "\n".join([*lines, "", "Intervals are of 95 %, over people.", f"The whole report: {page}"])


def _span(rate: float, low: float | None, high: float | None) -> str:
    return f"{rate:.2%}" if low is None or high is None else f"{rate:.2%} ({low:.2%} to {high:.2%})"
