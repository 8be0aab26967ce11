"""The demo's story as people see it: lines in a terminal, and a page with a picture of the door's states."""

from html import escape
from pathlib import Path

from rich.console import Console
from rich.table import Table

from appliance.simulation.board import Change
from appliance.simulation.demo import Moment, Story

LANE = 34
"""Height of one lane of the picture, pixels."""
LEFT = 170
WIDTH = 1100
COLOURS = {
    "relay": "#1b7f4b",
    "lamp: ready": "#4a6fa5",
    "lamp: camera open": "#c58a1c",
    "lamp: use your badge": "#b23a48",
}

_console = Console(highlight=False)


def show_moment(moment: Moment) -> None:
    """Print one line of the timeline."""
    style = (
        "bold green" if moment.what.startswith("open") else "bold red" if "BUT SHOULD" in moment.what else ""
    )
    _console.print(f"{moment.at:8.2f} s  {moment.who:<14} {moment.what}", style=style, soft_wrap=True)


def show_scenes(story: Story) -> None:
    """Print the table of scenes."""
    table = Table(title="What was expected of the door, and what was seen")
    for column in ("scene", "expected", "seen", "ms to relay", ""):
        table.add_column(column)
    for scene in story.scenes:
        ms = "" if scene.ms is None else f"{scene.ms:.0f}"
        table.add_row(scene.name, scene.expected, scene.seen, ms, "as told" if scene.ok else "WRONG")
    _console.print(table)


def write_page(path: Path, story: Story) -> None:
    """Write the timeline as one page of HTML, whole or not at all.

    Raises:
        OSError: the folder does not exist or is full.
    """
    rows = "\n".join(
        f"<tr><td class=t>{moment.at:.2f} s</td><td>{escape(moment.who)}</td>"
        f"<td>{escape(moment.what)}</td></tr>"
        for moment in story.moments
    )
    scenes = "\n".join(
        f"<tr class={'right' if scene.ok else 'wrong'}><td>{escape(scene.name)}</td><td>{scene.expected}</td>"
        f"<td>{scene.seen}</td><td class=t>{'' if scene.ms is None else f'{scene.ms:.0f}'}</td>"
        f"<td>{'as told' if scene.ok else 'wrong'}</td></tr>"
        for scene in story.scenes
    )
    page = _PAGE.format(picture=draw(story), scenes=scenes, rows=rows)
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)


def draw(story: Story) -> str:
    """The states of relay and lamps over time, as SVG."""
    pins = story.pins
    end = max([moment.at for moment in story.moments], default=1.0) + 0.5
    scale = (WIDTH - LEFT - 20) / end
    height = LANE * len(pins) + 40
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="relay and lamps over time">']
    floor = LANE * len(pins) + 10
    step = 5 if end <= 90 else 10
    for second in range(0, int(end) + 1, step):
        x = LEFT + second * scale
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{floor}" class="grid"/>'
            f'<text x="{x:.1f}" y="{floor + 16}" class="tick">{second} s</text>'
        )
    for lane, (name, history) in enumerate(pins):
        top = lane * LANE + 6
        parts.append(
            f'<text x="0" y="{top + 16}" class="lane">{escape(name)}</text>'
            f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{top + 22}" y2="{top + 22}" class="ground"/>'
        )
        for begin, finish in _spans(history, story.began, end):
            x, width = LEFT + begin * scale, max(1.5, (finish - begin) * scale)
            parts.append(
                f'<rect x="{x:.1f}" y="{top}" width="{width:.1f}" height="22" fill="{COLOURS[name]}">'
                f"<title>{escape(name)}: {begin:.2f} to {finish:.2f} s</title></rect>"
            )
    parts.append("</svg>")
    return "\n".join(parts)


def _spans(history: list[Change], began: float, end: float) -> list[tuple[float, float]]:
    """When a line was high: pairs of seconds since the story began, within 0 and `end`."""
    spans: list[tuple[float, float]] = []
    since: float | None = None
    for change in history:
        at = min(max(change.at - began, 0.0), end)
        if change.state and since is None:
            since = at
        elif not change.state and since is not None:
            spans.append((since, at))
            since = None
    if since is not None:
        spans.append((since, end))
    return [(begin, finish) for begin, finish in spans if finish > begin]


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Drempel: a day at the door</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto;
       padding: 0 1rem; color: #222; }}
h1 {{ margin-bottom: 0; }} svg {{ width: 100%; height: auto; margin: 1rem 0; }}
table {{ border-collapse: collapse; width: 100%; margin-bottom: 2rem; }}
th, td {{ text-align: left; padding: .25rem .75rem; border-bottom: 1px solid #ddd; }}
td.t {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }}
tr.wrong td {{ background: #fbe3e4; font-weight: bold; }}
text {{ font: 13px system-ui, sans-serif; fill: #333; }}
.tick {{ text-anchor: middle; fill: #777; font-size: 11px; }}
.ground {{ stroke: #bbb; }} .grid {{ stroke: #eee; }}
</style>
</head>
<body>
<h1>A day at the door</h1>
<p>Four real processes, real models and real pictures; only pin, wire and lens are simulated.
The picture shows the recorded states of the relay and the lamps: where the relay is high, the door is
unlocked. A time runs from the press or the badge to the relay; with a face, the person first shows the
token for about a second.</p>
{picture}
<h2>Scenes</h2>
<table><tr><th>scene</th><th>expected</th><th>seen</th><th>ms to relay</th><th></th></tr>
{scenes}
</table>
<h2>Timeline</h2>
<table><tr><th></th><th></th><th></th></tr>
{rows}
</table>
</body>
</html>
"""
