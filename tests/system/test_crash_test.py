"""A handful of kills, or hundreds; and that a run can go wrong, and says so.

`pytest -s` shows what was done and killed; the thousand kills are `scripts/crash-test 1000`.
"""

import contextlib
import shutil
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.bare_zones import bare_zones
from tests.system.crash_outcome import Outcome
from tests.system.crash_test import crash, crash_side_by_side, main
from tests.system.crashes import Crashes


def tell(text: str) -> None:
    print(text, file=sys.stderr)


@pytest.mark.timeout(120)
def test_ten_kills_lose_nothing_and_revive_nobody() -> None:
    outcome = crash(1, 10, tell)
    tell(outcome.report())
    assert outcome.wrong == []
    assert outcome.kills == 10
    assert outcome.acknowledged
    assert outcome.report().endswith(" acknowledged, 0 lost, 0 revived, 0 unreadable")


@pytest.mark.full
@pytest.mark.timeout(600)
def test_two_hundred_kills_lose_nothing_and_revive_nobody() -> None:
    outcome = crash_side_by_side(1, 200, 2, tell)
    tell(outcome.report())
    assert outcome.wrong == []
    assert outcome.kills == 200
    acts = {"enrol", "renew", "erase", "rotate"}
    assert all(outcome.done[act] for act in acts)
    assert all(any(hit.startswith(f"{act}/") for hit in outcome.hit) for act in acts), "killed in the middle"
    assert sum(n for hit, n in outcome.hit.items() if not hit.startswith("between")) > 100


@pytest.fixture
def crashes(tmp_path: Path) -> Iterator[Crashes]:
    """Two people enrolled, one of them erased again, and no kill."""
    with bare_zones(tmp_path / "state", "vault", "admin") as zones:
        crashes = Crashes(zones, 1, tell)
        for person in crashes.people[:2]:
            crashes.do("enrol", lambda person=person: crashes.enrol(person))  # type: ignore[misc]
        with contextlib.closing(sqlite3.connect(zones.state / "vault" / "vault.db")) as db:
            db.execute("VACUUM INTO ?", (str(tmp_path / "before.db"),))
        crashes.do("erase", lambda: crashes.erase(crashes.people[1]))
        crashes.look(rest=True)
        assert crashes.outcome.wrong == []
        assert crashes.ledger.acknowledged == 3
        yield crashes


def by_hand(crashes: Crashes, statement: str) -> None:
    """Do harm, past the zones."""
    with contextlib.closing(sqlite3.connect(crashes.zones.state / "vault" / "vault.db")) as db, db:
        db.execute(statement)


def test_a_write_that_is_lost_is_found(crashes: Crashes) -> None:
    by_hand(crashes, "DELETE FROM record")
    crashes.look(rest=False)
    assert len(crashes.outcome.lost) == 1
    assert crashes.outcome.report().endswith("1 lost, 0 revived, 0 unreadable")


def test_a_record_that_does_not_open_is_found(crashes: Crashes) -> None:
    by_hand(crashes, "UPDATE half SET half = zeroblob(length(half))")
    crashes.look(rest=False)
    assert crashes.outcome.unreadable
    assert crashes.outcome.lost == []


def test_an_erased_record_that_is_back_is_found(crashes: Crashes, tmp_path: Path) -> None:
    """An old copy of the rows, put into the database of today: no check by epoch refuses it."""
    with contextlib.closing(sqlite3.connect(crashes.zones.state / "vault" / "vault.db")) as db, db:
        db.execute("ATTACH ? AS old", (str(tmp_path / "before.db"),))
        for table in ("record", "half", "body"):
            db.execute(f"INSERT OR IGNORE INTO {table} SELECT * FROM old.{table}")  # noqa: S608 - our names
    crashes.look(rest=False)
    assert len(crashes.outcome.revived) == 1


def test_a_vault_that_does_not_start_after_a_kill_is_a_lost_vault(crashes: Crashes) -> None:
    for path in (crashes.zones.state / "vault").glob("root.key"):
        shutil.copy(crashes.zones.config, path)
    outcome = crashes.run(6)
    assert outcome.unreadable
    assert any("vault does not start" in text or "vault ended" in text for text in outcome.other)


def test_outcomes_are_taken_together_and_come_back_from_json() -> None:
    whole = Outcome(1, 2, 3, lost=["one"], hit=Counter({"erase/vault": 1}))
    whole.add(Outcome(2, 5, 7, revived=["two"], other=["three"], hit=Counter({"erase/vault": 2})))
    assert whole.wrong == ["one", "two", "three"]
    assert whole.report().endswith("\n7 kills, 10 acknowledged, 1 lost, 1 revived, 0 unreadable")
    assert whole.hit["erase/vault"] == 3
    assert Outcome.from_json(whole.to_json()) == whole


def test_the_command_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as over:
        main(["--help"])
    assert over.value.code == 0
    assert "SIGKILL" in capsys.readouterr().out
    with pytest.raises(SystemExit) as wrong:
        main(["0"])
    assert wrong.value.code == 2
