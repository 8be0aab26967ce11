"""That a look at the whole file keeps nobody waiting, and no erasure from emptying the log."""

import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.vault.protection import Sealed
from appliance.vault.soundness import Soundness
from appliance.vault.store import Record, Store, StoreError


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Store]:
    """A store whose integrity check takes a while."""
    store = Store(tmp_path / "vault.db")
    store.begin_epoch(1)
    for _ in range(6):
        store.add_all(
            Record(secrets.token_bytes(16), 2, bytes(32), Sealed(bytes(92), secrets.token_bytes(2080)))
            for _ in range(2000)
        )
    yield store
    store.close()


class Slowed(Soundness):
    """Says when a look has begun."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.begun = threading.Event()

    def _look(self) -> bool | None:
        self.begun.set()
        return super()._look()


def test_a_look_at_the_whole_file_keeps_no_reader_and_no_writer_waiting(large: Store) -> None:
    """Both wait for less than the look takes, however often it is asked."""
    began = time.monotonic()
    assert large.integrity()
    alone = time.monotonic() - began
    stop = threading.Event()
    asked: list[bool] = []

    def look() -> None:
        while not stop.is_set():
            asked.append(large.integrity())

    looking = threading.Thread(target=look)
    looking.start()
    waited = []
    for _ in range(50):
        began = time.monotonic()
        large.read(bytes(16))
        large.set_rights(bytes(16), b"", b"")
        waited.append(time.monotonic() - began)
    stop.set()
    looking.join()
    assert all(asked)
    assert sorted(waited)[25] < alone / 2, (alone, waited)


def test_an_erasure_cuts_a_look_short_and_the_look_begins_anew(large: Store, tmp_path: Path) -> None:
    large._soundness.close()
    large._soundness = slowed = Slowed(tmp_path / "vault.db")
    found: list[bool] = []
    looking = threading.Thread(target=lambda: found.append(large.integrity()))
    looking.start()
    slowed.begun.wait(5)
    # However it falls out in time, the log is emptied, and soon.
    for epoch in range(2, 6):
        began = time.monotonic()
        large.change_epoch(epoch, [], lambda half: half.half)
        assert time.monotonic() - began < 5
        assert (tmp_path / "vault.db-wal").stat().st_size == 0
    looking.join()
    assert found == [True]


def test_where_every_look_is_cut_short_the_last_one_has_the_writers_wait(tmp_path: Path) -> None:
    store = Store(tmp_path / "vault.db")
    results: list[bool | None] = [*[None] * 20, None, True]

    class Interrupted(Soundness):
        def _look(self) -> bool | None:
            return results.pop(0)

    store._soundness = Interrupted(tmp_path / "vault.db")
    assert store.integrity()
    assert results == []
    store.close()


def test_a_file_that_cannot_be_read_is_an_error_and_not_unsound(tmp_path: Path) -> None:
    store = Store(tmp_path / "vault.db")
    store._soundness = Soundness(tmp_path / "another.db")
    with pytest.raises(StoreError, match="cannot be read"):
        store.integrity()
    store.close()


def test_the_look_can_only_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "vault.db")
    assert store.integrity()
    reader = store._soundness._reader
    assert reader is not None
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM record")
    store.close()
