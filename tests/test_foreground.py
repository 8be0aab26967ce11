"""`drempel run` with scripted zones: what ends it, what does not, and whom each zone runs as."""

import os
import pwd
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance import foreground
from appliance.errors import ConfigurationError
from appliance.process import ZONES
from appliance.settings import Paths, Settings, Users

USERS = {"door": "daemon", "lens": "bin", "vault": "mail", "admin": "news"}

LAUNCHER = """
import sys
from pathlib import Path
from appliance import foreground
from appliance.settings import load

foreground.RESTART_DELAY = 0.1
foreground.STOP_TIME = 1.0
folder = Path(sys.argv[1])
config = folder / "drempel.toml"
command = lambda zone: ["/bin/sh", str(folder / f"{zone}.sh"), str(folder / f"{zone}.ran")]
sys.exit(foreground.run_zones(load(config), config, command))
"""
SERVES = "echo $$ >> $1; exec sleep 60"


class Bench:
    """A folder with a scripted zone each, and `drempel run` over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o755)
        (folder / "launcher.py").write_text(LAUNCHER)
        self.process: subprocess.Popen[str] | None = None
        self.configure({})
        for zone in ZONES:
            self.script(zone, SERVES)

    def configure(self, users: dict[str, str]) -> None:
        named = "\n".join(f'{zone} = "{users.get(zone, "")}"' for zone in ZONES)
        paths = f'state = "{self.folder}/state/here"\nruntime = "{self.folder}/run/here"'
        (self.folder / "drempel.toml").write_text(f"[paths]\n{paths}\n[users]\n{named}\n")

    def script(self, zone: str, text: str) -> None:
        (self.folder / f"{zone}.sh").write_text(textwrap.dedent(text))

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, str(self.folder / "launcher.py"), str(self.folder)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        return self.process

    def stop(self) -> tuple[int, str]:
        assert self.process is not None
        self.process.terminate()
        _, said = self.process.communicate(timeout=30)
        return self.process.returncode, said

    def pids(self, zone: str) -> list[int]:
        path = self.folder / f"{zone}.ran"
        return [int(word) for word in path.read_text().split()] if path.exists() else []

    def end(self) -> None:
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.communicate()
        for zone in ZONES:
            for pid in self.pids(zone):
                if alive(pid) and b"/bin/sh" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture
def bench(short_folder: Path) -> Iterator[Bench]:
    made = Bench(short_folder)
    yield made
    made.end()


def test_the_four_zones_run_until_it_is_asked_to_stop(bench: Bench) -> None:
    bench.start()
    wait_for(lambda: all(bench.pids(zone) for zone in ZONES))
    status, said = bench.stop()
    assert status == 0
    for zone in ZONES:
        assert f"{zone} started" in said
        assert not any(alive(pid) for pid in bench.pids(zone))


def test_a_zone_that_ends_starts_again(bench: Bench) -> None:
    bench.script("vault", "echo $$ >> $1; exit 1")
    bench.start()
    wait_for(lambda: len(bench.pids("vault")) >= 3)
    status, said = bench.stop()
    assert status == 0
    assert "vault ended with 1; it starts again" in said
    assert len(bench.pids("door")) == 1


@pytest.mark.parametrize("zone", ["lens", "vault", "admin"])
def test_a_zone_that_is_wrongly_configured_stays_down_and_the_others_go_on(bench: Bench, zone: str) -> None:
    bench.script(zone, "echo $$ >> $1; exit 2")
    process = bench.start()
    wait_for(lambda: all(bench.pids(each) for each in ZONES))
    time.sleep(1)
    assert process.poll() is None
    assert alive(bench.pids("door")[0])
    status, said = bench.stop()
    assert status == 0
    assert len(bench.pids(zone)) == 1
    assert said.count(f"{zone} cannot start with these settings, and stays down") == 1


def test_a_door_that_is_wrongly_configured_ends_the_run(bench: Bench) -> None:
    bench.script("door", "sleep 0.5; exit 2")
    process = bench.start()
    process.communicate(timeout=30)
    assert process.returncode == 2
    assert not any(alive(pid) for zone in ZONES for pid in bench.pids(zone))


def test_a_zone_that_ignores_being_asked_to_stop_is_killed(bench: Bench) -> None:
    bench.script("lens", "trap '' TERM; echo $$ >> $1; while true; do sleep 0.2; done")
    bench.start()
    wait_for(lambda: all(bench.pids(zone) for zone in ZONES))
    status, said = bench.stop()
    assert status == 0
    assert "lens does not stop: it is killed" in said
    assert not alive(bench.pids("lens")[0])


def test_a_zone_that_cannot_be_started_is_said_and_tried_again(bench: Bench) -> None:
    text = (bench.folder / "launcher.py").read_text().replace('"/bin/sh"', '"/bin/no-such-shell"')
    (bench.folder / "launcher.py").write_text(text)
    process = bench.start()
    time.sleep(1.5)
    assert process.poll() is None
    status, said = bench.stop()
    assert status == 0
    assert said.count("door cannot be started: ") >= 2


def settings_with(folder: Path, vault: str = USERS["vault"]) -> Settings:
    users = Users(door=USERS["door"], lens=USERS["lens"], vault=vault, admin=USERS["admin"])
    return Settings(paths=Paths(state=folder / "state", runtime=folder / "run"), users=users)


def test_users_need_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigurationError, match="needs root"):
        foreground.run_zones(settings_with(tmp_path), None)


def test_a_user_that_does_not_exist_is_said_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(ConfigurationError, match="no user 'no-such-user' for vault: create it"):
        foreground.run_zones(settings_with(tmp_path, vault="no-such-user"), None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become four users")
def test_as_root_each_zone_is_its_user_with_its_groups_and_has_its_folders(bench: Bench) -> None:
    bench.configure(USERS)
    for zone, user in USERS.items():
        entry = pwd.getpwnam(user)
        (bench.folder / f"{zone}.ran").touch()
        os.chown(bench.folder / f"{zone}.ran", entry.pw_uid, -1)
        bench.script(
            zone,
            f"echo $(id -u) $(id -g) $(id -G) > $1; touch {bench.folder}/state/here/{zone}/x; exec sleep 60",
        )
    bench.start()
    wait_for(lambda: all((bench.folder / f"state/here/{zone}/x").exists() for zone in ZONES))
    status, said = bench.stop()
    assert status == 0, said
    for zone, user in USERS.items():
        entry = pwd.getpwnam(user)
        uid, gid, *groups = (int(word) for word in (bench.folder / f"{zone}.ran").read_text().split())
        assert (uid, gid) == (entry.pw_uid, entry.pw_gid)
        assert set(groups) == set(os.getgrouplist(user, entry.pw_gid))
        (bench.folder / f"{zone}.ran").unlink()
        for folder, mode in (("state", 0o700), ("run", 0o755)):
            place = (bench.folder / folder / "here" / zone).stat()
            assert (place.st_uid, place.st_gid) == (entry.pw_uid, entry.pw_gid)
            assert place.st_mode & 0o777 == mode
    for parent in ("state", "state/here", "run", "run/here"):
        assert (bench.folder / parent).stat().st_mode & 0o777 == 0o755
        assert (bench.folder / parent).stat().st_uid == 0
