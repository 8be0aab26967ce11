"""What erasing leaves, whatever it is cut short by."""

import os
import random
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.vault.check import check
from appliance.vault.claims import Vaulted
from appliance.vault.erasing import erase, rotate, rotate_if_older, settle
from appliance.vault.keys import KeyLost
from appliance.vault.opening import open_vault
from appliance.vault.protection import authenticates
from appliance.vault.store import StoreError
from appliance.vault.token import Token
from tests.vault.faces import enrol, face, opens, vault_of

HERE = Path(__file__).parent


def opened(folder: Path) -> Vaulted:
    """The vault in a folder, as a start opens it."""
    store, epochs = open_vault(folder)
    return vault_of(store, epochs)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    folder = tmp_path / "vault"
    folder.mkdir()
    return folder


@pytest.fixture
def vault(folder: Path) -> Iterator[Vaulted]:
    vault = opened(folder)
    yield vault
    vault.store.close()


def again(token: Token) -> Token:
    """The token, to claim with: opening overwrites its secret."""
    return Token(token.handle, bytearray(token.secret))


def keys_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("epoch*"))


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def test_erasing_ends_one_record_and_no_other(vault: Vaulted, folder: Path) -> None:
    gone, *kept = [enrol(vault, face(seed)) for seed in range(6)]
    row = vault.store.read(gone.handle)
    assert row is not None
    key = bytes(vault.epochs.current.key)
    assert erase(vault.epochs, vault.store, [gone.handle]) == 1
    assert vault.store.read(gone.handle) is None
    assert all(opens(vault, token) for token in kept)
    assert keys_in(folder) == ["epoch-2.key"]
    assert vault.store.epoch() == vault.epochs.current.epoch == 2
    assert vault.epochs.current.key != key
    left = everything_in(folder)
    for part in (gone.handle, row.sealed.half, row.sealed.body):
        assert not any(part[start : start + 12] in left for start in range(len(part) - 12))
    # The row as somebody copied it before: no key opens it any more.
    binding = vault.binding(gone.handle, row.tier)
    assert not authenticates(row.sealed, vault.epochs.current, binding)


def test_several_go_in_one_change_of_epoch(vault: Vaulted) -> None:
    tokens = [enrol(vault, face(seed)) for seed in range(4)]
    assert erase(vault.epochs, vault.store, [each.handle for each in tokens[:3]] + [bytes(16)]) == 3
    assert (vault.store.epoch(), vault.store.count()) == (2, 1)


def test_erasing_what_is_not_there_changes_no_epoch(vault: Vaulted, folder: Path) -> None:
    enrol(vault, face(1))
    before = (folder / "epoch-1.key").read_bytes()
    assert erase(vault.epochs, vault.store, [bytes(16)]) == 0
    assert erase(vault.epochs, vault.store, []) == 0
    assert vault.store.epoch() == 1
    assert (folder / "epoch-1.key").read_bytes() == before


def test_a_change_of_epoch_alone_keeps_everyone(vault: Vaulted, folder: Path) -> None:
    tokens = [enrol(vault, face(seed)) for seed in range(3)]
    for _ in range(3):
        rotate(vault.epochs, vault.store)
    assert all(opens(vault, token) for token in tokens)
    assert keys_in(folder) == ["epoch-4.key"]
    assert check(vault.store, vault.epochs).sound


def test_the_epoch_is_rotated_once_its_time_is_over_and_erasures_put_nothing_off(
    vault: Vaulted, folder: Path
) -> None:
    tokens = [enrol(vault, face(seed)) for seed in range(3)]
    assert not rotate_if_older(vault.epochs, vault.store, 99, 100)
    assert rotate_if_older(vault.epochs, vault.store, 130, 100)
    assert vault.store.epoch() == 2
    assert not rotate_if_older(vault.epochs, vault.store, 130, 100)
    erase(vault.epochs, vault.store, [tokens[0].handle])
    vault.store.close()
    vault = opened(folder)
    assert not rotate_if_older(vault.epochs, vault.store, 229, 100)
    assert rotate_if_older(vault.epochs, vault.store, 230, 100)
    assert vault.store.epoch() == 4
    # A clock that lost its age.
    assert rotate_if_older(vault.epochs, vault.store, 5, 100)
    assert not rotate_if_older(vault.epochs, vault.store, 6, 100)
    assert all(opens(vault, token) for token in tokens[1:])
    vault.store.close()


def test_what_somebody_altered_keeps_no_one_from_being_erased(vault: Vaulted) -> None:
    altered, gone, kept = [enrol(vault, face(seed)) for seed in range(3)]
    with vault.store.transaction() as db:
        db.execute("UPDATE half SET half = zeroblob(60) WHERE handle = ?", (altered.handle,))
    assert erase(vault.epochs, vault.store, [gone.handle]) == 1
    assert not opens(vault, altered)
    assert opens(vault, kept)
    assert check(vault.store, vault.epochs).unreadable == 1


def test_attempts_and_erasures_at_once_open_every_record_that_is_left(vault: Vaulted) -> None:
    kept = enrol(vault, face(1))
    others = [enrol(vault, face(2)).handle for _ in range(12)]
    stop = threading.Event()
    failed: list[int] = []

    def attempt() -> None:
        while not stop.is_set():
            if not opens(vault, kept):
                failed.append(vault.epochs.current.epoch)

    threads = [threading.Thread(target=attempt) for _ in range(2)]
    for thread in threads:
        thread.start()
    for handle in others:
        assert erase(vault.epochs, vault.store, [handle]) == 1
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed
    assert vault.store.epoch() == 13


def test_a_reader_keeps_an_erasure_from_being_acknowledged_until_it_is_gone(
    vault: Vaulted, folder: Path
) -> None:
    gone, kept = enrol(vault, face(1)), enrol(vault, face(2))
    reader = sqlite3.connect(folder / "vault.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM record").fetchone()
    with pytest.raises(StoreError, match="erase it again"):
        erase(vault.epochs, vault.store, [gone.handle])
    assert not opens(vault, gone), "the commit stands"
    assert opens(vault, kept)
    with pytest.raises(StoreError, match="erase it again"):
        erase(vault.epochs, vault.store, [gone.handle])
    reader.close()
    assert erase(vault.epochs, vault.store, [gone.handle]) == 0
    assert gone.handle not in everything_in(folder)
    assert keys_in(folder) == ["epoch-2.key"]


@pytest.mark.parametrize("act", ["erase", "rotate"])
def test_a_death_at_any_step_loses_nothing_and_brings_nobody_back(
    folder: Path, tmp_path: Path, act: str
) -> None:
    vault = opened(folder)
    gone, *kept = [enrol(vault, face(seed)) for seed in range(4)]
    old = bytes(vault.epochs.current.key)
    vault.store.close()
    copies = tmp_path / "copies"
    copies.mkdir()
    script = [sys.executable, "-m", "tests.vault.forked_erasure"]
    script += [str(folder), str(copies), gone.handle.hex(), act]
    done = subprocess.run(script, capture_output=True, text=True, check=False, cwd=HERE.parent.parent)
    assert done.returncode == 0, done.stderr
    count = int(done.stdout)
    assert count > 25
    committed: list[bool] = []
    for number in range(count):
        copy = copies / str(number)
        after = opened(copy)
        epoch = after.store.epoch()
        committed.append(epoch == 2)
        assert keys_in(copy) == [f"epoch-{epoch}.key"]
        assert check(after.store, after.epochs).sound
        assert all(opens(after, token) for token in kept)
        assert opens(after, gone) == (act == "rotate" or not committed[-1])
        assert (after.epochs.current.key != old) == committed[-1]
        # The next erasure works, whatever this one left.
        assert erase(after.epochs, after.store, [kept[0].handle]) == 1
        assert opens(after, kept[1])
        after.store.close()
        if committed[-1]:
            shutil.copy(folder / "vault.db", copy / "vault.db")
            with pytest.raises(KeyLost, match="old copy"):
                opened(copy)
    # First all of the old epoch, then all of the new one: there is one commit.
    assert committed == sorted(committed)
    assert committed[-1]
    assert not committed[0]


CHILD = """
import secrets, sys
from pathlib import Path
from tests.vault.faces import enrol, face
from tests.vault.test_erasing import opened
from appliance.vault.erasing import erase, rotate
vault = opened(Path(sys.argv[1]))
print("begun", flush=True)
held = []
while True:
    token = enrol(vault, face(1))
    held.append(token.handle)
    print("enrolled", token.handle.hex(), bytes(token.secret).hex(), flush=True)
    if len(held) > 4:
        handle = held.pop(0)
        print("erasing", handle.hex(), flush=True)
        erase(vault.epochs, vault.store, [handle])
        print("erased", handle.hex(), flush=True)
    rotate(vault.epochs, vault.store)
"""


def test_kills_at_random_moments_lose_nothing_that_was_acknowledged(folder: Path) -> None:
    opened(folder).store.close()
    tokens: dict[bytes, bytes] = {}
    erased: set[bytes] = set()
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    for _ in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CHILD), str(folder)],
            stdout=subprocess.PIPE,
            cwd=HERE.parent.parent,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"begun\n"
        time.sleep(moments.uniform(0.05, 0.35))
        child.send_signal(signal.SIGKILL)
        said = child.stdout.read().decode().splitlines()
        child.stdout.close()
        child.wait()
        unsure: set[bytes] = set()
        for line in said:
            what, *parts = line.split()
            handle, *secret = (bytes.fromhex(part) for part in parts)
            if what == "enrolled":
                tokens[handle] = secret[0]
            elif what == "erasing":
                unsure.add(handle)
            else:
                erased.add(handle)
        after = opened(folder)
        found = check(after.store, after.epochs)
        assert found.sound
        assert keys_in(folder) == [f"epoch-{found.epoch}.key"]
        for handle, secret_part in tokens.items():
            opening = opens(after, Token(handle, bytearray(secret_part)))
            if handle in erased:
                assert not opening
            elif handle not in unsure:
                assert opening
            elif not opening:
                erased.add(handle)
        after.store.close()
    assert tokens


def test_a_database_from_before_an_erasure_is_refused(folder: Path, tmp_path: Path) -> None:
    vault = opened(folder)
    gone, kept = enrol(vault, face(1)), enrol(vault, face(2))
    vault.store.close()
    shutil.copytree(folder, tmp_path / "before")
    vault = opened(folder)
    erase(vault.epochs, vault.store, [gone.handle])
    vault.store.close()
    shutil.copy(folder / "vault.db", tmp_path / "newest.db")

    shutil.copy(tmp_path / "before" / "vault.db", folder / "vault.db")
    with pytest.raises(KeyLost, match=r"an old copy of vault\.db was put back: it is of epoch 1"):
        opened(folder)
    # The advice in the message works.
    shutil.copy(tmp_path / "newest.db", folder / "vault.db")
    vault = opened(folder)
    assert opens(vault, kept)
    assert not opens(vault, gone)
    vault.store.close()

    # With its epoch file along, which is a copy of the whole card, nothing tells it from the real one: the
    # remaining risk that design §4 states. A TPM takes it away: see test_tpm.py.
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "before", folder)
    vault = opened(folder)
    assert opens(vault, gone)
    vault.store.close()


def test_a_new_root_key_begins_a_new_epoch_and_the_old_one_is_destroyed(folder: Path) -> None:
    vault = opened(folder)
    token = enrol(vault, face(1))
    device = vault.epochs.device
    vault.store.close()
    before = (folder / "epoch-1.key").read_bytes()
    (folder / "root.key").rename(folder / "root-old.key")
    (folder / "root.key").write_bytes(secrets.token_bytes(32))
    vault = opened(folder)
    assert not (folder / "root-old.key").exists()
    assert keys_in(folder) == ["epoch-2.key"]
    assert vault.epochs.device == device
    assert opens(vault, token)
    vault.store.close()
    # Once more without it: nothing is left that asks for the old key.
    vault = opened(folder)
    assert opens(vault, token)
    vault.store.close()
    (folder / "epoch-2.key").write_bytes(before)
    with pytest.raises(KeyLost):
        opened(folder)


def test_nothing_is_begun_where_nothing_is_stale(vault: Vaulted) -> None:
    assert settle(vault.epochs, vault.store) is False
    assert vault.store.epoch() == 1


def test_a_vault_that_forgot_its_keys_changes_nothing_any_more(vault: Vaulted, folder: Path) -> None:
    token = enrol(vault, face(1))
    vault.epochs.forget()
    with pytest.raises(StoreError, match="was destroyed"):
        erase(vault.epochs, vault.store, [token.handle])
    assert vault.store.epoch() == 1
    assert keys_in(folder) == ["epoch-1.key"]


def test_what_else_has_to_go_goes_along(vault: Vaulted) -> None:
    token = enrol(vault, face(1))
    seen: list[int] = []

    def also(db: sqlite3.Connection) -> None:
        seen.extend(db.execute("SELECT count(*) FROM record").fetchone())

    erase(vault.epochs, vault.store, [token.handle], also)
    erase(vault.epochs, vault.store, [token.handle], also)
    assert seen == [0]


def test_check_finds_what_was_altered_and_names_nobody(vault: Vaulted) -> None:
    tokens = [enrol(vault, face(seed)) for seed in range(5)]
    found = check(vault.store, vault.epochs)
    assert (found.tiers, found.unreadable, found.epoch, found.sound) == ({1: 0, 2: 5, 3: 0}, 0, 1, True)
    rows = [vault.store.read(each.handle) for each in tokens]
    with vault.store.transaction() as db:
        assert rows[1] is not None
        db.execute("UPDATE half SET half = ? WHERE handle = ?", (rows[1].sealed.half, tokens[0].handle))
        db.execute("DELETE FROM half WHERE handle = ?", (tokens[2].handle,))
        db.execute("UPDATE record SET tier = 3 WHERE handle = ?", (tokens[3].handle,))
        db.execute("UPDATE record SET pack = zeroblob(32) WHERE handle = ?", (tokens[4].handle,))
    found = check(vault.store, vault.epochs)
    assert (found.tiers, found.unreadable, found.sound) == ({1: 0, 2: 4, 3: 1}, 4, False)
    assert not any(each.handle.hex() in repr(found) for each in tokens)


def test_check_and_erasures_at_once_find_nothing_unreadable(
    vault: Vaulted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.vault.store._SLICE", 3)
    handles = [enrol(vault, face(1)).handle for _ in range(20)]
    done = threading.Event()
    found = []

    def look() -> None:
        while not done.is_set():
            found.append(check(vault.store, vault.epochs))

    thread = threading.Thread(target=look)
    thread.start()
    for handle in handles[:10]:
        erase(vault.epochs, vault.store, [handle])
    done.set()
    thread.join()
    assert found
    assert all(each.sound for each in found)


root_only = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 8 MiB: the write-ahead log alone may take four."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=False)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> Path:
    path = folder / "filling"
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
        else:
            pytest.fail("it never filled up")
    return path


@root_only
@pytest.mark.root
def test_a_full_disk_refuses_and_loses_nothing(small_disk: Path) -> None:
    vault = opened(small_disk)
    tokens = [enrol(vault, face(seed)) for seed in range(20)]
    filling = fill(small_disk)

    def enrol_on() -> None:
        while True:
            tokens.append(enrol(vault, face(1)))

    with pytest.raises(StoreError, match="free some space"):
        enrol_on()
    with pytest.raises(StoreError, match="free some space"):
        erase(vault.epochs, vault.store, [tokens[0].handle])
    # An attempt that cannot be counted is not made.
    with pytest.raises(StoreError, match="free some space"):
        opens(vault, tokens[0])
    assert check(vault.store, vault.epochs).sound
    filling.unlink()
    assert all(opens(vault, token) for token in tokens)
    assert erase(vault.epochs, vault.store, [tokens[0].handle]) == 1
    assert all(opens(vault, token) for token in tokens[1:])
    assert keys_in(small_disk) == ["epoch-2.key"]
    vault.store.close()


@root_only
@pytest.mark.root
def test_a_first_start_on_a_full_disk_says_so(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(OSError, match=r"[Nn]o space left|full"):
        opened(small_disk)


@root_only
@pytest.mark.root
def test_a_read_only_disk_refuses_and_loses_nothing(small_disk: Path) -> None:
    vault = opened(small_disk)
    tokens = [enrol(vault, face(seed)) for seed in range(3)]
    vault.store.close()
    subprocess.run(["mount", "-o", "remount,ro", "tmpfs", str(small_disk)], check=True)
    with pytest.raises(StoreError, match="make its disk writable"):
        opened(small_disk)
    subprocess.run(["mount", "-o", "remount,rw", "tmpfs", str(small_disk)], check=True)
    vault = opened(small_disk)
    assert all(opens(vault, token) for token in tokens)
    vault.store.close()


def test_a_key_that_cannot_be_destroyed_is_said_and_destroyed_later(
    vault: Vaulted, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, kept = enrol(vault, face(1)), enrol(vault, face(2))

    def fails(_: Path) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr("appliance.vault.epoch.destroy_file", fails)
        with pytest.raises(StoreError, match="Input/output error"):
            erase(vault.epochs, vault.store, [gone.handle])
        assert not opens(vault, gone)
        assert opens(vault, kept)
        with pytest.raises(StoreError):
            erase(vault.epochs, vault.store, [gone.handle])
    assert keys_in(folder) == ["epoch-1.key", "epoch-2.key"]
    assert erase(vault.epochs, vault.store, [gone.handle]) == 0
    assert keys_in(folder) == ["epoch-2.key"]


def test_an_altered_copy_of_a_record_never_moves_to_another_handle(vault: Vaulted) -> None:
    token = enrol(vault, face(1))
    row = vault.store.read(token.handle)
    assert row is not None
    vault.store.add(replace(row, handle=secrets.token_bytes(16)))
    rotate(vault.epochs, vault.store)
    assert check(vault.store, vault.epochs).unreadable == 1
