"""The epoch in force: what erasing destroys, and what a start makes of what it finds (design §4).

The database's epoch number decides, since it changes in the transaction that erases. The next epoch's file
is `epoch-(n+1).pending` until that transaction is on the disk, and becomes `.key` only then. So a start that
finds a database of number `n` knows what it has before it:

- `epoch-n.key` and `epoch-(n+1).pending`: not committed. The pending key is destroyed.
- `epoch-n.pending`: committed. It becomes `.key`, and earlier ones are destroyed.
- `epoch-(n+1).key`: the database is an old copy. It is refused, and nothing is destroyed.

A commit whose fsync fails is neither. SQLite takes it back in memory, but its frames stand in the write-ahead
log with their commit mark, and whoever opens the file next finds it committed. So no key is destroyed beside
a pending one before a later transaction has overwritten these frames and the log was emptied: `_prove`.
"""

import threading
from pathlib import Path

from appliance.vault.epoch_file import (
    ANEW,
    CONTENT,
    DEVICE,
    FILE_NAME,
    epoch_path,
    epochs_in,
    open_file,
    pending_path,
    seal_file,
    wrapping_key,
)
from appliance.vault.keys import KEY, EpochKey, KeyLost, destroy_file, random_bytes, sync_folder, wipe
from appliance.vault.store import Store, StoreError
from appliance.vault.tpm import Binder

_FIRST_SCHEMA = "epoch.key"
"""The file of records of schema 1, which are gone."""
_BEFORE_THE_TPM = (
    "the card is from before the TPM was used, and nothing was destroyed: put the newest card back. If this "
    "vault never ran with this TPM (a board that was used before, or a power cut when it was first named), "
    "destroy what the TPM holds: tpm2_nvundefine -C o 0x1800d10, and 0x1800d11; then start vault again"
)


class Epochs:
    """The epoch in force: its key, and what is carried from one to the next.

    Whoever reads a record and opens it holds `lock` over both, or the epoch may change in between.
    """

    def __init__(
        self, folder: Path, wrapping: bytearray, content: bytearray, epoch: int, binder: Binder | None
    ) -> None:
        """See `open`. The buffers become this object's own."""
        self.lock = threading.RLock()
        self.folder = folder
        self.stale = False
        self.device = bytes(content[KEY : KEY + DEVICE])
        self.index_key = content[KEY + DEVICE :]
        self.current = EpochKey(content[:KEY], epoch)
        self._wrapping = wrapping
        self._binder = binder
        self._next: EpochKey | None = None
        self._unfinished = True
        wipe(content)

    @classmethod
    def open(
        cls,
        folder: Path,
        root: bytearray,
        store: Store,
        binder: Binder | None = None,
        old: tuple[bytearray, Binder | None] | None = None,
    ) -> "Epochs":
        """The epoch of this database; begun where there is none, finished where a change was cut short.

        `stale` is set where its file is sealed under the old root key, or without the TPM that is there
        now: `erasing.settle` then begins a new epoch, since a copy of that file would still open this one.

        Args:
            folder: where vault.db and its keys lie.
            root: `R`.
            store: the database.
            binder: the TPM, where one is used.
            old: the root key before, and the TPM as it was used with it.

        Raises:
            KeyLost: the key of this database's epoch is not there or does not open; nothing was destroyed.
            StoreError, OSError: it could not be read or written.
        """
        wrapping = wrapping_key(root)
        try:
            known = store.epoch()
            files = epochs_in(folder, "key")
            if known is not None:
                epoch = known
                _check_there(epoch, files, epochs_in(folder, "pending"))
            else:
                # A database that was begun anew takes over the device's id with the newest of its keys.
                epoch = max(files) if files else _begin(folder, wrapping, binder)
            try:
                content, bound = open_file(folder, epoch, wrapping, binder)
                stale = binder is not None and not bound
            except KeyLost:
                if old is None:
                    raise
                old_wrapping = wrapping_key(old[0])
                try:
                    content, bound = open_file(folder, epoch, old_wrapping, old[1])
                finally:
                    wipe(old_wrapping)
                stale = True
            if binder is not None and not bound:
                try:
                    _check_never_bound(folder, epoch, wrapping, binder)
                except BaseException:
                    wipe(content)
                    raise
            epochs = cls(folder, wrapping, content, epoch, binder)
        except BaseException:
            wipe(wrapping)
            raise
        epochs.stale = stale
        if known is None:
            store.begin_epoch(epoch)
        epochs.resolve(store)
        destroy_file(folder / _FIRST_SCHEMA)
        return epochs

    def begin(self) -> EpochKey:
        """The key of the next epoch, its file durable; not in force before `resolve` finds it committed.

        Raises:
            KeyLost, OSError: it could not be written, or the keys were forgotten; the present epoch stays.
            StoreError: what became of the last change is not known yet: call `resolve` first.
        """
        # After `forget` the wrapping key is zeros, which must never seal anything.
        _ = self.current.key
        if self._unfinished:
            raise StoreError("the last change of epoch is not settled yet: try again")
        number = self.current.epoch + 1
        self._unfinished = True
        key = random_bytes(KEY)
        self._next = EpochKey(key, number)
        content = key + self.device + self.index_key
        path = pending_path(self.folder, number)
        try:
            seal_file(path, number, self._wrapping, content, self._binder)
        finally:
            wipe(content)
        return self._next

    def resolve(self, store: Store) -> None:
        """Take the epoch that the database names into force, and destroy every other one.

        Raises:
            KeyLost: the database is of an epoch whose key this process does not hold.
            StoreError: it could not be read; or nobody can tell yet what the disk holds of a change that
                failed. The epoch before stays in force, both keys stay, and no other change may begin.
            OSError: a key may still be there. Whatever it was, call this again.
        """
        with self.lock:
            number = store.epoch()
            # SQLite shows this process a commit once it was synced, and not before.
            committed = self._next is not None and number == self._next.epoch
            if self._next is not None:
                before, after = self.current, self._next
                if committed:
                    self.current, self.stale = after, False
                    before.forget()
                else:
                    after.forget()
                self._next = None
            self._check_number(number)
            if self._unfinished:
                if not committed and epochs_in(self.folder, "pending"):
                    self._check_number(_prove(store))
                self._destroy_others()
                self._unfinished = False

    def forget(self) -> None:
        """Overwrite every key in memory; nothing opens any more."""
        with self.lock:
            for key in (self.current, self._next):
                if key is not None:
                    key.forget()
            wipe(self.index_key)
            wipe(self._wrapping)
            if self._binder is not None:
                self._binder.forget()

    def _check_number(self, number: int | None) -> None:
        """See that the database is of the epoch in force; raises KeyLost."""
        if number != self.current.epoch:
            raise KeyLost("vault.db was replaced under the running vault: start the vault anew")

    def _destroy_others(self) -> None:
        """Make the pending file of the epoch in force, if it is one, its key; destroy what is not of it."""
        path, pending = (path_of(self.folder, self.current.epoch) for path_of in (epoch_path, pending_path))
        if pending.exists() and not path.exists():
            pending.rename(path)
            sync_folder(self.folder)
        if self._binder is not None:
            # The epochs before and after share the other of the two places. Before the files: a pending one
            # explains what the TPM holds, see `_check_never_bound`.
            self._binder.destroy(self.current.epoch + 1)
        for path in sorted(self.folder.iterdir()):
            named = FILE_NAME.fullmatch(path.name)
            if named and path.name != epoch_path(self.folder, self.current.epoch).name:
                destroy_file(path)


def key_files(folder: Path) -> list[Path]:
    """Every file that holds or held the key of an epoch, half-written ones included."""
    names = [path for path in sorted(folder.iterdir()) if FILE_NAME.fullmatch(path.name)]
    return names + [folder / name for name in (_FIRST_SCHEMA, _FIRST_SCHEMA + ".new")]


def _check_there(epoch: int, keys: set[int], pending: set[int]) -> None:
    """Refuse a database that is not of the epoch that its keys are of.

    Raises:
        KeyLost: an old copy of one of them was put back, or the key is gone.
    """
    newest = max(keys | pending, default=0)
    there = epoch in keys | pending
    # A key is named so once its epoch was committed. A pending one may be one epoch ahead of the key.
    if max(keys, default=0) > epoch or newest > epoch + (epoch in keys):
        raise KeyLost(
            f"an old copy of vault.db was put back: it is of epoch {epoch} and its key of epoch {newest}, so "
            "that nobody who was erased since comes back; nothing was destroyed: put the newest vault.db "
            f"back, or {ANEW}"
        )
    if not there:
        found = f"only that of epoch {newest}" if newest else "no key at all"
        raise KeyLost(
            f"the key of vault.db, epoch-{epoch}.key, is gone, and there is {found}: put it back, or {ANEW}"
        )


def _prove(store: Store) -> int | None:
    """The number of the epoch, once it is certain that the file on the disk says it too.

    Raises:
        StoreError: it is not; call this again.
    """
    try:
        with store.transaction() as db:
            # Twice, since SQLite writes no page for an UPDATE to the same value.
            db.execute("UPDATE epoch SET number = number + 1")
            db.execute("UPDATE epoch SET number = number - 1")
        store.empty_log()
    except StoreError as error:
        raise StoreError(
            f"the last change of epoch is not settled yet, and until it is there is no other: {error}"
        ) from error
    return store.epoch()


def _begin(folder: Path, wrapping: bytearray, binder: Binder | None) -> int:
    content = random_bytes(CONTENT)
    try:
        seal_file(epoch_path(folder, 1), 1, wrapping, content, binder)
    finally:
        wipe(content)
    return 1


def _check_never_bound(folder: Path, epoch: int, wrapping: bytearray, binder: Binder) -> None:
    """Refuse a file that is not bound to the TPM where that has secrets of ours: it was bound since.

    Secrets of a first use that was cut short before its commit are no such sign. Its pending file is there
    then, and opens with them.

    Raises:
        KeyLost: an old card was put back, or these secrets are those of another; nothing was destroyed.
    """
    if not binder.in_use():
        return
    try:
        if epoch + 1 in epochs_in(folder, "pending"):
            content, bound = open_file(folder, epoch + 1, wrapping, binder)
            wipe(content)
            if bound:
                return
    except KeyLost as error:
        raise KeyLost(f"{_BEFORE_THE_TPM}: {error}") from error
    raise KeyLost(_BEFORE_THE_TPM)
