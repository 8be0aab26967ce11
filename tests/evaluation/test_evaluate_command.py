import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from appliance.cli import app
from appliance.errors import ConfigurationError
from appliance.evaluation.report import Report
from appliance.lens.camera.pictures import read_picture_file
from tests.fixtures_models import installed_edge

pytestmark = pytest.mark.models
DREMPEL = [sys.executable, "-m", "appliance.cli"]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory, portrait_paths: dict[str, Path]) -> Path:
    """Two people, eight photographs each: one portrait, shifted and lit in eight ways."""
    folder = tmp_path_factory.mktemp("photographs") / "site"
    for person in ("obama", "biden"):
        picture = read_picture_file(portrait_paths[f"{person}.jpg"])
        (folder / person).mkdir(parents=True)
        for number in range(8):
            shifted = np.roll(picture, 3 * number, axis=1)
            lit = cv2.convertScaleAbs(shifted, alpha=0.7 + number / 16)
            cv2.imwrite(str(folder / person / f"{number}.png"), lit)
    (folder / "obama" / "broken.jpg").write_bytes(b"\xff\xd8broken")
    (folder / "groups.csv").write_text("person,<b>age</b>\nobama,50+\nbiden,70+\n", encoding="utf-8")
    return folder


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "drempel" / "evaluation"


def evaluate(*arguments: object) -> tuple[int, str, str]:
    words = ["evaluate", *(str(each) for each in arguments), "--packs", str(installed_edge()), "--jobs", "1"]
    said = CliRunner().invoke(app, words)
    if said.exception is not None and not isinstance(said.exception, SystemExit):
        raise said.exception
    return said.exit_code, said.stdout, said.stderr


def test_the_json_has_the_shape_that_others_build_on_and_the_report_lies_beside(
    photographs: Path, own_cache: Path, tmp_path: Path
) -> None:
    code, out, err = evaluate(photographs, "--json", "--report", tmp_path / "r")
    assert code == 0
    said = json.loads(out)
    assert {"pack", "people", "genuine", "impostor", "fte", "fta", "eer", "fnmr_at_fmr"} <= said.keys()
    assert (said["pack"], said["people"], said["photographs"]) == ("edge", 2, 17)
    assert (said["templates"], said["genuine"], said["impostor"]) == (2, 6, 16)
    assert said["fta"] == pytest.approx(1 / 17)
    assert said["failures"] == {"not a picture": 1}
    # Sixteen comparisons of two people decide no rate.
    assert said["fnmr_at_fmr"] == {}
    assert set(said["left_out"]) == {"0.01", "0.001", "0.0001", "1e-05", "1e-06"}
    # Rates of one person would be that person's.
    rows = said["groups"]["<b>age</b>"]["rows"]
    assert [(row["group"], row["people"], row["fnmr"]) for row in rows] == [
        ("50+", 1, None),
        ("70+", 1, None),
    ]
    assert any(each["named_fmr"] == 1e-4 for each in said["at_pack_thresholds"])
    written = Report.from_json((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))
    assert written.hardest.genuine[0].probe[0].endswith(".png")
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert "<b>age</b>" not in page
    assert "data:image/jpeg" not in page
    assert "17 of 17 photographs" in err
    assert list(own_cache.glob("*.db"))


def test_nothing_is_kept_where_nothing_is_to_be_kept_and_what_is_kept_can_be_deleted(
    photographs: Path, own_cache: Path, tmp_path: Path
) -> None:
    assert evaluate(photographs, "--keep-nothing", "--report", tmp_path / "r")[0] == 0
    assert not own_cache.exists()
    assert evaluate(photographs, "--report", tmp_path / "r")[0] == 0
    assert list(own_cache.glob("*.db"))
    code, out, _ = evaluate("--forget")
    assert code == 0
    assert "1 files" in out
    assert not list(own_cache.iterdir())


def test_faces_are_in_the_report_only_where_asked_for(
    photographs: Path, own_cache: Path, tmp_path: Path
) -> None:
    evaluate(photographs, "--show-faces", "--report", tmp_path / "r")
    assert "data:image/jpeg" in (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "r").iterdir()} == {0o600}
    out = evaluate(photographs, "--show-faces", "--json", "--report", tmp_path / "r")[1]
    assert "data:image" not in out
    assert own_cache.exists()


def test_labelled_pairs_are_decided_and_those_decided_otherwise_are_listed(
    portrait_paths: dict[str, Path], own_cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "loose"
    folder.mkdir()
    for name in ("obama.jpg", "obama2.jpg", "biden.jpg"):
        shutil.copy(portrait_paths[name], folder / name)
    (folder / "wall.png").write_bytes(cv2.imencode(".png", np.full((300, 300, 3), 90, np.uint8))[1].tobytes())
    listed = tmp_path / "pairs.csv"
    lines = ["obama.jpg,obama2.jpg,yes", "obama.jpg,biden.jpg,no", "biden.jpg,obama2.jpg,yes"]
    lines.append("wall.png,obama.jpg,no")
    listed.write_text("one,other,same\n" + "\n".join(lines) + "\n", encoding="utf-8")
    code, out, _ = evaluate(folder, "--pairs", listed, "--json", "--report", tmp_path / "r")
    assert code == 0
    pairs = json.loads(out)["pairs"]
    assert pairs["pairs"] == 4
    assert pairs["decided as labelled"] == 2
    assert pairs["not compared, a face was not found"] == 1
    assert [each.partition(",")[0] for each in pairs["otherwise"]] == ["biden.jpg and obama2.jpg: same"]
    assert pairs["not enrolled"] == ["wall.png: no face"]
    assert own_cache.exists()


@pytest.mark.full
def test_an_interrupted_evaluation_ends_in_order_and_says_how_to_go_on(
    portrait_paths: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    picture = read_picture_file(portrait_paths["obama.jpg"])
    for number in range(160):
        (folder / str(number // 40)).mkdir(parents=True, exist_ok=True)
        picture[0, 0] = number % 256, number // 256, 0
        cv2.imwrite(str(folder / str(number // 40) / f"{number}.png"), picture)
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [*DREMPEL, "evaluate", str(folder), "--packs", str(installed_edge()), "--jobs", "2"]
    here = Path(__file__).parents[2]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, cwd=here, start_new_session=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if " of 160 photographs" in line:
                break
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "start it again to go on from here" in rest
    assert "Traceback" not in rest
    # Of its group nobody is left: no worker outlives it; Python's tracker of resources ends by itself.
    deadline = time.monotonic() + 20
    while subprocess.run(["pgrep", "-g", str(process.pid)], check=False, capture_output=True).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    again = subprocess.run(
        [*command, "--report", str(tmp_path / "r")],
        env=environment,
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )
    first = next(line for line in again.stderr.splitlines() if " of 160 photographs" in line)
    # The portrait is the same in all of them, which makes everybody the same person; that is no error.
    assert again.returncode == 0, again.stderr
    assert int(first.split()[0]) > int(line.split()[0])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give a folder"),
        (["/nowhere/at/all"], "is not a folder"),
        (["{site}", "--pack", "none"], "there is no pack"),
        (["{site}", "--template", "9"], "nobody has 10 photographs"),
        (["{site}", "--report", "{site}/report"], "among the photographs"),
        (["{site}", "--pairs", "x.csv", "--frames", "3"], "drop --template, --frames"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    photographs: Path, own_cache: Path, arguments: list[str], says: str
) -> None:
    words = [each.format(site=photographs) for each in arguments]
    with pytest.raises(ConfigurationError, match=says) as refused:
        evaluate(*words, "--keep-nothing")
    assert "\n" not in str(refused.value)
    assert not own_cache.exists()
