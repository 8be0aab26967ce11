"""A door at rest, as /proc shows it."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from appliance.commands.bench import bench
from appliance.evaluation.bench.idle import (
    NotAtRest,
    camera_handles,
    memory,
    processor_time,
    watch,
    watch_simulated,
    zones_of,
)
from appliance.lens.camera.replay import ReplayCamera
from appliance.link.sockets import Deadline, connect
from appliance.process import ZONES, Zone
from appliance.simulation.door import Plan, SimulatedDoor
from tests.looking import only_root_looks_in

GONE = 2**22 + 1
"""A process id that Linux never gives (PID_MAX_LIMIT)."""


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_memory_and_processor_time_are_of_the_process() -> None:
    held = memory(os.getpid())
    assert 5 < held.pss <= held.rss < 10_000
    before = processor_time(os.getpid())
    eventually(lambda: processor_time(os.getpid()) > before)


def test_a_process_that_is_gone_is_an_error_of_one_line() -> None:
    for look in (memory, processor_time, lambda pid: camera_handles(pid, None)):
        with pytest.raises(NotAtRest, match="ended") as gone:
            look(GONE)
        assert "\n" not in str(gone.value)


def test_an_open_replay_is_a_camera_handle_also_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "show").mkdir()
    cv2.imwrite(str(tmp_path / "show/picture.png"), cv2.UMat(64, 64, cv2.CV_8UC3, (9, 9, 9)).get())
    (tmp_path / "now").symlink_to("show")
    camera = ReplayCamera(tmp_path / "now", 64, 64)
    assert camera_handles(os.getpid(), tmp_path / "now") == 0
    with camera:
        assert camera_handles(os.getpid(), tmp_path / "now") == 1
        assert camera_handles(os.getpid(), tmp_path / "elsewhere") == 0
    assert camera_handles(os.getpid(), tmp_path / "now") == 0


def test_a_handle_on_a_video_device_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no camera here: the kernel's answer is replaced, and nothing else."""
    with Path("/dev/zero").open("rb") as device:
        real = Path.readlink

        def readlink(entry: Path) -> Path:
            return Path("/dev/video0") if entry.name == str(device.fileno()) else real(entry)

        monkeypatch.setattr(Path, "readlink", readlink)
        assert camera_handles(os.getpid(), None) == 1


def test_what_is_watched_is_told_in_the_agreed_shape() -> None:
    me = os.getpid()
    told = watch(dict.fromkeys(ZONES, me), None, 0.3)
    assert set(told["idle"]) == {*ZONES, "camera_handles"}
    for zone in ZONES:
        assert set(told["idle"][zone]) == {"rss_mib", "pss_mib", "cpu"}
    assert told["total"]["pss_mib"] == pytest.approx(sum(told["idle"][zone]["pss_mib"] for zone in ZONES))
    assert told["idle"]["camera_handles"] == 0
    assert set(told["met"]) == {"camera_closed", "each_zone_cpu", "all_zones_cpu", "total_pss"}


def test_a_camera_that_opens_only_for_a_moment_is_seen(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    cv2.imwrite(str(tmp_path / "pictures/picture.png"), cv2.UMat(64, 64, cv2.CV_8UC3, (9, 9, 9)).get())
    camera = ReplayCamera(tmp_path / "pictures", 64, 64)
    moments = iter([camera.open, camera.close])

    def sleep(seconds: float) -> None:
        next(moments, lambda: time.sleep(seconds))()

    told = watch(dict.fromkeys(ZONES, os.getpid()), tmp_path / "pictures", 0.3, sleep=sleep)
    assert told["idle"]["camera_handles"] == 1
    assert told["met"]["camera_closed"] is False


@only_root_looks_in
@pytest.mark.models
def test_a_running_door_is_found_and_its_camera_seen_while_it_is_open(
    test_models: Path, tmp_path: Path
) -> None:
    with SimulatedDoor(tmp_path / "state", Plan(packs=test_models)) as door:
        pids: dict[Zone, int] = {zone: door.pid(zone) for zone in ZONES}
        with connect(door.settings.socket("admin/api"), {os.geteuid()}, Deadline(5)):
            assert zones_of(door.settings) == pids, "whoever listens, and not whoever is called"
        replay = door.settings.camera.replay
        told = watch(pids, replay, 0.5)
        assert told["idle"]["camera_handles"] == 0
        assert told["idle"]["lens"]["pss_mib"] > told["idle"]["door"]["pss_mib"] > 5
        door.board.press()
        eventually(lambda: camera_handles(pids["lens"], replay) == 1)
        told = watch(pids, replay, 0.2)
        assert told["idle"]["camera_handles"] == 1
        assert told["met"]["camera_closed"] is False
        door.kill("lens", hold=True)
        eventually(lambda: not Path(f"/proc/{pids['lens']}/stat").exists(), 5)
        with pytest.raises(NotAtRest, match="lens"):
            zones_of(door.settings)


@only_root_looks_in
@pytest.mark.full
@pytest.mark.models
def test_a_door_at_rest_has_its_camera_closed(test_models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench(idle=True, seconds=10, packs=test_models, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["idle"]["camera_handles"] == 0
    print(told)
    assert watch_simulated(test_models, 1, print, settle=0)["seconds"] >= 1
