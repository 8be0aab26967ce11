"""A disk that fails to make the commit of an erasure durable: nothing that may be needed is destroyed.

SQLite takes such a transaction back in memory, and leaves it in the write-ahead log with its commit mark:
whoever opens the file next finds it committed.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.vault.check import check
from appliance.vault.claims import Vaulted
from appliance.vault.erasing import _rewrapping, erase, rotate
from appliance.vault.opening import open_vault
from appliance.vault.store import Store, StoreError
from appliance.vault.token import Token
from tests.vault.faces import enrol, face, opens, vault_of

HERE = Path(__file__).parent
PATIENCE = 60


def opened(folder: Path) -> Vaulted:
    store, epochs = open_vault(folder)
    return vault_of(store, epochs)


def keys_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("epoch*"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    folder = tmp_path / "vault"
    folder.mkdir()
    return folder


@pytest.fixture
def shim(tmp_path: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to make the failing fsync with")
    library = tmp_path / "failing_sync.so"
    source = HERE / "failing_sync.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O", "-o", library, source, "-ldl"], check=True)
    return library


START = """
import os, sys
from pathlib import Path
from appliance.vault.erasing import erase, rotate
from appliance.vault.store import StoreError
from tests.vault.faces import enrol, face, opens
from tests.vault.test_erasing_sync import keys_in, opened
folder, failing = Path(sys.argv[1]), Path(os.environ["FAIL_WHILE"])
vault = opened(folder)
tokens = [enrol(vault, face(seed)) for seed in range(4)]
for token in tokens:
    print(token.handle.hex(), bytes(token.secret).hex(), flush=True)
failing.touch()
"""

LIVE_ON = (
    START
    + """
for act in (lambda: erase(vault.epochs, vault.store, [tokens[0].handle]),
            lambda: rotate(vault.epochs, vault.store)):
    try:
        act()
    except StoreError as error:
        assert "not settled" in str(error), error
    else:
        raise AssertionError("it was acknowledged")
    assert vault.store.epoch() == vault.epochs.current.epoch == 1
    assert keys_in(folder) == ["epoch-1.key", "epoch-2.pending"], keys_in(folder)
failing.unlink()
assert all(opens(vault, token) for token in tokens), "the old epoch stays in force"
if sys.argv[2] == "mended":
    assert erase(vault.epochs, vault.store, [tokens[0].handle]) == 1
    assert vault.epochs.current.epoch == 2
    assert keys_in(folder) == ["epoch-2.key"]
os._exit(9)
"""
)

DIE = (
    START
    + """
change = vault.store.change_epoch
def change_and_die(*arguments):
    try:
        change(*arguments)
    except StoreError:
        os._exit(9)
vault.store.change_epoch = change_and_die
erase(vault.epochs, vault.store, [tokens[0].handle])
"""
)


def run(script: str, folder: Path, shim: Path, *arguments: str) -> list[Token]:
    """Run it with an fsync that fails for the write-ahead log; the tokens that it enrolled."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), *arguments],
        env={
            **os.environ,
            "LD_PRELOAD": str(shim),
            "FAIL_WHILE": str(folder.parent / "failing"),
            "FAIL_FOR": "/vault.db-wal",
        },
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE.parent.parent,
        timeout=PATIENCE,
    )
    assert done.returncode == 9, done.stderr
    parts = [line.split() for line in done.stdout.splitlines()]
    return [Token(bytes.fromhex(handle), bytearray.fromhex(secret)) for handle, secret in parts]


@pytest.mark.parametrize("then", ["mended", "died"])
def test_a_change_that_was_not_synced_is_undone_only_when_that_is_certain(
    folder: Path, shim: Path, then: str
) -> None:
    gone, *kept = run(LIVE_ON, folder, shim, then)
    after = opened(folder)
    assert check(after.store, after.epochs).sound
    assert all(opens(after, each) for each in kept)
    # Of a change that was refused the old state is left, since an attempt wrote over it.
    assert opens(after, gone) == (then == "died")
    assert keys_in(folder) == [f"epoch-{after.store.epoch()}.key"]
    after.store.close()


def test_an_unsynced_commit_that_the_next_start_finds_is_finished(folder: Path, shim: Path) -> None:
    gone, *kept = run(DIE, folder, shim)
    assert keys_in(folder) == ["epoch-1.key", "epoch-2.pending"]
    after = opened(folder)
    assert after.store.epoch() == 2, "the log holds the commit mark"
    assert check(after.store, after.epochs).sound
    assert all(opens(after, each) for each in kept)
    assert not opens(after, gone)
    assert keys_in(folder) == ["epoch-2.key"]
    after.store.close()


class Failing:
    """A commit that fails, and a disk that goes on failing, in this process: no compiler is needed."""

    def __init__(self, store: Store, patch: pytest.MonkeyPatch) -> None:
        self._transaction = store.transaction
        self.failing = True
        patch.setattr(store, "transaction", self.transaction)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        if not self.failing:
            with self._transaction() as db:
                yield db
            return
        with self._transaction() as db:
            yield db
            raise sqlite3.OperationalError("disk I/O error")


def test_no_other_change_begins_before_the_last_one_is_settled(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = opened(folder)
    gone, kept = enrol(vault, face(1)), enrol(vault, face(2))
    disk = Failing(vault.store, monkeypatch)
    for act in (
        lambda: erase(vault.epochs, vault.store, [gone.handle]),
        lambda: erase(vault.epochs, vault.store, []),
        lambda: rotate(vault.epochs, vault.store),
        vault.epochs.begin,
    ):
        with pytest.raises(StoreError, match="not settled yet"):
            act()
        assert keys_in(folder) == ["epoch-1.key", "epoch-2.pending"]
    disk.failing = False
    assert opens(vault, gone)
    reader = sqlite3.connect(folder / "vault.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM record").fetchone()
    with pytest.raises(StoreError, match="not settled yet"):
        rotate(vault.epochs, vault.store)
    assert keys_in(folder) == ["epoch-1.key", "epoch-2.pending"], "the log is not emptied yet"
    reader.close()
    assert erase(vault.epochs, vault.store, [gone.handle]) == 1
    assert keys_in(folder) == ["epoch-2.key"]
    assert opens(vault, kept)
    vault.store.close()


@pytest.mark.parametrize("committed", [False, True])
def test_a_start_that_settles_a_change_may_die_at_any_step(
    folder: Path, tmp_path: Path, committed: bool
) -> None:
    vault = opened(folder)
    kept = enrol(vault, face(1))
    new = vault.epochs.begin()
    if committed:
        rewrapping = _rewrapping(vault.epochs.device, vault.epochs.current, new)
        vault.store.change_epoch(2, (), rewrapping)
    vault.store.close()
    copies = tmp_path / "copies"
    copies.mkdir()
    script = [sys.executable, "-m", "tests.vault.forked_erasure", str(folder), str(copies), "", "start"]
    done = subprocess.run(script, capture_output=True, text=True, check=False, cwd=HERE.parent.parent)
    assert done.returncode == 0, done.stderr
    count = int(done.stdout)
    assert count > 15
    for number in range(count):
        after = opened(copies / str(number))
        assert after.store.epoch() == (2 if committed else 1)
        assert keys_in(copies / str(number)) == [f"epoch-{after.store.epoch()}.key"]
        assert opens(after, kept)
        after.store.close()


def test_a_start_destroys_nothing_beside_a_pending_key_on_a_disk_that_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = opened(folder)
    kept = enrol(vault, face(1))
    new = vault.epochs.begin()
    vault.store.change_epoch(2, (), _rewrapping(vault.epochs.device, vault.epochs.current, new))
    vault.store.close()

    def busy(_: Store) -> None:
        raise StoreError("a reader")

    with monkeypatch.context() as broken:
        broken.setattr(Store, "empty_log", busy)
        with pytest.raises(StoreError, match="not settled yet"):
            opened(folder)
    assert keys_in(folder) == ["epoch-1.key", "epoch-2.pending"]
    after = opened(folder)
    assert keys_in(folder) == ["epoch-2.key"]
    assert opens(after, kept)
    after.store.close()
