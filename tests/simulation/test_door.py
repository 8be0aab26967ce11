"""The simulated door: what it makes and where, and that nothing of it is left behind."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.errors import DrempelError
from appliance.link.sockets import LinkError
from appliance.process import ZONES
from appliance.simulation import door as door_module
from appliance.simulation import zone as zone_module
from appliance.simulation.door import Plan, Shown, SimulatedDoor

HOST = """
import sys, time
from pathlib import Path
from appliance.simulation.door import Plan, SimulatedDoor

with SimulatedDoor(Path(sys.argv[1]), Plan(packs=Path("/nowhere"), recognition=False)) as door:
    door.kill("lens")
    killed = door._processes["lens"].pid
    time.sleep(1)
    door.wait_ready()
    assert door.pid("lens") != killed
    print(*(door.pid(zone) for zone in ("door", "lens", "vault", "admin")), flush=True)
    time.sleep(600)
"""


def plan(folder: Path) -> Plan:
    return Plan(packs=folder / "packs", recognition=False)


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture
def temporary(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made: a folder of this test's own."""
    made = short_folder / "t"
    made.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    return made


def test_before_entry_nothing_is_made(tmp_path: Path, temporary: Path) -> None:
    SimulatedDoor(tmp_path / "state", plan(tmp_path))
    assert not (tmp_path / "state").exists()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("broken", ["Board", "SimulatedReader", "load"])
def test_an_entry_that_fails_leaves_no_folder_thread_or_file_open(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise LinkError("no place for the socket")

    monkeypatch.setattr(door_module, broken, fail)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(LinkError), SimulatedDoor(tmp_path / "state", plan(tmp_path)):
        pytest.fail("it was entered")
    assert list(temporary.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_zone_that_does_not_start_leaves_no_zone_behind(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = SimulatedDoor(tmp_path / "state", plan(tmp_path))

    def fail(*_: object) -> None:
        raise DrempelError("it does not start")

    monkeypatch.setattr(door, "wait_ready", fail)
    with pytest.raises(DrempelError, match="does not start"):
        door.__enter__()
    assert sorted(door._processes) == sorted(ZONES)
    assert all(process.poll() is not None for process in door._processes.values())
    assert list(temporary.iterdir()) == []


def test_awkward_paths_reach_the_zones_whole(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert temporary.is_dir()
    awkward = tmp_path / 'a "quoted\\ p\x7fath\tof \u00e9\U0001f600'
    awkward.mkdir()
    monkeypatch.chdir(awkward)
    door = SimulatedDoor(Path("state"), Plan(packs=Path("packs"), recognition=False))
    monkeypatch.setattr(door, "_start", lambda _zone: None)
    monkeypatch.setattr(door, "wait_ready", lambda: None)
    door.show([Shown(0.0, None)])
    with door:
        settings = door.settings
        assert settings.paths.state == awkward / "state"
        assert settings.paths.packs == awkward / "packs"
        assert settings.badge_readers[0].key_file == awkward / "state" / "reader.scbk"
        assert settings.camera.replay is not None
        assert (settings.camera.replay / "scene.toml").is_file()
        assert door._show_number == 1, "what was shown before is shown still"


def test_a_state_folder_of_its_own_is_closed_to_others_and_another_is_left_alone(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert temporary.is_dir()
    (tmp_path / "full").mkdir(mode=0o755)
    (tmp_path / "full" / "letter").touch()
    (tmp_path / "empty").mkdir(mode=0o755)
    for name, mode in (("new", 0o700), ("empty", 0o700), ("full", 0o755)):
        door = SimulatedDoor(tmp_path / name, plan(tmp_path))
        monkeypatch.setattr(door, "_start", lambda _zone: None)
        monkeypatch.setattr(door, "wait_ready", lambda: None)
        with door:
            assert (tmp_path / name).stat().st_mode & 0o777 == mode


def test_a_zone_without_the_door_that_it_belongs_to_does_not_start() -> None:
    command = [sys.executable, "-m", "appliance.simulation.zone", "lens", "--config", "/nowhere"]
    done = subprocess.run(
        [*command, "--parent", "1" if os.getpid() != 1 else "2"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "has ended" in done.stderr
    assert zone_module.PR_SET_PDEATHSIG == 1


def test_a_simulation_that_is_killed_leaves_no_zone_behind(short_folder: Path) -> None:
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, str(short_folder / "state")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(short_folder)},
    )
    assert host.stdout is not None
    pids = [int(pid) for pid in host.stdout.readline().split()]
    try:
        assert len(pids) == 4
        host.send_signal(signal.SIGKILL)
        wait_for(lambda: not any(running(pid) for pid in pids))
    finally:
        host.kill()
        host.communicate()


def running(pid: int) -> bool:
    """Whether a process runs; one that ended and was not asked for its status does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
