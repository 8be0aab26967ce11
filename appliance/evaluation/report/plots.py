"""The DET curve and the histograms of scores, drawn by matplotlib as SVG and PNG.

All text in a plot is ours: no name of a file, person or group is drawn. The colours (Okabe and Ito's) are
told apart by the colour-blind, and every line by its shape as well, in grey print.
"""

import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from appliance.evaluation.report.model import Histograms, Report
from appliance.evaluation.report.words import stated

Floats = npt.NDArray[np.float64]

INK = "#1b1b1f"
"""Text and axes."""
BLUE, ORANGE = "#0072b2", "#d55e00"
_OF_PAGE = {INK: "currentColor", BLUE: "var(--mark)", ORANGE: "var(--other)"}
"""What each colour becomes in the page, which has others on a dark ground."""
MOST_BINS = 140
SIZE = (5.4, 4.3)
"""Inches. Small, so that its letters stay legible on a phone."""

_STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.usetex": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "drempel",
    "axes.unicode_minus": True,
    "hatch.linewidth": 0.6,
}
_TICKS = sorted(
    [factor * 10.0**power for power in range(-8, -1) for factor in (1, 2, 5)] + [0.1, 0.2, 0.3, 0.4, 0.5]
)
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Drawing:
    """One plot.

    Attributes:
        svg: a file of its own, on white.
        inline: for within the page: no ground, ink in the page's colour, no name that another plot has.
        png: for documents that take no SVG.
    """

    svg: str
    inline: str
    png: bytes


def draw(report: Report) -> dict[str, Drawing]:
    """`det` (where there is a curve) and `histograms`."""
    drawings = {}
    # For the time of drawing: the user's own matplotlib settings would change what a report looks like.
    with rc_context(_STYLE):
        if report.det:
            label = (
                f"DET curve: FNMR against FMR, with the {report.level * 100:g} % interval of FNMR. "
                "The tables hold its figures."
            )
            drawings["det"] = _drawing("det", label, lambda axes: _det(axes, report))
        drawings["histograms"] = _drawing(
            "histograms",
            "How many genuine and impostor comparisons scored what, on a logarithmic scale of counts",
            lambda axes: _histograms(axes, report),
        )
    return drawings


def probit(rates: Iterable[float], floor: float = 1e-9) -> Floats:
    """Normal deviates of rates; those nearer to 0 or 1 than `floor` are moved there."""
    return np.array([_NORMAL.inv_cdf(min(max(rate, floor), 1 - floor)) for rate in rates], np.float64)


def _det(axes: Axes, report: Report) -> None:
    pack = report.at_pack_thresholds
    # Below this no error rate can be seen; zeros are drawn here, at the edge.
    least_fnmr = 0.5 / max(report.genuine, 1)
    least_fmr = 0.5 / max(report.impostor, 1)
    fmr = np.array([point.fmr for point in report.det])
    highest = max(
        [
            *(point.high for point in report.det),
            *(each.fnmr.high for each in pack),
            *(each.high for each in report.fnmr_at_fmr.values()),
            0.01,
        ]
    )
    lowest = min(
        rate for rate in (*(max(each.low, least_fnmr) for each in report.det), 0.9) if rate >= least_fnmr
    )
    shown = [*fmr, *(each.fmr.rate for each in pack), *map(float, report.fnmr_at_fmr)]
    left, right = max(min(shown) / 1.6, least_fmr), min(max([*shown, 1e-3]) * 1.3, 0.6)
    bottom, top = lowest / 1.3, min(highest * 1.4, 0.95)

    x = probit(fmr, left)
    axes.fill_between(
        x,
        probit((point.low for point in report.det), bottom),
        probit((point.high for point in report.det), bottom),
        color=BLUE,
        alpha=0.22,
        # A single point's band has no width of its own.
        linewidth=5 if len(x) == 1 else 0,
        label=f"{report.level * 100:g} % interval of FNMR",
    )
    curve = probit((point.fnmr for point in report.det), bottom)
    axes.plot(x, curve, color=BLUE, linewidth=1.8, label="DET curve", marker="." if len(x) == 1 else "")
    ends = probit([min(left, bottom), 0.6], 1e-9)
    axes.plot(ends, ends, color=INK, linewidth=0.7, linestyle=(0, (1, 3)), label="FMR = FNMR (EER)")
    if report.fnmr_at_fmr:
        axes.plot(
            probit(map(float, report.fnmr_at_fmr), left),
            probit((each.fnmr for each in report.fnmr_at_fmr.values()), bottom),
            # A ring, so that it is seen around a threshold of the pack, which mostly lies in the same place.
            **_marks("o", BLUE, "at stated FMR, on these data")
            | {"markersize": 10, "markerfacecolor": "none", "markeredgecolor": BLUE, "markeredgewidth": 1.6},
        )
    if pack:
        across, up = probit((e.fmr.rate for e in pack), left), probit((e.fnmr.rate for e in pack), bottom)
        axes.errorbar(
            across,
            up,
            xerr=_reach(across, [(e.fmr.low, e.fmr.high) for e in pack], left),
            yerr=_reach(up, [(e.fnmr.low, e.fnmr.high) for e in pack], bottom),
            ecolor=ORANGE,
            elinewidth=1,
            capsize=2.5,
            **_marks("D", ORANGE, "at the pack's thresholds"),
        )
    _probit_axis(axes, left, right, across=True)
    _probit_axis(axes, bottom, top, across=False)
    axes.set_xlabel("False match rate, FMR (%)")
    axes.set_ylabel("False non-match rate, FNMR (%)")
    axes.grid(visible=True, color=INK, alpha=0.13, linewidth=0.6)
    _legend(axes)


def _marks(marker: str, colour: str, label: str) -> dict[str, Any]:
    return {
        "marker": marker,
        "linestyle": "none",
        "markersize": 6,
        "markerfacecolor": colour,
        "markeredgecolor": INK,
        "markeredgewidth": 0.8,
        "label": label,
        "zorder": 5,
        "clip_on": False,
    }


def _reach(at: Floats, spans: list[tuple[float, float]], floor: float) -> Floats:
    """How far the bars of intervals reach (2, n), below and above, in normal deviates."""
    low, high = probit((low for low, _ in spans), floor), probit((high for _, high in spans), floor)
    return np.maximum([at - low, high - at], 0)


def _probit_axis(axes: Axes, low: float, high: float, *, across: bool) -> None:
    """Limits and ticks of one axis; ticks that would touch are left out, the decades last."""
    first, last = probit([low, high])
    room = (last - first) * (0.1 if across else 0.06)
    kept: list[float] = []
    decades_first = sorted(_TICKS, key=lambda rate: (not f"{rate:e}".startswith("1.0"), rate))
    for rate in decades_first:
        place = probit([rate])[0]
        if first <= place <= last and all(abs(place - probit([other])[0]) > room for other in kept):
            kept.append(rate)
    kept.sort()
    labels = [stated(rate).removesuffix(" %") for rate in kept]
    if across:
        axes.set_xlim(first, last)
        axes.set_xticks(probit(kept), labels)
    else:
        axes.set_ylim(first, last)
        axes.set_yticks(probit(kept), labels)


def _histograms(axes: Axes, report: Report) -> None:
    edges, genuine, impostor = _rebinned(report.histograms)
    # Limits first: there may be nothing to find them by.
    axes.set_ylim(0.5, 6 * max(float(genuine.max()), float(impostor.max()), 1.0))
    axes.set_yscale("log")
    axes.stairs(impostor, edges, fill=True, color=ORANGE, alpha=0.3, label=f"impostor: {report.impostor:,}")
    axes.stairs(impostor, edges, color=ORANGE, linewidth=1.2)
    axes.stairs(
        genuine,
        edges,
        fill=True,
        facecolor="none",
        edgecolor=BLUE,
        hatch="////",
        linewidth=0,
        label=f"genuine: {report.genuine:,}",
    )
    axes.stairs(genuine, edges, color=BLUE, linewidth=1.6)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else ""))
    axes.minorticks_off()
    _threshold_lines(axes, report)
    axes.set_xlabel("Comparison score (cosine)")
    axes.set_ylabel(f"Comparisons in a bin of {edges[1] - edges[0]:.2g} (logarithmic)")
    axes.grid(visible=True, axis="y", color=INK, alpha=0.13, linewidth=0.6)
    _legend(axes)


def _threshold_lines(axes: Axes, report: Report) -> None:
    """The pack's thresholds, or where it ships none, those that were set on these data."""
    lines = [(each.threshold, each.named_fmr) for each in report.at_pack_thresholds] or [
        (each.threshold, float(fmr)) for fmr, each in report.fnmr_at_fmr.items()
    ]
    low, high = axes.get_xlim()
    # The height of a letter and its distance from the line.
    room = 0.04 * (high - low)
    places = sorted(lines)
    taken = [(threshold, threshold) for threshold, _ in places]
    for threshold, fmr in places:
        axes.axvline(threshold, color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
        # Left of its line, or right where another label or line is in the way, or nowhere.
        for side, begin in (("right", threshold - room), ("left", threshold)):
            if all(end <= begin or start >= begin + room for start, end in taken if start != threshold):
                taken.append((begin, begin + room))
                axes.annotate(
                    f"FMR {stated(fmr)}",
                    (threshold, 0.985),
                    xycoords=("data", "axes fraction"),
                    xytext=(-2 if side == "right" else 2, 0),
                    textcoords="offset points",
                    rotation=90,
                    ha=side,
                    va="top",
                    fontsize=8,
                    color=INK,
                )
                break


def _rebinned(histograms: Histograms) -> tuple[Floats, Floats, Floats]:
    """Edges and counts, of bins put together so that a plot can show them, where there is anything."""
    edges = np.array(histograms.edges)
    genuine, impostor = np.array(histograms.genuine), np.array(histograms.impostor)
    filled = np.flatnonzero(genuine + impostor)
    first, last = (int(filled[0]), int(filled[-1]) + 1) if filled.size else (0, len(genuine))
    # Whole tens of bins, so that a bin is of a round width.
    together = next(n for n in (1, 2, 5, 10, 20, 50, 100, 10**9) if (last - first) / n <= MOST_BINS)
    first -= first % together
    starts = np.arange(first, last, together)
    kept = np.append(edges[starts], edges[min(int(starts[-1]) + together, len(edges) - 1)])
    return kept, np.add.reduceat(genuine[:last], starts), np.add.reduceat(impostor[:last], starts)


def _legend(axes: Axes) -> None:
    """Above the plot, where it covers nothing."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=2,
        frameon=False,
        labelcolor=INK,
        fontsize=9,
        columnspacing=1.4,
        borderaxespad=0.3,
    )


def _drawing(name: str, label: str, plot: Callable[[Axes], None]) -> Drawing:
    figure = Figure(figsize=SIZE, layout="constrained", facecolor="white")
    axes = figure.add_subplot(facecolor="none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    plot(axes)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=200, metadata={"Software": None})
    svg = _as_svg(figure)
    figure.patch.set_alpha(0)
    return Drawing(svg, _inline(_as_svg(figure), name, label), png.getvalue())


def _as_svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return text.getvalue()


def _inline(svg: str, name: str, label: str) -> str:
    """The SVG as a part of a page of HTML."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    head, body = svg.split(">", 1)
    found = re.search(r'viewBox="[^"]+"', head)
    if found is None:
        raise ValueError("matplotlib wrote an SVG without a viewBox")
    head = f'<svg {found[0]} role="img" aria-label="{label}" stroke-linejoin="round" class="plot"'
    # Two plots of one page may not share a name.
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="|url\()#', rf"\1#{name}-", body)
    for ours, of_page in _OF_PAGE.items():
        body = body.replace(ours, of_page)
    return f"{head}>{body}"
