"""The folder of a report: report.json, report.html, and each plot as SVG and PNG."""

import os
import tempfile
from pathlib import Path

from appliance.errors import ConfigurationError
from appliance.evaluation.report.model import Report

_PLOTS = frozenset({"det.svg", "det.png", "histograms.svg", "histograms.png"})


class ReportUnwritable(ConfigurationError):
    """The folder of the report cannot be made, or written to."""


def write_report(report: Report, folder: Path) -> Path:
    """Write all files, each whole or not at all; those of an earlier report are replaced.

    Args:
        report: see `with_limits`, which completes it.
        folder: made where it is missing.

    Returns:
        The page.

    Raises:
        ReportUnwritable: it is no folder, may not be written to, or is full.
    """
    # Heavy, and for this one command: the command line starts without them.
    from appliance.evaluation.report.page import render  # noqa: PLC0415
    from appliance.evaluation.report.plots import Drawing, draw  # noqa: PLC0415

    drawings: dict[str, Drawing] = draw(report)
    page = render(report, {name: drawing.inline for name, drawing in drawings.items()})
    files = {"report.json": report.to_json().encode(), "report.html": page.encode()}
    for name, drawing in drawings.items():
        files[f"{name}.svg"] = drawing.svg.encode()
        files[f"{name}.png"] = drawing.png
    try:
        # It names people and their photographs: the user's alone, whatever the umask.
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, content in files.items():
            # A name that nobody can have made before, and mode 0600.
            handle, temporary = tempfile.mkstemp(dir=folder, prefix=".new-")
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(temporary).replace(folder / name)
        for name in _PLOTS - files.keys():
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise ReportUnwritable(
            f"the report cannot be written to {folder} ({error.strerror}): give another folder with --report"
        ) from error
    return folder / "report.html"
