import ctypes
import os
import pwd
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance import journal
from appliance.errors import ConfigurationError
from appliance.process import ZONES, acting_as, begin, in_place_of, stop_event
from appliance.settings import Paths, Settings, Users

PR_SET_DUMPABLE = 4
NOBODY = Users(door="", lens="", vault="", admin="")


@pytest.fixture(autouse=True)
def _mask() -> Iterator[None]:
    """What `begin` does to this process is undone."""
    mask = os.umask(0o022)
    yield
    os.umask(mask)
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    libc.munlockall()


def settings_in(folder: Path, users: Users = NOBODY) -> Settings:
    return Settings(paths=Paths(state=folder / "state", runtime=folder / "run"), users=users)


def in_a_process_of_its_own(script: str) -> subprocess.CompletedProcess[str]:
    """`begin` changes the process that it prepares, so the tests' own is spared."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )


@pytest.mark.parametrize("zone", ZONES)
def test_a_zone_begins_with_folders_and_a_journal_for_itself_alone(tmp_path: Path, zone: str) -> None:
    done = in_a_process_of_its_own(f"""
        import os, resource
        from pathlib import Path
        from appliance.journal import Event
        from appliance.process import begin
        from appliance.settings import Paths, Settings, Users

        os.umask(0)
        root = Path({str(tmp_path)!r})
        paths = Paths(state=root / "state", runtime=root / "run")
        journal = begin(Settings(paths=paths, users=Users(door="", lens="", vault="", admin="")), {zone!r})
        journal.write(Event.STARTED)
        (root / "state" / {zone!r} / "later").touch()
        assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0), "a core file could hold a template"
    """)
    assert done.returncode == 0, done.stderr
    state = tmp_path / "state" / zone
    assert state.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "run" / zone).stat().st_mode & 0o777 == 0o755
    assert (state / "journal.jsonl").stat().st_mode & 0o777 == 0o600
    assert (state / "later").stat().st_mode & 0o077 == 0
    assert journal.verify(state / "journal.jsonl").lines == 1


def test_a_folder_that_was_open_to_others_is_closed(tmp_path: Path) -> None:
    state = tmp_path / "state" / "vault"
    state.mkdir(parents=True)
    state.chmod(0o777)
    mask = os.umask(0o022)
    try:
        begin(settings_in(tmp_path), "vault").close()
    finally:
        os.umask(mask)
    assert state.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_is_said_with_the_setting_to_mend(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    settings = settings_in(tmp_path)
    mask = os.umask(0o022)
    try:
        with pytest.raises(ConfigurationError, match=r"cannot be made: .*mend \[paths\] in the settings"):
            begin(settings, "door")
    finally:
        os.umask(mask)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder to another user")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state" / "door"
    state.mkdir(parents=True)
    os.chown(state, 12345, 12345)
    settings = settings_in(tmp_path)
    mask = os.umask(0o022)
    try:
        with pytest.raises(ConfigurationError, match="belongs to another user"):
            begin(settings, "door")
    finally:
        os.umask(mask)
    assert state.stat().st_mode & 0o777 != 0o700


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_being_asked_to_stop_sets_the_event_and_kills_nobody(number: signal.Signals) -> None:
    kept = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        stop: threading.Event = stop_event()
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        assert stop.wait(2)
    finally:
        for each, handler in kept.items():
            signal.signal(each, handler)


HOLDER = """
    from pathlib import Path
    from appliance.process import begin
    from appliance.settings import Paths, Settings, Users

    root = Path({root!r})
    paths = Paths(state=root / "state", runtime=root / "run")
    journal = begin(Settings(paths=paths, users=Users(door="", lens="", vault="", admin="")), "vault")
    journal.close()
    print("begun", flush=True)
    input()
"""


def test_a_second_start_of_a_zone_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    script = textwrap.dedent(HOLDER.format(root=str(tmp_path)))
    first = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    assert first.stdin is not None
    try:
        assert first.stdout.readline() == "begun\n", "and the lock outlives the journal"
        path = tmp_path / "state" / "vault" / "journal.jsonl"
        path.write_text("torn")
        with pytest.raises(ConfigurationError, match=r"vault runs already, and holds .*/vault/lock: stop"):
            begin(settings_in(tmp_path), "vault")
        assert path.read_text() == "torn"
        begin(settings_in(tmp_path), "lens").close()
    finally:
        first.kill()
        first.wait()
        first.stdin.close()
        first.stdout.close()
    begin(settings_in(tmp_path), "vault").close()
    begin(settings_in(tmp_path), "vault").close()  # in one process, as tests do


def test_a_zone_of_another_user_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    users = Users(door="daemon", lens="bin", vault="mail", admin="news")
    with pytest.raises(ConfigurationError, match=r"vault was started as user .*: start it as mail"):
        begin(settings_in(tmp_path, users), "vault")
    assert list(tmp_path.iterdir()) == []


def test_a_zone_whose_user_does_not_exist_is_told_which(tmp_path: Path) -> None:
    users = Users(door="daemon", lens="bin", vault="no-such-user", admin="news")
    with pytest.raises(ConfigurationError, match="no user 'no-such-user'"):
        begin(settings_in(tmp_path, users), "vault")


def test_a_zone_begins_as_the_user_that_the_settings_name(tmp_path: Path) -> None:
    mine = pwd.getpwuid(os.geteuid()).pw_name
    users = Users(door="daemon", lens="bin", vault=mine, admin="news")
    begin(settings_in(tmp_path, users), "vault").close()


def test_whoever_is_in_place_of_a_zone_keeps_it_from_starting_and_then_lets_go(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    lock = settings.zone_state("door") / "lock"
    starts = f"""
        import fcntl, os
        fcntl.flock(os.open({str(lock)!r}, os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
    """
    with in_place_of(settings, "door", "admin"):
        assert settings.zone_state("door").stat().st_mode & 0o777 == 0o700
        assert settings.paths.state.stat().st_mode & 0o777 == 0o755
        assert "BlockingIOError" in in_a_process_of_its_own(starts).stderr
    assert in_a_process_of_its_own(starts).returncode == 0


def test_where_one_zone_runs_the_others_are_let_go_too(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    with in_place_of(settings, "vault"):
        held = process_that_holds(settings.zone_state("admin") / "lock")
        try:
            with (
                pytest.raises(ConfigurationError, match="stop Drempel"),
                in_place_of(settings, "door", "admin"),
            ):
                pass
        finally:
            held.kill()
            held.communicate()
    with in_place_of(settings, "door", "admin"):
        pass


def process_that_holds(lock: Path) -> subprocess.Popen[str]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    script = (
        f"import fcntl, os, time; lock = os.open({str(lock)!r}, os.O_RDWR | os.O_CREAT); "
        "fcntl.flock(lock, fcntl.LOCK_EX); print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_acting_as_nobody_in_particular_changes_nothing() -> None:
    with acting_as(""):
        assert os.geteuid() == os.getuid()
    with pytest.raises(ConfigurationError, match="create it"), acting_as("no-such-user"):
        pass


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_acting_as_a_user_is_with_their_rights_and_groups_and_ends(tmp_path: Path) -> None:
    before = os.geteuid(), os.getegid(), os.getgroups()
    secret = tmp_path / "secret"
    secret.write_text("root's")
    secret.chmod(0o600)
    with acting_as("daemon"):
        user = pwd.getpwnam("daemon")
        assert (os.geteuid(), os.getegid()) == (user.pw_uid, user.pw_gid)
        assert os.getgroups() == os.getgrouplist("daemon", user.pw_gid)
        with pytest.raises(PermissionError):
            secret.read_text()
        with pytest.raises(ConfigurationError, match="run it as root"), acting_as("bin"):
            pass
    assert (os.geteuid(), os.getegid(), os.getgroups()) == before
