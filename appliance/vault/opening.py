"""The start of the vault's store and keys, in the one order that is safe."""

from pathlib import Path

from appliance.errors import DrempelError
from appliance.vault.decommission import refuse_if_decommissioned
from appliance.vault.epoch import Epochs
from appliance.vault.erasing import settle
from appliance.vault.keys import KeyLost, load_old_root, load_root, wipe
from appliance.vault.registers import overwrite_registers
from appliance.vault.store import Store
from appliance.vault.tpm import Binder


def open_vault(
    folder: Path, tcti: str = "", runtime: Path | None = None, *, device: bool = False
) -> tuple[Store, Epochs]:
    """The store and the epoch of the vault in a folder, begun where there are none.

    The root keys leave memory here. Whatever an earlier process left unfinished is finished.

    Args:
        folder: where vault.db and its keys lie.
        tcti: the TPM, as `Binder` takes it; empty for none.
        runtime: the vault's runtime folder, where a decommissioned device asks root for its credential.
        device: whether the root key should come as a systemd credential; see `load_root`.

    Raises:
        Decommissioned, KeyLost, StoreError: this vault opens nothing; badges go on.
    """
    try:
        return _opened(folder, tcti, runtime, device=device)
    except DrempelError:
        raise
    except OSError as error:
        raise KeyLost(
            f"vault's keys cannot be read or written: {error.strerror or error}; free some space, or make "
            "the disk writable, and start again"
        ) from error


def _opened(folder: Path, tcti: str, runtime: Path | None, *, device: bool) -> tuple[Store, Epochs]:
    """As `open_vault`; raises OSError as well."""
    refuse_if_decommissioned(folder, tcti, runtime)
    root, old = load_root(folder, device=device), load_old_root(folder)
    binder = Binder(tcti, root) if tcti else None
    old_binder = Binder(tcti, old) if tcti and old else None
    try:
        store = Store(folder / "vault.db")
        try:
            epochs = Epochs.open(folder, root, store, binder, (old, old_binder) if old else None)
            settle(epochs, store)
        except BaseException:
            store.close()
            raise
    finally:
        wipe(root)
        overwrite_registers()
        if old:
            wipe(old)
        if old_binder:
            old_binder.forget()
    return store, epochs
