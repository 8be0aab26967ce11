import secrets
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.vault.protection import Sealed
from appliance.vault.store import Half, HandleTaken, LookupTaken, Record, Store, StoreError


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
    assert len(executed) == 1502
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


def change(store: Store, *remove: bytes) -> int:
    """The next epoch, with halves that say which one they are of."""
    number = (store.epoch() or 0) + 1
    return store.change_epoch(number, remove, lambda record: b"epoch %d " % number + record.handle)


def test_a_change_of_epoch_removes_and_wraps_every_other_half_anew(store: Store) -> None:
    store.begin_epoch(1)
    stored = [record() for _ in range(40)]
    store.add_all(stored)
    seen: list[Half] = []
    gone = [each.handle for each in stored[:3]]

    def rewrap(each: Half) -> bytes:
        seen.append(each)
        return b"new " + each.handle

    assert store.change_epoch(2, [*gone, bytes(16)], rewrap) == 3
    assert store.epoch() == 2
    assert {each.handle for each in seen} == {each.handle for each in stored[3:]}
    for each in stored[3:]:
        read = store.read(each.handle)
        assert read is not None
        assert read.sealed == Sealed(b"new " + each.handle, each.sealed.body)
    assert store.count() == 37
    assert store.integrity()


def test_more_records_than_one_slice_are_all_wrapped_anew(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.vault.store._SLICE", 7)
    store.begin_epoch(1)
    store.add_all(record() for _ in range(30))
    change(store)
    read = [each for some in store.each() for each in some]
    assert len(read) == 30
    assert all(each.sealed.half == b"epoch 2 " + each.handle for each in read)
    assert [each.handle for each in read] == sorted(each.handle for each in read)


def test_a_change_that_fails_changes_nothing(store: Store) -> None:
    store.begin_epoch(1)
    stored = [record() for _ in range(5)]
    store.add_all(stored)

    def fails(_: Half) -> bytes:
        raise StoreError("no")

    with pytest.raises(StoreError):
        store.change_epoch(2, [stored[0].handle], fails)
    with pytest.raises(StoreError, match="another epoch"):
        store.change_epoch(3, [stored[0].handle], lambda each: each.half)
    assert store.epoch() == 1
    assert all(store.read(each.handle) == each for each in stored)


def test_what_else_has_to_go_goes_in_the_same_transaction(store: Store) -> None:
    store.begin_epoch(1)
    kept = record()
    store.add(kept)
    with store.transaction() as db:
        db.execute("CREATE TABLE beside (claim BLOB)")
        db.execute("INSERT INTO beside VALUES (x'01')")

    def also(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM beside")

    def fails(_: Half) -> bytes:
        raise StoreError("no")

    with pytest.raises(StoreError):
        store.change_epoch(2, [], fails, also)
    with store.transaction() as db:
        assert db.execute("SELECT count(*) FROM beside").fetchone() == (1,)
    store.change_epoch(2, [], lambda each: each.half, also)
    with store.transaction() as db:
        assert db.execute("SELECT count(*) FROM beside").fetchone() == (0,)


def test_an_erased_record_leaves_no_byte_on_the_disk(store: Store, tmp_path: Path) -> None:
    store.begin_epoch(1)
    gone, kept = record(), record()
    store.add(gone)
    store.add(kept)
    assert gone.sealed.body[:64] in raw_bytes(tmp_path)
    assert change(store, gone.handle) == 1
    left = raw_bytes(tmp_path)
    for part in (gone.sealed.body, gone.sealed.half, kept.sealed.half):
        assert not any(part[start : start + 8] in left for start in range(len(part) - 8))
    assert gone.handle not in left
    assert kept.sealed.body[:64] in left
    assert (tmp_path / "vault.db-wal").stat().st_size == 0
    assert change(store, gone.handle) == 0


def test_an_erasure_that_a_reader_keeps_from_the_log_is_not_acknowledged(
    store: Store, tmp_path: Path
) -> None:
    store.begin_epoch(1)
    gone = record()
    store.add(gone)
    other = sqlite3.connect(tmp_path / "vault.db", isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM record").fetchone()
    with pytest.raises(StoreError, match="erase it again"):
        change(store, gone.handle)
    assert store.epoch() == 2, "but it is committed"
    other.close()
    store.empty_log()
    assert gone.handle not in raw_bytes(tmp_path)


def test_a_card_finds_its_record_and_is_one_persons(store: Store) -> None:
    lookup = secrets.token_bytes(32)
    stored = replace(record(), lookup=lookup, rights=b"r" * 122, expires_at=1_800_000_000)
    store.add(stored)
    store.add_all(record() for _ in range(20))
    assert store.read_by_lookup(lookup) == stored
    assert store.records_read == 1
    assert store.read_by_lookup(bytes(32)) is None
    with pytest.raises(LookupTaken):
        store.add(replace(record(), lookup=lookup))
    assert store.count() == 21


def test_rights_are_changed_and_taken_away(store: Store) -> None:
    stored = record()
    store.add(stored)
    store.set_rights(stored.handle, b"r" * 122, b"another half")
    bound = replace(stored.sealed, half=b"another half")
    assert store.read(stored.handle) == replace(stored, rights=b"r" * 122, sealed=bound)


def test_a_record_gives_way_to_the_next_with_the_same_card(store: Store) -> None:
    lookup = secrets.token_bytes(32)
    old, new = replace(record(), lookup=lookup), replace(record(), lookup=lookup)
    store.add(old)

    def fails(_: sqlite3.Connection) -> None:
        raise StoreError("no")

    with pytest.raises(StoreError):
        store.add(new, instead_of=old.handle, also=fails)
    assert store.read_by_lookup(lookup) == old
    store.add(new, instead_of=old.handle)
    assert store.read_by_lookup(lookup) == new
    assert store.read(old.handle) is None


def test_a_transaction_is_whole_or_not_at_all(store: Store) -> None:
    store.begin_epoch(1)

    def change_and_run(statement: str) -> None:
        with store.transaction() as db:
            db.execute("UPDATE epoch SET number = 5")
            db.execute(statement)

    with pytest.raises(StoreError, match="cannot be written"):
        change_and_run("UPDATE nowhere SET number = 6")
    with pytest.raises(sqlite3.IntegrityError):
        change_and_run("INSERT INTO epoch (only_row, number) VALUES (1, 6)")
    assert store.epoch() == 1


def test_records_of_the_first_schema_are_gone_and_leave_no_byte(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vault.db"
    old = sqlite3.connect(path, isolation_level=None)
    old.executescript(
        "CREATE TABLE record (handle BLOB PRIMARY KEY, version INTEGER NOT NULL, tier INTEGER NOT NULL, "
        "pack BLOB NOT NULL, half BLOB NOT NULL, body BLOB NOT NULL) WITHOUT ROWID, STRICT;"
        "CREATE TABLE epoch (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), number INTEGER NOT NULL)"
        " STRICT; INSERT INTO epoch VALUES (1, 1); PRAGMA user_version = 1;"
    )
    bodies = [secrets.token_bytes(2079) for _ in range(30)]
    old.executemany(
        "INSERT INTO record VALUES (?, 1, 2, zeroblob(32), zeroblob(60), ?)",
        [(secrets.token_bytes(16), body) for body in bodies],
    )
    old.close()
    store = Store(path)
    assert (store.count(), store.epoch(), store.integrity()) == (0, None, True)
    left = raw_bytes(tmp_path)
    assert not any(body[start : start + 16] in left for body in bodies for start in range(0, 2000, 16))
    store.close()
    (said,) = capsys.readouterr().err.splitlines()
    assert "30 templates" in said
    assert "enrol anew" in said
    Store(path).close()
    assert not capsys.readouterr().err


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
    db.execute("PRAGMA user_version = 3")
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
    with pytest.raises(StoreError, match="move it away and enrol everyone anew; badges go on") as refused:
        Store(path)
    assert "backup" not in str(refused.value), "no backup holds vault.db"


def test_damage_under_a_running_vault_is_an_error_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"
    first = Store(path)
    first.add_all(record() for _ in range(1500))
    first.close()
    store = Store(path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(secrets.token_bytes(path.stat().st_size - 4096))
    with pytest.raises(StoreError, match=r"vault\.db cannot be read: .* is malformed; move it"):
        list(store.each())
    assert store.integrity() is False
    store.close()


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
        change(store)


def test_several_threads_lose_and_double_nothing(store: Store) -> None:
    store.begin_epoch(1)
    stored = [[record() for _ in range(15)] for _ in range(4)]

    def work(records: list[Record]) -> None:
        for each in records:
            store.add(each)
        for each in records[::2]:
            with store._lock:  # as `Epochs.lock` does in the vault
                change(store, each.handle)

    threads = [threading.Thread(target=work, args=(each,)) for each in stored]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left = {each.handle: each.sealed.body for records in stored for each in records[1::2]}
    assert {each.handle: each.sealed.body for some in store.each() for each in some} == left
