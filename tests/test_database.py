"""What a zone's database file holds after its process was killed."""

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.database import DatabaseUnusable, open_database, what_to_do

DELETE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from appliance.database import open_database
db = open_database(Path(sys.argv[1]), 1, "CREATE TABLE person (name TEXT) STRICT;")
db.execute("INSERT INTO person VALUES ('Q. Planted-Name')")
db.execute("DELETE FROM person")
os.kill(os.getpid(), signal.SIGKILL)
"""


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


def test_what_was_deleted_just_before_a_kill_is_gone_after_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    died = subprocess.run([sys.executable, "-c", DELETE_AND_DIE, str(path)], check=False)
    assert died.returncode == -signal.SIGKILL
    assert b"Planted-Name" in everything_in(tmp_path), "it is in the write-ahead log"

    db = open_database(path, 1, "")
    try:
        assert db.execute("SELECT count(*) FROM person").fetchone() == (0,)
        assert b"Planted-Name" not in everything_in(tmp_path)
    finally:
        db.close()


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (9, "schema 9, this Drempel knows 3: upgrade Drempel$"),
        (1, "open it with the Drempel that wrote it, or"),
    ],
)
def test_a_file_of_another_schema_is_refused_with_what_to_do(tmp_path: Path, version: int, said: str) -> None:
    path = tmp_path / "some.db"
    open_database(path, version, "").close()
    with pytest.raises(DatabaseUnusable, match=said) as refused:
        open_database(path, 3, "", {2: ""}, damaged="burn it")
    assert ("burn it" in str(refused.value)) == (version == 1)


def test_what_to_do_about_a_damaged_file_is_for_its_zone_to_say(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    path.write_bytes(b"no database at all, " * 500)
    with pytest.raises(DatabaseUnusable, match=r"burn it$"):
        open_database(path, 1, "", damaged="burn it")
    with pytest.raises(DatabaseUnusable, match="restore it from a backup, or move it away"):
        open_database(path, 1, "")
    assert what_to_do(sqlite3.OperationalError("odd"), "burn it") == "try again; if it stays, burn it"


def test_an_upgrade_may_look_at_what_it_drops(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    db = open_database(path, 1, "CREATE TABLE one (n INTEGER);")
    db.execute("INSERT INTO one VALUES (7)")
    db.close()
    seen: list[tuple[int, object]] = []

    def look(db: sqlite3.Connection, version: int) -> None:
        seen.append((version, db.execute("SELECT n FROM one").fetchone()))

    upgrades = {1: "UPDATE one SET n = 8;", 2: "DELETE FROM one;"}
    open_database(path, 3, "", upgrades, before_upgrade=look).close()
    assert seen == [(1, (7,)), (2, (8,))]
    open_database(path, 3, "", upgrades, before_upgrade=look).close()
    assert len(seen) == 2
