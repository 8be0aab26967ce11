import secrets
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.vault.protection import Sealed
from appliance.vault.store import HandleTaken, Record, Store, StoreError


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "vault.db")
    yield store
    store.close()


def record(handle: bytes | None = None) -> Record:
    sealed = Sealed(secrets.token_bytes(60), secrets.token_bytes(2079))
    return Record(handle or secrets.token_bytes(16), 2, bytes(32), sealed)


def raw_bytes(folder: Path) -> bytes:
    """Everything that lies on the disk, the write-ahead log included."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob("vault.db*")))


def test_a_record_is_read_as_it_was_stored(store: Store) -> None:
    stored = record()
    store.add(stored)
    assert store.read(stored.handle) == stored
    assert store.exists(stored.handle)
    assert store.count() == 1


def test_an_unknown_handle_reads_nothing(store: Store) -> None:
    store.add(record())
    assert store.read(bytes(16)) is None
    assert not store.exists(bytes(16))
    assert store.records_read == 0


def test_every_record_that_is_read_is_counted_and_no_other(store: Store) -> None:
    stored = [record() for _ in range(20)]
    for each in stored:
        store.add(each)
    store.exists(stored[0].handle)
    store.count()
    assert store.records_read == 0
    store.read(stored[3].handle)
    assert store.records_read == 1


def test_a_handle_is_stored_once_and_the_first_one_stays(store: Store) -> None:
    first = record()
    store.add(first)
    with pytest.raises(HandleTaken):
        store.add(record(first.handle))
    assert store.read(first.handle) == first


def test_many_records_are_stored_in_one_transaction_and_read_as_they_were(store: Store) -> None:
    stored = [record() for _ in range(500)]
    executed: list[str] = []
    store._db.set_trace_callback(executed.append)
    store.add_all(stored)
    store._db.set_trace_callback(None)
    assert (executed[0], executed[-1]) == ("BEGIN IMMEDIATE", "COMMIT")
    assert len(executed) == 502
    assert store.count() == 500
    assert all(store.read(each.handle) == each for each in stored)


def test_of_many_records_all_are_stored_or_none(store: Store) -> None:
    first = record()
    store.add(first)
    with pytest.raises(HandleTaken):
        store.add_all([record(), record(first.handle), record()])
    assert store.count() == 1
    with pytest.raises((HandleTaken, StoreError)):
        store.add_all([record(), Record(secrets.token_bytes(16), 2, bytes(32), Sealed(b"half", None))])  # type: ignore[arg-type]
    assert store.count() == 1
    store.add_all([])
    store.add(record())
    assert store.count() == 2


def test_an_erased_record_leaves_no_byte_on_the_disk(store: Store, tmp_path: Path) -> None:
    gone, kept = record(), record()
    store.add(gone)
    store.add(kept)
    assert gone.sealed.body[:64] in raw_bytes(tmp_path)
    assert store.erase(gone.handle) is True
    left = raw_bytes(tmp_path)
    for part in (gone.sealed.body, gone.sealed.half):
        assert not any(part[start : start + 8] in left for start in range(len(part) - 8))
    assert gone.handle not in left
    assert kept.sealed.body[:64] in left
    assert (tmp_path / "vault.db-wal").stat().st_size == 0
    assert store.erase(gone.handle) is False


def test_an_erasure_that_a_reader_keeps_from_the_log_is_not_acknowledged(
    store: Store, tmp_path: Path
) -> None:
    gone = record()
    store.add(gone)
    other = sqlite3.connect(tmp_path / "vault.db", isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM record").fetchone()
    with pytest.raises(StoreError, match="erase it again"):
        store.erase(gone.handle)
    other.close()
    store.erase(gone.handle)
    assert gone.handle not in raw_bytes(tmp_path)


def test_the_database_is_for_its_owner_alone(store: Store, tmp_path: Path) -> None:
    store.add(record())
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("vault.db*")} == {0o600}


def test_records_and_epoch_outlive_the_process(tmp_path: Path) -> None:
    stored = record()
    store = Store(tmp_path / "vault.db")
    assert store.epoch() is None
    store.begin_epoch(4)
    store.add(stored)
    store.close()
    again = Store(tmp_path / "vault.db")
    assert again.read(stored.handle) == stored
    assert again.epoch() == 4
    again.close()


def test_a_database_of_a_newer_drempel_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"
    Store(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 2")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="upgrade Drempel"):
        Store(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["not a database", "middle", "cut"])
def test_a_damaged_database_is_refused_with_what_to_do(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "vault.db"
    store = Store(path)
    for _ in range(40):
        store.add(record())
    store.close()
    sound = path.read_bytes()
    if damage == "not a database":
        path.write_bytes(b"no database at all, " * 500)
    elif damage == "middle":
        # The pages of the tree, but not the header.
        path.write_bytes(sound[:8192] + secrets.token_bytes(40_000) + sound[48_192:])
    else:
        path.write_bytes(sound[: len(sound) // 2])
    with pytest.raises(StoreError, match="move it away and begin anew"):
        Store(path)


@pytest.mark.parametrize("length", [0, 15, 17])
def test_a_handle_of_another_length_is_never_stored(store: Store, length: int) -> None:
    with pytest.raises((HandleTaken, StoreError)):
        store.add(Record(b"x" * length, 2, bytes(32), Sealed(b"", b"")))
    assert store.count() == 0


def test_a_closed_store_is_an_error_of_ours(tmp_path: Path) -> None:
    store = Store(tmp_path / "vault.db")
    store.close()
    with pytest.raises(StoreError):
        store.read(bytes(16))
    with pytest.raises(StoreError):
        store.add(record())
    with pytest.raises(StoreError):
        store.erase(bytes(16))


def test_several_threads_lose_and_double_nothing(store: Store) -> None:
    stored = [[record() for _ in range(15)] for _ in range(4)]

    def work(records: list[Record]) -> None:
        for each in records:
            store.add(each)
        for each in records[::2]:
            store.erase(each.handle)

    threads = [threading.Thread(target=work, args=(each,)) for each in stored]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left = [each for records in stored for each in records[1::2]]
    assert store.count() == len(left)
    assert all(store.read(each.handle) == each for each in left)
