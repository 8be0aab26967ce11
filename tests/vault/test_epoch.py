"""The epoch's file: what opens it, what does not, and what a start makes of what it finds."""

import hashlib
import hmac
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appliance.vault.epoch import Epochs
from appliance.vault.epoch_file import epoch_path, pending_path
from appliance.vault.keys import KeyLost
from appliance.vault.opening import open_vault
from appliance.vault.store import Store

ROOT = b"\x01" * 32


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "vault.db")
    yield store
    store.close()


def root() -> bytearray:
    return bytearray(ROOT)


def keys_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*") if not path.name.startswith("vault"))


def change(store: Store, number: int) -> None:
    store.change_epoch(number, (), lambda each: each.half)


def test_the_first_epoch_is_begun_once_and_opens_again(tmp_path: Path, store: Store) -> None:
    first = Epochs.open(tmp_path, root(), store)
    again = Epochs.open(tmp_path, root(), store)
    assert store.epoch() == again.current.epoch == 1
    assert (again.current.key, again.device, again.index_key) == (
        first.current.key,
        first.device,
        first.index_key,
    )
    assert len({bytes(first.current.key), bytes(first.index_key), ROOT}) == 3
    assert [len(each) for each in (first.current.key, first.device, first.index_key)] == [32, 16, 32]
    path = epoch_path(tmp_path, 1)
    assert path.stat().st_mode & 0o777 == 0o600
    for secret in (first.current.key, first.device, first.index_key):
        assert bytes(secret) not in path.read_bytes()


def test_the_next_epoch_has_a_new_key_on_the_same_device(tmp_path: Path, store: Store) -> None:
    epochs = Epochs.open(tmp_path, root(), store)
    buffer = epochs.current.key
    kept = bytes(buffer)
    new = epochs.begin()
    assert keys_in(tmp_path) == ["epoch-1.key", "epoch-2.pending"]
    change(store, 2)
    epochs.resolve(store)
    assert epochs.current is new
    assert not any(buffer), "it is overwritten in memory too"
    assert keys_in(tmp_path) == ["epoch-2.key"]
    again = Epochs.open(tmp_path, root(), store)
    assert again.current.key == new.key != kept
    assert (again.device, again.index_key) == (epochs.device, epochs.index_key)


def test_an_epoch_that_was_not_committed_is_discarded(tmp_path: Path, store: Store) -> None:
    epochs = Epochs.open(tmp_path, root(), store)
    key = bytes(epochs.current.key)
    new = epochs.begin().key
    (tmp_path / "epoch-2.pending.new").write_bytes(b"half")
    epochs.resolve(store)
    assert epochs.current.key == key
    assert not any(new)
    assert keys_in(tmp_path) == ["epoch-1.key"]


@pytest.mark.parametrize("committed", [False, True])
def test_a_start_discards_or_finishes_by_the_number_in_the_database(
    tmp_path: Path, store: Store, committed: bool
) -> None:
    epochs = Epochs.open(tmp_path, root(), store)
    keys = {1: bytes(epochs.current.key), 2: bytes(epochs.begin().key)}
    if committed:
        change(store, 2)
    again = Epochs.open(tmp_path, root(), store)
    number = 2 if committed else 1
    assert (again.current.epoch, bytes(again.current.key)) == (number, keys[number])
    assert keys_in(tmp_path) == [f"epoch-{number}.key"]


def test_a_first_start_that_was_cut_short_before_the_database_knew(tmp_path: Path, store: Store) -> None:
    first = Epochs.open(tmp_path, root(), store)
    with store.transaction() as db:
        db.execute("DELETE FROM epoch")
    again = Epochs.open(tmp_path, root(), store)
    assert (again.device, again.current.key, store.epoch()) == (first.device, first.current.key, 1)


def test_a_database_that_is_begun_anew_stays_the_same_device(tmp_path: Path, store: Store) -> None:
    first = Epochs.open(tmp_path, root(), store)
    first.begin()
    change(store, 2)
    first.resolve(store)
    store.close()
    (tmp_path / "vault.db").rename(tmp_path / "vault.away")
    anew = Store(tmp_path / "vault.db")
    again = Epochs.open(tmp_path, root(), anew)
    assert (again.device, anew.epoch()) == (first.device, 2)
    anew.close()


@pytest.mark.parametrize(
    ("files", "database", "said"),
    [
        ([2], 1, "an old copy of vault.db was put back"),
        ([1, 2], 1, r"an old copy.*nothing was destroyed: put the newest vault\.db back, or move"),
        ([1, 3], 1, "an old copy of vault.db was put back"),
        ([7], 1, "an old copy of vault.db was put back"),
        ([1], 2, "only that of epoch 1: put it back"),
        ([], 1, "no key at all: put it back"),
    ],
)
def test_a_database_and_keys_of_two_moments_are_refused_and_kept(
    tmp_path: Path, store: Store, files: list[int], database: int, said: str
) -> None:
    Epochs.open(tmp_path, root(), store)
    sound = epoch_path(tmp_path, 1).read_bytes()
    epoch_path(tmp_path, 1).unlink()
    for each in files:
        epoch_path(tmp_path, each).write_bytes(sound)
    with store.transaction() as db:
        db.execute("UPDATE epoch SET number = ?", (database,))
    with pytest.raises(KeyLost, match=said):
        Epochs.open(tmp_path, root(), store)
    assert keys_in(tmp_path) == [f"epoch-{each}.key" for each in files]


@pytest.mark.parametrize("pending", [2, 3])
def test_a_pending_key_that_is_not_of_the_next_epoch_is_refused_and_kept(
    tmp_path: Path, store: Store, pending: int
) -> None:
    Epochs.open(tmp_path, root(), store)
    if pending == 2:
        epoch_path(tmp_path, 1).unlink()
    pending_path(tmp_path, pending).touch()
    before = keys_in(tmp_path)
    with pytest.raises(KeyLost, match="an old copy"):
        Epochs.open(tmp_path, root(), store)
    assert keys_in(tmp_path) == before


def test_a_database_and_its_key_put_back_beside_the_next_key_destroy_nothing(
    tmp_path: Path, store: Store
) -> None:
    epochs = Epochs.open(tmp_path, root(), store)
    old = epoch_path(tmp_path, 1).read_bytes()
    epochs.begin()
    change(store, 2)
    epochs.resolve(store)
    newest = epoch_path(tmp_path, 2).read_bytes()
    with store.transaction() as db:
        db.execute("UPDATE epoch SET number = 1")
    epoch_path(tmp_path, 1).write_bytes(old)
    with pytest.raises(KeyLost, match="an old copy"):
        Epochs.open(tmp_path, root(), store)
    assert epoch_path(tmp_path, 1).read_bytes() == old
    assert epoch_path(tmp_path, 2).read_bytes() == newest


def test_the_key_of_another_epoch_under_its_name_is_refused(tmp_path: Path, store: Store) -> None:
    epochs = Epochs.open(tmp_path, root(), store)
    old = epoch_path(tmp_path, 1).read_bytes()
    epochs.begin()
    change(store, 2)
    epochs.resolve(store)
    epoch_path(tmp_path, 2).write_bytes(old)
    with pytest.raises(KeyLost, match="is the key of epoch 1"):
        Epochs.open(tmp_path, root(), store)


def test_it_does_not_open_under_another_root_key(tmp_path: Path, store: Store) -> None:
    Epochs.open(tmp_path, root(), store)
    with pytest.raises(KeyLost, match="does not open under this root key"):
        Epochs.open(tmp_path, bytearray(secrets.token_bytes(32)), store)
    assert keys_in(tmp_path) == ["epoch-1.key"]


def test_every_flipped_bit_is_refused(tmp_path: Path, store: Store) -> None:
    Epochs.open(tmp_path, root(), store)
    path = epoch_path(tmp_path, 1)
    sound = path.read_bytes()
    for bit in range(8 * len(sound)):
        damaged = bytearray(sound)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(KeyLost):
            Epochs.open(tmp_path, root(), store)
    path.write_bytes(sound)
    Epochs.open(tmp_path, root(), store)


@pytest.mark.parametrize("cut", [0, 1, 50, -1])
def test_a_torn_file_is_refused(tmp_path: Path, store: Store, cut: int) -> None:
    Epochs.open(tmp_path, root(), store)
    path = epoch_path(tmp_path, 1)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(KeyLost, match="does not open"):
        Epochs.open(tmp_path, root(), store)


def test_a_file_under_the_old_root_key_opens_with_it_and_is_stale(tmp_path: Path, store: Store) -> None:
    first = Epochs.open(tmp_path, root(), store)
    replaced = Epochs.open(tmp_path, bytearray(b"\x02" * 32), store, None, (root(), None))
    assert replaced.stale
    assert replaced.current.key == first.current.key
    assert not Epochs.open(tmp_path, root(), store, None, (bytearray(b"\x02" * 32), None)).stale
    with pytest.raises(KeyLost, match="does not open"):
        Epochs.open(tmp_path, bytearray(b"\x02" * 32), store, None, (bytearray(b"\x03" * 32), None))


def test_the_key_of_the_first_schema_is_destroyed(tmp_path: Path, store: Store) -> None:
    (tmp_path / "epoch.key").write_bytes(bytes(65))
    Epochs.open(tmp_path, root(), store)
    assert keys_in(tmp_path) == ["epoch-1.key"]


def test_a_database_that_was_replaced_under_a_running_vault_is_refused(tmp_path: Path, store: Store) -> None:
    epochs = Epochs.open(tmp_path, root(), store)
    with store.transaction() as db:
        db.execute("UPDATE epoch SET number = 9")
    with pytest.raises(KeyLost, match="replaced under the running vault"):
        epochs.resolve(store)


def test_forgetting_overwrites_every_key(tmp_path: Path, store: Store) -> None:
    epochs = Epochs.open(tmp_path, root(), store)
    buffers = [epochs.current.key, epochs.begin().key, epochs.index_key, epochs._wrapping]
    epochs.forget()
    epochs.forget()
    assert not any(any(each) for each in buffers)
    for use in (lambda: epochs.current.key, lambda: epochs.current.cipher, epochs.begin):
        with pytest.raises(KeyLost, match="was destroyed"):
            use()


def test_its_layout_is_what_the_docstring_says(tmp_path: Path, store: Store) -> None:
    """Taken apart again with nothing of ours: RFC 5869 and AES-256-GCM."""

    def hkdf(secret: bytes, info: bytes) -> bytes:
        extracted = hmac.digest(bytes(32), secret, hashlib.sha256)
        return hmac.digest(extracted, info + b"\x01", hashlib.sha256)

    epochs = Epochs.open(tmp_path, root(), store)
    file = epoch_path(tmp_path, 1).read_bytes()
    assert file[:6] == b"\x02\x00\x00\x00\x00\x01"
    key = hkdf(hkdf(ROOT, b"drempel epoch seal v2"), b"drempel epoch file v2")
    content = AESGCM(key).decrypt(file[6:18], file[18:], b"drempel epoch v2" + file[:6])
    assert content == epochs.current.key + epochs.device + epochs.index_key


@pytest.mark.parametrize("there", ["root.key", "epoch-1.key", "nothing"])
def test_a_disk_that_takes_no_key_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    if there == "root.key":
        (tmp_path / "root.key").write_bytes(secrets.token_bytes(32))
        (tmp_path / "epoch-1.key.new").mkdir()
    elif there == "epoch-1.key":
        open_vault(tmp_path)[0].close()
        (tmp_path / "root-old.key").mkdir()
    else:
        (tmp_path / "root.key.new").mkdir()
    with pytest.raises(KeyLost, match=r"cannot be read.*directory") as caught:
        open_vault(tmp_path)
    assert "\n" not in str(caught.value)
