"""The error rates of one evaluation, for whoever must answer for a door: report.json, report.html, plots.

- `model`: what a report holds; report.json is its text.
- `limits`: what the data cannot tell, in sentences.
- `words`: rates and counts as people read them.
- `page`, with `page.html.j2` and `page.css`: the report as one page that needs nothing beside it.
- `plots`: the DET curve and the histograms of scores, for the page and as files.
- `folder`: all of it, written.

Importing this room loads no matplotlib and no jinja2: the command line starts without them.
"""

from appliance.evaluation.report.folder import ReportUnwritable, write_report
from appliance.evaluation.report.limits import with_limits
from appliance.evaluation.report.model import BadReport, Report

__all__ = ["BadReport", "Report", "ReportUnwritable", "with_limits", "write_report"]
