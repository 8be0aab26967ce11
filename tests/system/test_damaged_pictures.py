"""Damaged, truncated, huge, tiny, grey, 16-bit, alpha, rotated-EXIF and zero-size images: no crash, no hang.

The cases run in a process of their own, which says the number of each before it begins: a crash or a hang
names it. To see one again: `python -m tests.system.damage_worker PACKS PORTRAIT NUMBER NUMBER+1`.
"""

import collections
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.evaluation.calibration import embed_dataset
from appliance.lens.camera.pictures import BadPicture, read_picture
from appliance.lens.camera.replay import ReplayCamera
from appliance.lens.camera.scene import SceneInvalid
from appliance.lens.models import LoadedPack
from tests.damaged import Damage

ROOT = Path(__file__).parents[2]
WATCHDOG = 10.0
"""Seconds in which a case must end. The line is one second, on a quiet machine: those over it are counted."""
START = 120.0
"""Seconds in which the worker must be ready."""
EXTENSIONS = (".jpg", ".png", ".webp", ".bmp", ".tif", ".gif", ".ppm")

pytestmark = pytest.mark.models


class Worker:
    """The process, and what it says line by line."""

    def __init__(self, packs: Path, portrait: Path, first: int, end: int, errors: Path) -> None:
        self._errors = errors
        self._rest = b""
        command = [sys.executable, "-X", "faulthandler", "-m", "tests.system.damage_worker"]
        with errors.open("wb") as file:
            self._process = subprocess.Popen(
                [*command, str(packs), str(portrait), str(first), str(end)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=file,
            )
        self._case = "the start"

    def cases(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Each case's number, and what came of it."""
        try:
            assert self._line(START) == "ready", self._errors.read_text("utf-8")[-3000:]
            while (number := self._line(WATCHDOG)) is not None:
                self._case = f"case {number}"
                said = self._line(WATCHDOG)
                assert said is not None, f"{self._case}: the process ended"
                yield int(number), json.loads(said)
            assert self._process.wait(WATCHDOG) == 0, self._died()
        finally:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()

    def _line(self, wait: float) -> str | None:
        """The next line, or None when there will be none."""
        assert self._process.stdout is not None
        handle = self._process.stdout.fileno()
        until = time.monotonic() + wait
        while b"\n" not in self._rest:
            if not select.select([handle], [], [], max(0.0, until - time.monotonic()))[0]:
                pytest.fail(f"{self._case}: no end within {wait:.0f} s")
            piece = os.read(handle, 65_536)
            if not piece:
                assert self._process.wait(WATCHDOG) == 0, self._died()
                return None
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def _died(self) -> str:
        said = self._errors.read_text("utf-8", "replace")[-3000:]
        return f"{self._case}: the process died with {self._process.returncode}\n{said}"


def run_cases(packs: Path, portrait: Path, count: int, folder: Path) -> collections.Counter[str]:
    """Run `count` cases, print what came of them by kind, and give how many ended how."""
    errors = folder / "errors.txt"
    endings: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    slowest: dict[str, tuple[float, int, str]] = {}
    slow, wrong = [], []
    totals: collections.Counter[str] = collections.Counter()
    for number, said in Worker(packs, portrait, 0, count, errors).cases():
        kind, ending = said["kind"], said["ending"]
        if ending == "error":
            wrong.append(f"case {number}: {said['says']}")
        endings[kind][ending] += 1
        totals[ending] += 1
        totals["embedded"] += "Probe" in said.get("sent", ())
        slowest[kind] = max(slowest.get(kind, (0.0, 0, "")), (said["ms"], number, said["file"]))
        if said["ms"] > 1000:
            slow.append(f"case {number}: {kind}, {said['file']}, {said['ms']:.0f} ms")
    print(f"\n{'kind':45} {'decoded':>8} {'refused':>8} {'slowest':>9}")
    for kind, (took, number, file) in sorted(slowest.items(), key=lambda item: -item[1][0]):
        counts = endings[kind]
        print(f"{kind:45} {counts['decoded']:8} {counts['refused']:8} {took:6.0f} ms  case {number} {file}")
    print(f"{count} cases: {dict(totals)}; over one second: {len(slow)}", *slow, sep="\n  ")
    assert not wrong, f"{len(wrong)} cases went wrong; the first:\n{wrong[0]}"
    said_aloud = errors.read_text("utf-8", "replace")
    assert not said_aloud, f"a decoder wrote to the terminal:\n{said_aloud[:2000]}"
    return totals


def test_damaged_pictures_and_odd_frames_are_refused_or_taken_and_nothing_else(
    test_models: Path, portrait_paths: dict[str, Path], tmp_path: Path
) -> None:
    totals = run_cases(test_models, portrait_paths["obama.jpg"], 600, tmp_path)
    assert totals["decoded"] > 100
    assert totals["refused"] > 100
    assert totals["embedded"] > 30


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_ten_thousand_damaged_pictures_and_odd_frames(
    test_models: Path, portrait_paths: dict[str, Path], tmp_path: Path
) -> None:
    totals = run_cases(test_models, portrait_paths["obama.jpg"], 10_000, tmp_path)
    assert totals["decoded"] + totals["refused"] == 10_000
    assert totals["embedded"] > 1000


@pytest.fixture
def damage(portrait_paths: dict[str, Path]) -> Damage:
    return Damage(read_picture(portrait_paths["obama.jpg"].read_bytes()))


def written(damage: Damage, folder: Path, count: int) -> tuple[list[Path], int]:
    """`count` cases as files with the extension of any format, in their order; how many are no pictures."""
    paths, refused = [], 0
    for number in range(count):
        _, _, content = damage.file(number)
        path = folder / f"{number:03}{EXTENSIONS[number % len(EXTENSIONS)]}"
        path.write_bytes(content)
        paths.append(path)
        try:
            read_picture(content)
        except BadPicture:
            refused += 1
    return paths, refused


def test_a_replay_goes_on_after_each_picture_that_it_refuses(damage: Damage, tmp_path: Path) -> None:
    seconds = [0.0]

    def sleep(duration: float) -> None:
        seconds[0] += duration

    count = 108
    _, refused = written(damage, tmp_path, count)
    assert 30 < refused < 90
    camera = ReplayCamera(tmp_path, 640, 480, now=lambda: seconds[0], sleep=sleep)
    shown, said = set(), []
    with camera:
        for number in range(count):
            # In the middle of each picture's tenth of a second.
            seconds[0] = number / 10 + 0.07
            try:
                frame = camera.read(0.0)
            except SceneInvalid as error:
                said.append(str(error))
            else:
                assert frame is not None
                assert frame.shape == (480, 640, 3)
                shown.add(number)
    assert len(said) == refused
    assert len(shown) == count - refused
    assert all("is no picture that can be decoded" in line and "\n" not in line for line in said)


def test_the_evaluation_counts_each_file_that_is_no_picture(
    damage: Damage,
    edge: LoadedPack,
    portrait_paths: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for person in ("one", "two"):
        (tmp_path / person).mkdir()
        shutil.copy(portrait_paths["obama.jpg"], tmp_path / person / "whole.jpg")
    paths, refused = written(damage, tmp_path / "two", 54)
    os.mkfifo(tmp_path / "two" / "pipe.jpg")
    data = embed_dataset(tmp_path, edge)
    assert data.unreadable == refused + 1
    assert data.images == 2 + len(paths) - refused
    assert len(data.vectors) + data.missed == data.images
    assert len(data.vectors) > 2
    assert capsys.readouterr().err.count(" is left out: ") == refused + 1
