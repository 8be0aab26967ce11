"""The figures of `drempel bench` as tables for people."""

from typing import Any

from rich.console import Console
from rich.table import Table

from appliance.evaluation.bench.machine import in_words
from appliance.process import ZONES

_YES_OR_NO = {True: "yes", False: "no"}


def show(figures: dict[str, Any]) -> None:
    """Print all that was measured, on standard output."""
    console = Console()
    if "idle" in figures:
        _show_idle(console, figures)
    elif "erase" in figures:
        _show_erasure(console, figures["erase"])
    else:
        _show_steps(console, figures)
        if figures["peers"]:
            _show_peers(console, figures)
        if "enrolled" in figures:
            _show_enrolled(console, figures)
    console.print(f"[dim]{in_words(figures['machine'])}[/dim]")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, min_width=len(title))
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=not number)
    return table


def _show_steps(console: Console, figures: dict[str, Any]) -> None:
    table = _table(
        f"Steps 2 to 5, one face in 640 x 480, one thread (n = {figures['rounds']})",
        *("step", "median ms", "5 %", "95 %"),
    )
    for name in (*figures["steps"], "whole"):
        spread = figures["spread"][name]
        table.add_row(name, *(f"{spread[each]:.2f}" for each in ("median", "p5", "p95")))
    console.print(table)


def _show_peers(console: Console, figures: dict[str, Any]) -> None:
    table = _table(
        "Beside the peers, on the same frames in turn",
        *("peer", "median ms", "5-95 %", "we are faster", "95 % sure", "of its time", "asked"),
    )
    for name, peer in figures["peers"].items():
        spread, ratio = peer["spread"], peer["ratio_interval"]
        table.add_row(
            f"{name} {peer['version']}",
            f"{spread['median']:.1f}",
            f"{spread['p5']:.0f}-{spread['p95']:.0f}",
            f"{ratio['median']:.2f} x",
            f"{ratio['low']:.2f}-{ratio['high']:.2f}",
            f"{peer['share_of_its_time']['median']:.2f}",
            f"{peer['target_ratio']:g} x: {_YES_OR_NO[peer['met']]}",
        )
    console.print(table)
    for name, peer in figures["peers"].items():
        cold = peer["ratio_of_first_times"]
        console.print(
            f"{name}, the first of two in a row, with the caches emptied by another: "
            f"{cold['median']:.2f} x (95 % interval {cold['low']:.2f}-{cold['high']:.2f})"
        )


def _show_enrolled(console: Console, figures: dict[str, Any]) -> None:
    table = _table(
        f"One attempt by how many are enrolled (n = {figures['enrolled_ratio']['n']} each)",
        *("enrolled", "whole ms", "5 %", "95 %", "vault alone ms", "5 %", "95 %"),
    )
    for count in figures["enrolled"]:
        whole, part = figures["enrolled_spread"][count], figures["vault_part"][count]
        cells = [f"{whole[each]:.2f}" for each in ("median", "p5", "p95")]
        cells += [f"{part[each]:.3f}" for each in ("median", "p5", "p95")]
        table.add_row(f"{int(count):,}", *cells)
    console.print(table)
    read = " / ".join(f"{each:g}" for each in figures["records_read_per_attempt"].values())
    console.print(f"records read by an attempt: {read}")
    for name, key in (("whole", "enrolled_ratio"), ("vault alone", "vault_part_ratio")):
        ratio = figures[key]
        console.print(
            f"most / fewest, {name}: {ratio['median']:.3f} "
            f"(95 % interval {ratio['low']:.3f}-{ratio['high']:.3f}, n = {ratio['n']})"
        )
    ratio = figures["enrolled_ratio"]
    console.print(f"flat within {ratio['target']:.0%}: {_YES_OR_NO[ratio['met']]}")


def _show_idle(console: Console, figures: dict[str, Any]) -> None:
    table = _table(
        f"A door at rest, {figures['seconds']:g} s", "zone", "RSS MiB", "PSS MiB", "share of one core"
    )
    rows = [(zone, figures["idle"][zone]) for zone in ZONES]
    for name, each in (*rows, ("all", figures["total"])):
        table.add_row(name, f"{each['rss_mib']:.0f}", f"{each['pss_mib']:.0f}", f"{each['cpu']:.2%}")
    console.print(table)
    console.print(f"camera handles: {figures['idle']['camera_handles']}")
    for name, met in figures["met"].items():
        console.print(f"{name.replace('_', ' ')} as asked: {_YES_OR_NO[met]}")


def _show_erasure(console: Console, figures: dict[str, Any]) -> None:
    table = _table(f"One record among {figures['count']:,}", "", "median", "5 %", "95 %", "n")
    for name, key, digits in (
        ("open, ms", "open_ms", 3),
        ("erase, s", "erase_s", 2),
        ("erase, s of one core", "erase_cpu_s", 2),
    ):
        spread = figures[key]
        cells = [f"{spread[each]:.{digits}f}" for each in ("median", "p5", "p95")]
        table.add_row(name, *cells, str(spread["n"]))
    console.print(table)
    console.print(
        f"an erasure: {figures['written_mb']:g} MB written to the disk, {figures['handed_over_mb']:g} MB "
        f"handed to the kernel, of a database of {figures['database_mb']:g} MB"
    )
    console.print(f"check of all: {figures['check_s']:g} s, sound: {_YES_OR_NO[figures['sound']]}")
    console.print(f"erased within {figures['target_s']:g} s: {_YES_OR_NO[figures['met']]}")
