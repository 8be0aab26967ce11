"""The end of a device, or its answer to tampering: the keys are destroyed (requirement B7).

What is left of vault.db opens under no key. A marker is written first, so that a power cut in between ends
in a start that destroys the rest and refuses; nothing but an empty folder begins a new device.

On a device the root key is a credential that root alone can remove: a file in the vault's runtime folder
asks root for it. That folder is gone after a power cut, so each refused start asks again.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from appliance.errors import ConfigurationError
from appliance.vault.epoch import key_files
from appliance.vault.keys import CREDENTIAL, OLD_ROOT_FILE, ROOT_FILE, KeyLost, destroy_file, write_durably
from appliance.vault.tpm import Binder

MARKER = "decommissioned"
"""The file beside vault.db that says that this device came to its end."""
REQUEST = "decommission-requested"
"""The file in the vault's runtime folder that asks root to remove the sealed credential."""


class Decommissioned(KeyLost, ConfigurationError):
    """This device was decommissioned: its templates can never be opened again."""


def destroy_keys(folder: Path, runtime: Path | None = None, tcti: str = "") -> None:
    """Destroy every key of the vault in a folder; done twice it is no error.

    A vault that runs forgets its keys first: `Epochs.forget`.

    Args:
        folder: where vault.db and its keys lie.
        runtime: the vault's runtime folder, where root is asked; None where root itself does this.
        tcti: the TPM, as `Binder` takes it; empty for none.

    Raises:
        OSError: something may still be there; every key was tried. Do it again.
    """
    failed: list[OSError] = []

    def attempt(act: Callable[[], None]) -> None:
        try:
            act()
        except OSError as error:
            failed.append(error)

    # A full disk may refuse the marker; the keys go all the same.
    attempt(lambda: write_durably(folder / MARKER, b""))
    files = [*key_files(folder), *(folder / name for name in (ROOT_FILE, OLD_ROOT_FILE, ROOT_FILE + ".new"))]
    for path in files:
        attempt(partial(destroy_file, path))
    if runtime is not None and "CREDENTIALS_DIRECTORY" in os.environ:
        attempt(lambda: write_durably(runtime / REQUEST, b""))
    if tcti:
        # Undefining asks for no value of the index, so no root key is needed. One place each, even and odd.
        binder = Binder(tcti, bytearray(1))
        for epoch in (0, 1):
            attempt(partial(binder.destroy, epoch))
    if failed:
        raise failed[0]


def refuse_if_decommissioned(folder: Path, tcti: str = "", runtime: Path | None = None) -> None:
    """Refuse to start on a device that came to its end, and destroy what was left of its keys.

    Args:
        folder: where vault.db and its keys lie.
        tcti: the TPM, as `Binder` takes it; empty for none.
        runtime: the vault's runtime folder, where root is asked for the credential again.

    Raises:
        Decommissioned: it did.
        OSError: it did, and a key may still be there.
    """
    if not (folder / MARKER).exists():
        return
    destroy_keys(folder, runtime, tcti)
    credential = ""
    if "CREDENTIALS_DIRECTORY" in os.environ:
        credential = (
            f"; its root key is still handed over: as root, remove the sealed credential {CREDENTIAL} (in "
            "/etc/credstore.encrypted, see docs/keys.md)"
        )
    raise Decommissioned(
        f"this device was decommissioned: its templates open no more, and badges go on{credential}; to begin "
        f"as a new device, remove all that is in {folder}, hand over a new root key, and enrol everyone anew"
    )
