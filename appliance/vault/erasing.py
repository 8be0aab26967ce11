"""Erasing: the row goes, and so does the key that could open a copy of it (design §4, requirement B6).

1. The next epoch's key is made; its file and the folder are on the disk.
2. One transaction removes the rows, wraps every other device half under the new key, and sets the epoch:
   the commit.
3. The write-ahead log is emptied, and said to be.
4. The old key is destroyed: its file overwritten and removed, its secret in the TPM undefined.
5. Only now is the erasure acknowledged.

Cut short before the commit, the old epoch stays in force and the new key is destroyed; after it, the old
key is. Whoever comes next does that, the next start or the next erasure, by the number in the database.
A half that does not open, because somebody altered it, opens under no key afterwards either: it is kept as
it is, so that `check` finds it, and no damaged row can keep another person from being erased.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from appliance.vault.epoch import Epochs
from appliance.vault.keys import OLD_ROOT_FILE, EpochKey, KeyLost, destroy_file
from appliance.vault.protection import Binding, NotAuthentic, rewrap, terms_of
from appliance.vault.registers import overwrite_registers
from appliance.vault.store import Half, Store, StoreError


def erase(
    epochs: Epochs,
    store: Store,
    handles: Collection[bytes],
    also: Callable[[sqlite3.Connection], None] | None = None,
) -> int:
    """Erase records for good, all in one change of epoch; how many there were.

    Without any the epoch stays, but an erasure that was cut short is finished.

    Args:
        epochs: the keys.
        store: the records.
        handles: whose.
        also: what else has to go in the same transaction, such as the guessing limits of these claims.

    Raises:
        StoreError: not erased, or not for good yet; ask again.
    """
    with epochs.lock, _as_store_errors():
        # What an earlier change left undone is done first.
        epochs.resolve(store)
        present = [handle for handle in handles if store.exists(handle)]
        if present:
            return _change(epochs, store, present, also)
        store.empty_log()
        return 0


def rotate(epochs: Epochs, store: Store) -> None:
    """Change the epoch, and erase nothing.

    Raises:
        StoreError: not changed, or the old key may still be there; ask again.
    """
    with epochs.lock, _as_store_errors():
        epochs.resolve(store)
        _change(epochs, store, (), None)


def rotate_if_older(epochs: Epochs, store: Store, age: int, every: int) -> bool:
    """Rotate where the last time that this did so is `every` seconds ago or more; True when it did.

    A copy of vault.db with its key's file opens as long as its epoch lasts, and brings back what waits,
    counts and rights were then: so no epoch may last long on a device where nobody is ever erased.

    Args:
        epochs: the keys.
        store: the records; the `rotated_at` of the epoch is kept in it, in the transaction that changes it.
        age: seconds, `Clock.age`: it goes on through restarts, and never faster than the time.
        every: seconds. An erasure in between puts nothing off.

    Raises:
        StoreError: as `rotate`.
    """

    def note(db: sqlite3.Connection) -> None:
        db.execute("UPDATE epoch SET rotated_at = ?", (age,))

    with epochs.lock, _as_store_errors():
        epochs.resolve(store)
        with store.transaction() as db:
            (last,) = db.execute("SELECT rotated_at FROM epoch").fetchone()
        if last <= age < last + every:
            return False
        _change(epochs, store, (), note)
        return True


def settle(epochs: Epochs, store: Store) -> bool:
    """Begin a new epoch where the present one's file is stale (see `Epochs.open`); True when one was begun.

    Replacing `R` is this: the new epoch is sealed under the new `R`, and what the old `R` opens is gone.
    In a simulation the old `R` is destroyed then; on a device somebody has to remove its credential.

    Raises:
        StoreError: as `rotate`.
    """
    stale = epochs.stale
    if stale:
        rotate(epochs, store)
    with _as_store_errors():
        destroy_file(epochs.folder / OLD_ROOT_FILE)
    return stale


def _change(
    epochs: Epochs,
    store: Store,
    remove: Collection[bytes],
    also: Callable[[sqlite3.Connection], None] | None,
) -> int:
    old = epochs.current
    try:
        new = epochs.begin()
        return store.change_epoch(new.epoch, remove, _rewrapping(epochs.device, old, new), also)
    finally:
        # Whether it was committed, the database says: one of the two keys is destroyed now.
        epochs.resolve(store)
        overwrite_registers()


def _rewrapping(device: bytes, old: EpochKey, new: EpochKey) -> Callable[[Half], bytes]:
    def anew(each: Half) -> bytes:
        try:
            terms = terms_of(each.lookup, each.rights, each.expires_at)
            binding = Binding(each.handle, device, each.pack, each.tier, each.version, terms)
            return rewrap(each.half, binding, old, new)
        except NotAuthentic:
            return each.half

    return anew


@contextmanager
def _as_store_errors() -> Iterator[None]:
    try:
        yield
    except StoreError:
        raise
    except KeyLost as error:
        raise StoreError(str(error)) from error
    except OSError as error:
        raise StoreError(
            f"the epoch's key cannot be changed: {error.strerror or error}; free some space, or make the "
            "disk writable, and try again"
        ) from error
