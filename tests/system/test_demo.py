"""The told story, as others build on it: its shape, its exit status, and that it can fail."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.models, pytest.mark.timeout(400)]

DEMO = [sys.executable, "-m", "appliance.cli", "demo", "--json"]
LOCAL = re.compile(r"sa_family=AF_(UNIX|NETLINK|UNSPEC)|inet_addr\(\"127\.|\"::1\"")


def test_the_story_is_told_and_nothing_but_local_sockets_is_ever_touched(
    test_models: Path, portrait_paths: dict[str, Path], tmp_path: Path
) -> None:
    """The whole run under strace, native code and all four zones included, in an empty home."""
    pictures = portrait_paths["obama.jpg"].parent
    home = tmp_path / "home"
    home.mkdir()
    trace = tmp_path / "trace"
    command = [
        "strace",
        "--follow-forks",
        "--quiet=all",
        "--seccomp-bpf",
        "-e",
        "trace=connect,bind,sendto,sendmsg",
    ]
    told = subprocess.run(
        [*command, "-o", str(trace), *DEMO, "--packs", str(test_models), "--pictures", str(pictures)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
    )
    assert told.returncode == 0, told.stderr
    story = json.loads(told.stdout)
    assert story["ok"] is True
    for scene in story["scenes"]:
        assert scene["expected"] in {"open", "shut"}
        assert scene["seen"] == scene["expected"]
        assert (scene["ms"] is not None) == (scene["seen"] == "open")
    assert len(story["scenes"]) == 10

    calls = [line for line in trace.read_text().splitlines() if "sa_family=" in line]
    assert any("AF_UNIX" in line for line in calls), "the trace sees sockets"
    assert [line for line in calls if not LOCAL.search(line)] == []
    written = [path.relative_to(home) for path in home.rglob("*") if path.is_file()]
    assert written == [Path(".cache/drempel/demo.html")], "and nothing under .cache/Microsoft above all"


@pytest.mark.full
def test_two_pictures_swapped_make_the_story_end_with_exit_1(
    test_models: Path, portrait_paths: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copy(portrait_paths["obama.jpg"], tmp_path / "obama.jpg")
    shutil.copy(portrait_paths["obama2.jpg"], tmp_path / "biden.jpg")
    shutil.copy(portrait_paths["biden.jpg"], tmp_path / "obama2.jpg")
    page = tmp_path / "page.html"
    told = subprocess.run(
        [*DEMO, "--packs", str(test_models), "--pictures", str(tmp_path), "--html", str(page)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 1, told.stderr
    story = json.loads(told.stdout)
    wrong = {scene["name"]: scene["seen"] for scene in story["scenes"] if scene["seen"] != scene["expected"]}
    assert wrong["Barack's token, Barack's face"] == "shut"
    assert wrong["Barack's token, another face"] == "open"
    assert "wrong" in page.read_text(encoding="utf-8")


def test_a_missing_picture_is_a_wrong_call(tmp_path: Path, test_models: Path) -> None:
    told = subprocess.run(
        [*DEMO, "--packs", str(test_models), "--pictures", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 2
    assert "obama.jpg is missing" in told.stderr
