import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from appliance import journal
from appliance.errors import ConfigurationError
from appliance.process import begin, stop_event
from appliance.settings import Paths, Settings

ZONES = ("door", "lens", "vault", "admin")


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
        from appliance.settings import Paths, Settings

        os.umask(0)
        root = Path({str(tmp_path)!r})
        journal = begin(Settings(paths=Paths(state=root / "state", runtime=root / "run")), {zone!r})
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
        begin(Settings(paths=Paths(state=tmp_path / "state", runtime=tmp_path / "run")), "vault").close()
    finally:
        os.umask(mask)
    assert state.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_is_said_with_the_setting_to_mend(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    settings = Settings(paths=Paths(state=tmp_path / "state", runtime=tmp_path / "run"))
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
    settings = Settings(paths=Paths(state=tmp_path / "state", runtime=tmp_path / "run"))
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
