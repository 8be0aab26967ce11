import base64
import html
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from appliance.evaluation.report import BadReport, Report, ReportUnwritable, with_limits, write_report
from appliance.evaluation.report.limits import limits
from appliance.evaluation.report.page import bar, plainly, render, scale
from appliance.evaluation.report.plots import draw, probit

HOSTILE = "<script>alert('x')</script>&\"{{ 7*7 }}$\\frac{1}"
FACE = "data:image/png;base64," + base64.b64encode(b"\x89PNG not looked into").decode()


def group(name: str, people: int, fnmr: float | None, fmr: float | None) -> dict[str, Any]:
    row: dict[str, Any] = {"group": name, "people": people, "genuine": 811, "impostor": 40_123}
    row |= {"fnmr_people": people - 1, "fmr_people": people - 2}
    for kind, rate in (("fnmr", fnmr), ("fmr", fmr)):
        if rate is not None:
            row |= {kind: rate, f"{kind}_low": rate / 2, f"{kind}_high": rate * 3}
    return row


def sample(**changed: Any) -> Report:
    rates = {1e-2: (0.0024, 0.2618), 1e-4: (0.0091, 0.4614), 1e-5: (0.0166, 0.5138)}
    edges = np.linspace(-1, 1, 2001)
    rng = np.random.default_rng(7)
    figures: dict[str, Any] = {
        "drempel": "9.8.7",
        "made_at": datetime(2026, 11, 25, 9, 30, tzinfo=UTC),
        "command": f"drempel evaluate {HOSTILE}",
        "seconds": 843.2,
        "pack": "edge",
        "pack_hash": "3f" * 32,
        "detector_size": (192, 144),
        "data": "lfw-test",
        "template": 5,
        "frames": 1,
        "seed": 77,
        "people": 2879,
        "photographs": 6922,
        "template_people": 147,
        "genuine_people": 147,
        "impostor_people": 2879,
        "templates": 330,
        "genuine": 4099,
        "impostor": 2_286_810,
        "fte": 0.0068,
        "fta": 0.0013,
        "failures": {"no face": 6, "not a picture": 3},
        "gates": {"good": 6101, "several faces": 421},
        "eer": 0.0041,
        "eer_low": 0.0022,
        "eer_high": 0.0069,
        "fnmr_at_fmr": {
            f"{fmr:g}": {"fnmr": fnmr, "low": fnmr * 0.6, "high": fnmr * 1.6, "threshold": threshold}
            | {"impostors_above": round(2_286_810 * fmr)}
            for fmr, (fnmr, threshold) in rates.items()
        },
        "left_out": {"1e-06": f"two comparisons would decide it {HOSTILE}"},
        "at_pack_thresholds": [
            {"named_fmr": fmr, "threshold": threshold + 0.01}
            | {"fmr": {"rate": fmr * 0.77, "low": fmr * 0.4, "high": fmr * 1.3, "count": int(1761000 * fmr)}}
            | {"fnmr": {"rate": fnmr * 1.1, "low": fnmr * 0.7, "high": fnmr * 1.7, "count": int(4509 * fnmr)}}
            for fmr, (fnmr, threshold) in rates.items()
        ],
        "det": [
            {"fmr": fmr, "fnmr": 0.02 * (1e-5 / fmr) ** 0.3, "low": 0.001, "high": 0.05}
            for fmr in np.logspace(-5, -1, 20)
        ],
        "histograms": {
            "edges": edges,
            "genuine": np.histogram(rng.normal(0.7, 0.08, 4099), edges)[0],
            "impostor": np.histogram(rng.normal(0.02, 0.1, 200_000), edges)[0],
        },
        "hardest": {
            "genuine": [
                {"score": 0.1234, "person": "李小龍", "template": ["李小龍/a.jpg"], "probe": ["b.jpg"]}
            ],
            "impostor": [
                {"score": 0.6543, "person": HOSTILE, "probe_person": "Zoë \u202egpj.exe"}
                | {"template": [f"{HOSTILE}/" + "n" * 250], "probe": ["Zoë/\udcff.jpg"]}
            ],
        },
        "groups": {
            "age": {
                "rows": [group("18-39", 61, 0.0062, 9.1e-5), group(HOSTILE, 28, 0.0225, None)],
                "threshold": 0.4714,
                "at_fmr": 1e-4,
                "left_out": {HOSTILE: "28 people are fewer than 30"},
                "fnmr_gap": {"worst": HOSTILE, "best": "18-39", "difference": 0.0163}
                | {"low": 0.0012, "high": 0.036, "ratio": 3.63},
            }
        },
    }
    return with_limits(Report.model_validate(figures | changed))


def page_of(report: Report, *, drawn: bool = False) -> str:
    plots = draw(report) if drawn else {}
    return render(report, {name: drawing.inline for name, drawing in plots.items()})


class Read(HTMLParser):
    """All elements, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


# --- its shape ----------------------------------------------------------------------------------


def test_the_shape_round_trips_with_every_key_of_the_contract() -> None:
    report = sample()
    text = report.to_json()
    assert Report.from_json(text) == report
    keys = {
        *(
            "drempel",
            "made_at",
            "command",
            "seconds",
            "pack",
            "pack_hash",
            "detector_size",
            "data",
            "template",
        ),
        *("frames", "seed", "people", "photographs", "templates", "genuine", "impostor"),
        *("fte", "fta", "failures", "gates", "eer", "eer_low", "eer_high", "fnmr_at_fmr", "left_out", "det"),
        *("at_pack_thresholds", "histograms", "hardest", "groups", "pairs", "cannot_tell"),
    }
    held = json.loads(text)
    assert keys <= set(held)
    assert held["fnmr_at_fmr"]["1e-05"]["impostors_above"] == 23


def test_keys_of_a_later_version_are_passed_over() -> None:
    held = json.loads(sample().to_json())
    held["later"] = 1
    held["det"][0]["later"] = 1
    assert Report.from_json(json.dumps(held)) == sample()


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("fta", 1.5),
        ("people", -1),
        ("made_at", "yesterday"),
        ("fnmr_at_fmr", {"one in ten": {}}),
        ("histograms", {"edges": [0, 1], "genuine": [], "impostor": []}),
        ("histograms", {"edges": [1, 1], "genuine": [2], "impostor": [2]}),
    ],
)
def test_what_is_wrong_is_named_in_one_line(key: str, wrong: object) -> None:
    held = json.loads(sample().to_json())
    held[key] = wrong
    with pytest.raises(BadReport, match=key) as raised:
        Report.from_json(json.dumps(held))
    assert "\n" not in str(raised.value)


def test_text_that_is_no_json_is_no_report() -> None:
    with pytest.raises(BadReport, match=r"no report\.json"):
        Report.from_json("{")


def test_left_out_rates_are_rates() -> None:
    with pytest.raises(ValueError, match="must be a false match rate"):
        sample(left_out={"0": "none"})


@pytest.mark.parametrize(
    "face",
    ["https://example.org/a.png", "data:image/svg+xml;base64,PHN2Zz4=", FACE + '" onload="x', FACE + "\n"],
)
def test_a_face_is_a_small_picture_in_the_page_and_nothing_else(face: str) -> None:
    pair = {"score": 0.5, "person": "a", "template": ["a"], "probe": ["b"], "template_faces": [face]}
    with pytest.raises(ValueError, match="template_faces"):
        sample(hardest={"genuine": [pair]})


# --- the page -----------------------------------------------------------------------------------


def test_text_from_outside_is_text() -> None:
    page = page_of(sample(), drawn=True)
    read = Read(page)
    assert not {"script", "iframe", "object", "embed", "link", "form"} & {tag for tag, _ in read.elements}
    assert not [name for _, given in read.elements for name in given if name.startswith("on")]
    assert HOSTILE in read.text
    assert "49" not in re.findall(r"alert\('x'\)</script>&\"(\S+)", read.text)
    assert "\u202e" not in page
    assert "Zoë \\u202egpj.exe" in read.text
    assert "\\udcff.jpg" in read.text


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = page_of(sample(hardest={"genuine": [hard_pair_with_faces()]}), drawn=True)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", page, re.IGNORECASE)
    read = Read(page)
    for tag, given in read.elements:
        for name in ("src", "href", "xlink:href", "data", "action", "srcset"):
            target = given.get(name) or "#"
            assert target.startswith(("#", "data:image/png;base64,")), (tag, name, target)
    policy = [given for tag, given in read.elements if tag == "meta" and "content" in given]
    assert any("default-src 'none'" in (given["content"] or "") for given in policy)
    assert ("html", {"lang": "en"}) in read.elements


def hard_pair_with_faces() -> dict[str, Any]:
    names = {"score": 0.5, "person": "a", "template": ["a/1.jpg"], "probe": ["a/2.jpg"]}
    return names | {"template_faces": [FACE], "probe_faces": [FACE]}


def test_faces_are_shown_only_where_they_are_given() -> None:
    assert "<img" not in page_of(sample())
    assert page_of(sample(hardest={"genuine": [hard_pair_with_faces()]})).count(f'<img src="{FACE}"') == 2


def test_no_two_elements_of_the_page_share_a_name() -> None:
    read = Read(page_of(sample(), drawn=True))
    names = [given["id"] for _, given in read.elements if "id" in given]
    assert len(names) == len(set(names))
    used = {given["xlink:href"][1:] for _, given in read.elements if given.get("xlink:href")}  # type: ignore[index]
    assert used
    assert used <= set(names)


def test_every_figure_of_the_tables_stands_in_the_page() -> None:
    text = Read(page_of(sample())).text
    summary = ["2,879", "6,922", "147", "330", "4,099", "2,286,810", "0.68 %", "0.13 %", "no face 6"]
    summary += ["not a picture 3", "good 6,101 88.1 %", "several faces 421 6.08 %", "0.41 % 0.22 to 0.69 %"]
    at_fmr = ["1 % (1 in 100) 0.24 % 0.14 to 0.38 % 0.2618 22,868"]
    at_fmr += ["0.01 % (1 in 10,000) 0.91 % 0.55 to 1.46 % 0.4614 229"]
    at_fmr += ["0.001 % (1 in 100,000) 1.66 % 1.00 to 2.66 % 0.5138 23", "FMR 0.0001 % (1 in 1,000,000): two"]
    pack = ["0.01 % 0.4714 0.0077 % 0.0040 to 0.013 % 176 1.00 % 0.64 to 1.55 % 41"]
    groups = ["18-39 60 of 61 811 0.62 % 0.31 to 1.86 %", "18-39 59 of 61 40,123 0.0091 % 0.0046 to 0.027 %"]
    groups += ["27 of 28 811 2.25 % 1.12 to 6.75 %", "26 of 28 40,123 not known", "1.63 percentage points"]
    groups += ["0.12 to 3.60", "3.63 times"]
    made = ["drempel evaluate", "2026-11-25T09:30:00", "843 s", "9.8.7", "3f" * 32, "192 \u00d7 144", "77"]
    hardest = ["0.123 李小龍 a.jpg 李小龍 b.jpg", "0.654", f"{'n' * 40}\u2026{'n' * 39}"]
    for figure in summary + at_fmr + pack + groups + made + hardest:
        assert figure in text, figure


def test_it_says_first_in_plain_words_what_the_pack_does_at_the_usual_setting() -> None:
    text = Read(page_of(sample())).text
    first = text[text.index("In plain words") : text.index("Summary")]
    assert "0.01 % (1 in 10,000), fixed before this measurement" in first
    assert "of 1,000 attempts by the right person , about 10 are refused (95 % interval 6.4 to 15)" in first
    assert "of 1,000,000 attempts by somebody else , about 77 are accepted (95 % interval 40 to 130)" in first
    assert first.count("147 people") >= 2
    assert "2,879 people" in first


def test_without_thresholds_of_the_pack_the_plain_words_are_of_those_set_here() -> None:
    report = sample(at_pack_thresholds=[])
    said = plainly(report)
    assert [each.named for each in said] == [1e-4, 1e-5, 1e-2]
    assert not any(each.fixed for each in said)
    text = Read(page_of(report)).text
    assert "set on these very data so that 0.01 % (1 in 10,000)" in text
    assert "about 100 are accepted , which is how the threshold was chosen" in text
    assert "The pack ships no threshold for attempts of 1 frame." in text


BARE: dict[str, Any] = {
    "at_pack_thresholds": [], "fnmr_at_fmr": {}, "left_out": {}, "det": [], "groups": {}, "gates": {},
    "failures": {}, "hardest": {}, "eer": None, "eer_low": None, "eer_high": None,
}  # fmt: skip
ZERO = {"rate": 0, "low": 0, "high": 0.0202, "count": 0}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"pairs": {"decided otherwise": (HOSTILE, "b"), "refused": ()}},
            f"otherwise {HOSTILE} b refused none",
        ),
        ({"groups": {}}, "No groups are stated for these people"),
        ({}, "They were fixed before this measurement. Where those were other people"),
        ({"calibrated_on": HOSTILE}, f"before this measurement, on: {HOSTILE} . Where those were other"),
        ({"left_out": {}}, "Nothing that was asked for is left out."),
        (BARE, "These data allow no statement"),
        ({"people": 1, "genuine_people": 1, "impostor": 0}, "up to 95.0 % of all people"),
        ({"people": 0, "genuine_people": 0, "photographs": 0, "genuine": 0}, "up to 100 % of all people"),
        ({"frames": 3}, "3 frames; the best score counts"),
        (
            {"pairs": {"pairs": 6000, "accuracy": 0.98765, "name": "<b>", "none": None}},
            "6,000 accuracy 0.9877",
        ),
        (
            {
                "at_pack_thresholds": [{"named_fmr": 1e-4, "threshold": 0.4, "fmr": ZERO, "fnmr": ZERO}],
                "det": [{"fmr": 1e-4, "fnmr": 0, "low": 0, "high": 0.02}],
            },
            "about 0 are refused (95 % interval 0 to 20)",
        ),
    ],
)
def test_what_is_missing_or_zero_is_said(changed: dict[str, Any], said: str) -> None:
    assert said in Read(page_of(sample(**changed), drawn=True)).text


def test_empty_histograms_and_a_curve_of_zeros_are_drawn() -> None:
    empty = {"edges": [-1, 0, 1], "genuine": [0, 0], "impostor": [0, 0]}
    points = [{"fmr": fmr, "fnmr": 0, "low": 0, "high": 0} for fmr in (0, 1e-3, 1)]
    drawings = draw(sample(histograms=empty, det=points, genuine=0, impostor=0))
    assert set(drawings) == {"det", "histograms"}


def test_bars_lie_on_a_round_scale() -> None:
    groups = sample().groups["age"]
    assert scale(groups, "fnmr") == pytest.approx(0.08)
    assert scale(groups, "fmr") == pytest.approx(3e-4)
    found = bar(0.01, 0.02, 0.2, 0.08)
    assert found is not None
    assert (found.low, found.at, found.high) == (12.5, 25, 100)
    assert bar(None, None, None, 0.08) is None


# --- what it cannot tell ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "sentence", "there"),
    [
        ({}, "No groups were stated", False),
        ({"groups": {}}, "No groups were stated", True),
        ({}, f"hidden: age: {HOSTILE}", True),
        ({}, "Frames of one moment", False),
        ({"frames": 3}, "Frames of one moment", True),
        ({}, "Labeled Faces in the Wild", True),
        ({"data": "our own people"}, "Labeled Faces in the Wild", False),
        ({"data": "our own people"}, "Whoever gathered the photographs has to state it", True),
        ({}, "no interval means anything", False),
        ({"genuine_people": 1}, "no interval means anything", True),
        ({}, "false match rate of 0.0001 %", True),
        ({"left_out": {}}, "Nothing is said of a false match rate", False),
        ({"pairs": {"pairs": 6000}}, "A list of pairs does not say who is who", True),
        ({}, "A list of pairs does not say who is who", False),
        ({}, "thresholds were fixed is not known", True),
        ({"at_pack_thresholds": []}, "thresholds were fixed is not known", False),
        ({}, "No presentation attack was tried", True),
        ({}, "These are photographs, not frames", True),
        ({}, "of 147 people. Even if none of them is ever refused, up to 2.02 % of all people", True),
    ],
)
def test_what_the_data_cannot_tell(changed: dict[str, Any], sentence: str, there: bool) -> None:
    assert (sentence in " ".join(limits(sample(**changed)))) is there


def test_all_that_cannot_be_told_stands_in_the_page_once() -> None:
    report = sample(cannot_tell=["<i>of the lead's own</i>"])
    assert report.cannot_tell[0] == "<i>of the lead's own</i>"
    assert with_limits(report) == report
    page = page_of(report)
    for sentence in report.cannot_tell:
        assert html.unescape(page).count(f"<li>{sentence}</li>") == 1


# --- plots and files ----------------------------------------------------------------------------


def test_deviates_are_of_the_normal_distribution() -> None:
    np.testing.assert_allclose(probit([0.5, 0.975, 0.025]), [0, 1.959964, -1.959964], atol=1e-6)
    assert probit([0])[0] == probit([1e-9])[0]


def test_the_folder_holds_all_files_and_they_are_what_they_say(tmp_path: Path) -> None:
    report = sample()
    folder = tmp_path / "new" / "report"
    assert write_report(report, folder) == folder / "report.html"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "report.json", "report.html", "det.svg", "det.png", "histograms.svg", "histograms.png",
    }  # fmt: skip
    assert Report.from_json((folder / "report.json").read_bytes()) == report
    for name in ("det.png", "histograms.png"):
        with Image.open(folder / name) as picture:
            assert picture.width > 1000
            # Drawn on white, with ink on it.
            darkest, lightest = picture.convert("L").getextrema()
            assert darkest == pytest.approx(27, abs=8)
            assert lightest == 255


def test_the_same_report_gives_the_same_files(tmp_path: Path) -> None:
    write_report(sample(), tmp_path / "one")
    write_report(sample(), tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_a_report_without_a_curve_leaves_no_curve_of_an_earlier_one(tmp_path: Path) -> None:
    write_report(sample(), tmp_path)
    write_report(sample(det=[]), tmp_path)
    assert not list(tmp_path.glob("det.*"))


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ReportUnwritable, match=r"file .*--report"):
        write_report(sample(), tmp_path / "file")


@pytest.mark.parametrize("started", ["appliance.evaluation.report", "appliance.cli"])
def test_matplotlib_and_jinja_wait_until_a_report_is_written(started: str) -> None:
    code = (
        f"import {started}, sys; "
        "print(sorted({'matplotlib', 'jinja2', 'PIL'} & set(sys.modules)), 'pydantic' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[] True\n"
