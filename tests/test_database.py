"""What a zone's database file holds after its process was killed."""

import signal
import subprocess
import sys
from pathlib import Path

from appliance.database import open_database

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
