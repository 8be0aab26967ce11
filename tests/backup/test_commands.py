"""`drempel backup`, `restore`, `check` and `decommission`, as they are typed; the API is scripted."""

import json
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from appliance.admin.registry.people import add_person
from appliance.api_client import ApiError
from appliance.backup import sealing
from appliance.cli import app
from appliance.commands import vault as commands
from appliance.errors import DrempelError
from appliance.process import in_place_of
from appliance.settings import load
from tests.backup.histories import Door

PASSPHRASE = "correct horse battery staple"  # noqa: S105 - of a test
CHECKED: dict[str, Any] = {
    "ok": True,
    "records": {"tier1": 0, "tier2": 24, "tier3": 0},
    "unreadable": 0,
    "epoch": 7,
    "database": "sound",
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    monkeypatch.setattr(sealing, "MEMORY_KIB", 8)
    config = tmp_path / "drempel.toml"
    users = "\n".join(f'{zone} = ""' for zone in ("door", "lens", "vault", "admin"))
    config.write_text(
        f'[site]\nname = "Bakkerij"\n[paths]\nstate = "{tmp_path}/state"\nruntime = "{tmp_path}/run"\n'
        f"[users]\n{users}\n"
    )
    monkeypatch.setenv("DREMPEL_CONFIG", str(config))
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    door = Door(tmp_path / "state")
    add_person(door.registry, "Jan de Vries")
    yield door
    door.close()


def run(*words: str, typed: str = "", status: int = 0) -> Result:
    result = CliRunner().invoke(app, words, input=typed)
    if isinstance(result.exception, DrempelError):
        assert status, result.exception
        assert "\n" not in str(result.exception), "an error is one line"
    else:
        assert result.exit_code == status, result.output
    return result


@pytest.fixture
def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

        def __getattr__(self, name: str) -> Any:
            return getattr(sys.stdin, name)

    monkeypatch.setattr(commands, "sys", types.SimpleNamespace(stdin=Terminal(), exit=sys.exit))


class Api:
    """Answers each route as told; keeps what was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str, Any]] = []

    def call(self, method: str, route: str, body: Any = None) -> Any:
        self.asked.append((method, route, body))
        answer = self.answers[route.strip("/").replace("/", "_")]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Api]:
    def scripted(**answers: Any) -> Api:
        made = Api(**answers)
        monkeypatch.setattr(commands, "api_client", lambda _config: made)
        return made

    return scripted


# --- backup and restore -------------------------------------------------------------------------


def test_a_backup_says_each_time_what_is_not_in_it_and_why(site: Door, tmp_path: Path) -> None:
    file = tmp_path / "backup"
    done = run("backup", str(file), "--passphrase-file", str(tmp_path / "passphrase"), "--json")
    assert json.loads(done.stdout)["bytes"] == file.stat().st_size
    assert "Templates are not in it" in done.stderr
    assert "stays erased" in done.stderr
    assert PASSPHRASE not in done.output
    assert b"Jan de Vries" not in file.read_bytes()
    assert site.people()


def test_a_restore_says_what_came_back_what_did_not_and_what_is_next(site: Door, tmp_path: Path) -> None:
    words = (str(tmp_path / "backup"), "--passphrase-file", str(tmp_path / "passphrase"))
    run("backup", *words)
    (person,) = site.people()
    site._erase_person(person, None)
    add_person(site.registry, "Piet Jansen")
    site.close()
    done = run("restore", *words)
    assert "1 people erased since" in done.stdout
    assert "1 people came after the backup" in done.stderr
    assert "start Drempel" in done.stderr
    found = json.loads(run("restore", *words, "--json").stdout)
    assert (found["tombstones"], found["people"], found["settings"]) == ("replayed", 1, True)
    assert found["templates_kept"] == 0
    site.open()


def test_on_a_new_device_it_says_that_nobody_knows_what_ended_since(site: Door, tmp_path: Path) -> None:
    words = (str(tmp_path / "backup"), "--passphrase-file", str(tmp_path / "passphrase"))
    run("backup", *words)
    site.close()
    # A registry alone that is gone is no new device: who was erased since would come back unseen.
    (tmp_path / "state" / "admin" / "registry.db").unlink()
    assert "--tombstones-lost" in str(run("restore", *words, status=2).exception)
    (tmp_path / "state" / "door" / "badges.db").unlink()
    done = run("restore", *words)
    assert "look in your own records" in done.stderr
    assert "enrolled anew" in done.stderr
    site.open()


def test_another_passphrase_or_none_restores_nothing(site: Door, tmp_path: Path) -> None:
    file = str(tmp_path / "backup")
    run("backup", file, "--passphrase-file", str(tmp_path / "passphrase"))
    (tmp_path / "other").write_text("incorrect horse battery staple")
    wrong = run("restore", file, "--passphrase-file", str(tmp_path / "other"), status=1)
    assert "the passphrase is wrong, or the file is damaged" in str(wrong.exception)
    assert "--passphrase-file" in str(run("restore", file, status=2).exception)
    assert "name another file" in str(
        run("restore", file, "--passphrase-file", str(tmp_path / "none"), status=2).exception
    )
    assert site.people()


# --- check --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("site")
def test_a_check_that_finds_nothing_wrong(api: Callable[..., Api]) -> None:
    api(vault_check=CHECKED)
    assert "24 of tier 2" in run("check").stdout
    assert json.loads(run("check", "--json").stdout) == CHECKED


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize(
    ("found", "says"),
    [({"unreadable": 1}, "enrolled anew"), ({"database": "damaged"}, "vault.db is damaged")],
)
def test_a_check_that_finds_something_says_what_to_do(
    api: Callable[..., Api], found: dict[str, Any], says: str
) -> None:
    api(vault_check={**CHECKED, **found, "ok": False})
    assert says in run("check", status=1).stdout
    assert json.loads(run("check", "--json", status=1).stdout)["ok"] is False


@pytest.mark.usefixtures("site")
def test_a_check_that_takes_long_says_that_it_does(
    api: Callable[..., Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    import time  # noqa: PLC0415

    monkeypatch.setattr(commands, "PATIENCE", 0.05)
    slow = api(vault_check=CHECKED)
    answer = slow.call

    def wait(method: str, route: str, body: Any = None) -> Any:
        time.sleep(0.5)
        return answer(method, route, body)

    monkeypatch.setattr(slow, "call", wait)
    assert "reads every record" in run("check").stderr


# --- decommission -------------------------------------------------------------------------------

UP = {"vault": {"records": 3}, "site": "Bakkerij", "door": None}
AWAY = {"vault": None, "site": "Bakkerij", "door": None}


@pytest.fixture
def destroyed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, str]]:
    """Where keys were destroyed, in a vault whose own part is scripted."""
    calls: list[tuple[Path, str]] = []

    def destroy_keys(folder: Path, runtime: Path | None = None, tcti: str = "") -> None:
        assert runtime is None
        calls.append((folder, tcti))

    scripted = types.SimpleNamespace(destroy_keys=destroy_keys)
    monkeypatch.setitem(sys.modules, "appliance.vault.decommission", scripted)
    return calls


@pytest.mark.usefixtures("site", "at_a_terminal")
def test_decommissioning_asks_for_the_sites_name(
    api: Callable[..., Api], destroyed: list[tuple[Path, str]]
) -> None:
    asked = api(status=UP, decommission={"state": "decommissioned"}).asked
    refused = run("decommission", typed="bakkerij\n", status=2)
    assert "nothing was destroyed" in str(refused.exception)
    assert asked == []
    assert "Badges go on" in run("decommission", typed="Bakkerij\n").stdout
    assert asked[-1] == ("POST", "/decommission", {"site": "Bakkerij"})
    assert destroyed == []


@pytest.mark.usefixtures("site")
def test_without_a_terminal_it_needs_a_yes(api: Callable[..., Api]) -> None:
    asked = api(status=UP, decommission={"state": "decommissioned"}).asked
    assert "--yes" in str(run("decommission", status=2).exception)
    assert asked == []
    done = run("decommission", "--yes", "--json")
    assert json.loads(done.stdout) == {"state": "decommissioned"}


@pytest.mark.parametrize("status", [AWAY, ApiError("the admin zone does not answer")])
def test_where_no_vault_runs_the_keys_are_destroyed_in_its_place(
    site: Door, api: Callable[..., Api], destroyed: list[tuple[Path, str]], status: Any
) -> None:
    api(status=status)
    assert "root key, remove the sealed credential" in run("decommission", "--yes").stderr
    assert destroyed == [(site.folder / "vault", "")]


def test_a_vault_that_runs_unseen_keeps_its_keys(
    site: Door, api: Callable[..., Api], destroyed: list[tuple[Path, str]], tmp_path: Path
) -> None:
    import os  # noqa: PLC0415

    api(status=AWAY)
    pid = os.fork()
    if pid == 0:
        with in_place_of(load(), "vault"):
            (tmp_path / "held").touch()
            while not (tmp_path / "let go").exists():
                pass
        os._exit(0)
    try:
        while not (tmp_path / "held").exists():
            pass
        assert "vault runs already" in str(run("decommission", "--yes", status=2).exception)
    finally:
        (tmp_path / "let go").touch()
        os.waitpid(pid, 0)
    assert destroyed == []
    assert site.people()


@pytest.mark.usefixtures("site")
def test_a_vault_that_refuses_is_not_gone_behind(
    api: Callable[..., Api], destroyed: list[tuple[Path, str]]
) -> None:
    api(status=UP, decommission=ApiError("the zone could not store it: look at its journal and at the disk"))
    assert "could not store" in str(run("decommission", "--yes", status=1).exception)
    assert destroyed == []
