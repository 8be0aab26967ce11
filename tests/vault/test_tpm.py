"""The epoch bound to a TPM: a copy of the whole card opens nothing."""

import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.vault.claims import Vaulted
from appliance.vault.decommission import Decommissioned, destroy_keys
from appliance.vault.epoch import Epochs
from appliance.vault.erasing import erase, rotate
from appliance.vault.keys import KeyLost
from appliance.vault.opening import open_vault
from appliance.vault.store import Store, StoreError
from appliance.vault.tpm import Binder
from tests.vault.faces import enrol, face, opens, vault_of
from tests.vault.software_tpm import software_tpm

ROOT = b"\x01" * 32


@pytest.fixture
def tcti(tmp_path: Path) -> Iterator[str]:
    with software_tpm(tmp_path / "tpm") as tcti:
        yield tcti


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    folder = tmp_path / "vault"
    folder.mkdir()
    return folder


def opened(folder: Path, tcti: str) -> Vaulted:
    store, epochs = open_vault(folder, tcti)
    return vault_of(store, epochs)


def indices(tcti: str) -> list[str]:
    listed = subprocess.run(
        ["tpm2_getcap", "handles-nv-index", "-T", tcti], capture_output=True, text=True, check=True
    )
    return [line.strip("- ") for line in listed.stdout.splitlines()]


def test_even_and_odd_epochs_have_secrets_of_their_own(tcti: str) -> None:
    binder = Binder(tcti, bytearray(ROOT))
    one, two = binder.begin(1), binder.begin(2)
    assert len(one) == len(two) == 32
    assert any(one)
    assert one != two
    assert (binder.secret(1), binder.secret(2)) == (one, two)
    three = binder.begin(3)
    assert three != one
    assert binder.secret(3) == three
    binder.destroy(2)
    with pytest.raises(KeyLost, match="holds no secret for epoch 2"):
        binder.secret(2)
    binder.destroy(2)
    assert binder.secret(3) == three


def test_another_root_key_does_not_read_the_secret_but_may_destroy_it(tcti: str) -> None:
    Binder(tcti, bytearray(ROOT)).begin(1)
    other = Binder(tcti, bytearray(b"\x02" * 32))
    for _ in range(40):  # and no number of attempts locks the TPM
        with pytest.raises(KeyLost, match="refused nvread"):
            other.secret(1)
    other.destroy(1)
    assert indices(tcti) == []


def test_a_tpm_that_is_not_there_is_said(folder: Path) -> None:
    with pytest.raises(KeyLost, match=r"is \[recognition\] tpm right"):
        open_vault(folder, "swtpm:host=127.0.0.1,port=1")


def test_no_secret_stands_on_a_command_line(tcti: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    start = subprocess.Popen

    def noted(command: list[str], **options: object) -> object:
        lines.append(" ".join(command) + str(options["env"]))
        return start(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", noted)
    binder = Binder(tcti, bytearray(ROOT))
    secret = bytes(binder.begin(1))
    binder.destroy(1)
    assert len(lines) == 7
    for hidden in (secret, bytes(binder._value), ROOT):
        assert not any(hidden.hex() in line.lower() for line in lines)
    assert all(line.startswith("/usr/bin/tpm2_") for line in lines)


def test_a_whole_card_from_before_an_erasure_does_not_open(folder: Path, tmp_path: Path, tcti: str) -> None:
    vault = opened(folder, tcti)
    gone, kept = enrol(vault, face(1)), enrol(vault, face(2))
    vault.store.close()
    shutil.copytree(folder, tmp_path / "before")
    for epoch in (2, 3):
        vault = opened(folder, tcti)
        if epoch == 2:
            assert erase(vault.epochs, vault.store, [gone.handle]) == 1
        else:
            rotate(vault.epochs, vault.store)
        vault.store.close()
        assert len(indices(tcti)) == 1
        # One epoch back its index is undefined; two back, it holds another epoch's secret.
        shutil.copytree(tmp_path / "before", tmp_path / f"rolled-{epoch}")
        with pytest.raises(KeyLost, match=r"old copy of the card|does not open under this root key and TPM"):
            open_vault(tmp_path / f"rolled-{epoch}", tcti)
        # The refusal destroyed nothing: the newest card still opens.
        vault = opened(folder, tcti)
        assert opens(vault, kept)
        vault.store.close()


def test_another_tpm_does_not_open_it(folder: Path, tmp_path: Path, tcti: str) -> None:
    opened(folder, tcti).store.close()
    with software_tpm(tmp_path / "other") as other:
        with pytest.raises(KeyLost, match="holds no secret"):
            open_vault(folder, other)
        Binder(other, bytearray((folder / "root.key").read_bytes())).begin(1)
        with pytest.raises(KeyLost, match="does not open under this root key and TPM"):
            open_vault(folder, other)
    with pytest.raises(KeyLost, match="is bound to a TPM: name it again"):
        open_vault(folder)


def test_a_vault_that_gets_a_tpm_begins_a_new_epoch_in_it(folder: Path, tcti: str) -> None:
    vault = opened(folder, "")
    token = enrol(vault, face(1))
    vault.store.close()
    before = (folder / "epoch-1.key").read_bytes()
    vault = opened(folder, tcti)
    assert opens(vault, token)
    assert vault.store.epoch() == 2
    vault.store.close()
    # Or a copy of the file from before would open it without the TPM.
    (folder / "epoch-2.key").write_bytes(before)
    with pytest.raises(KeyLost):
        open_vault(folder)


def test_a_card_from_before_the_tpm_does_not_open_with_it(folder: Path, tmp_path: Path, tcti: str) -> None:
    vault = opened(folder, "")
    gone, kept = enrol(vault, face(1)), enrol(vault, face(2))
    vault.store.close()
    shutil.copytree(folder, tmp_path / "before")
    for _ in range(2):  # either index holds the secret in force
        vault = opened(folder, tcti)
        erase(vault.epochs, vault.store, [gone.handle])
        rotate(vault.epochs, vault.store)
        vault.store.close()
        shutil.copytree(tmp_path / "before", tmp_path / "put back")
        with pytest.raises(KeyLost, match="from before the TPM was used"):
            open_vault(tmp_path / "put back", tcti)
        # The pending file of the migration, as it was on the newest card, does not help either.
        for each in folder.glob("epoch-*.key"):
            shutil.copy(each, tmp_path / "put back" / "epoch-2.pending")
        with pytest.raises(KeyLost, match="from before the TPM was used"):
            open_vault(tmp_path / "put back", tcti)
        shutil.rmtree(tmp_path / "put back")
    vault = opened(folder, tcti)
    assert opens(vault, kept)
    vault.store.close()


@pytest.mark.parametrize("committed", [False, True])
def test_the_first_use_of_a_tpm_that_was_cut_short_is_finished(
    folder: Path, tcti: str, committed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = opened(folder, "")
    token = enrol(vault, face(1))
    vault.store.close()
    with monkeypatch.context() as cut:

        def dies(store: Any, *arguments: Any) -> int:
            if committed and isinstance(store, Store):
                change(store, *arguments)
            cut.setattr(Epochs, "resolve", dies)
            raise _PowerCut

        change = Store.change_epoch
        cut.setattr(Store, "change_epoch", dies)
        with pytest.raises(_PowerCut):
            open_vault(folder, tcti)
    assert len(indices(tcti)) == 1
    assert sorted(path.name for path in folder.glob("epoch*")) == ["epoch-1.key", "epoch-2.pending"]
    vault = opened(folder, tcti)
    assert vault.store.epoch() == 2
    assert opens(vault, token)
    assert len(indices(tcti)) == 1
    vault.store.close()


class _PowerCut(BaseException):
    pass


def test_a_new_root_key_takes_the_tpm_along(folder: Path, tcti: str) -> None:
    vault = opened(folder, tcti)
    token = enrol(vault, face(1))
    vault.store.close()
    (folder / "root.key").rename(folder / "root-old.key")
    (folder / "root.key").write_bytes(secrets.token_bytes(32))
    for _ in range(2):
        vault = opened(folder, tcti)
        assert opens(vault, token)
        assert vault.store.epoch() == 2
        vault.store.close()
    assert len(indices(tcti)) == 1
    assert not (folder / "root-old.key").exists()


@pytest.mark.parametrize("committed", [False, True])
def test_a_change_that_was_cut_short_is_finished_in_the_tpm_too(
    folder: Path, tcti: str, committed: bool
) -> None:
    vault = opened(folder, tcti)
    vault.epochs.begin()
    if committed:
        vault.store.change_epoch(2, (), lambda each: each.half)
    vault.store.close()
    assert len(indices(tcti)) == 2
    vault = opened(folder, tcti)
    assert vault.store.epoch() == (2 if committed else 1)
    assert len(indices(tcti)) == 1
    assert erase(vault.epochs, vault.store, [enrol(vault, face(1)).handle]) == 1
    vault.store.close()


def test_an_erasure_without_its_tpm_changes_nothing(folder: Path, tmp_path: Path) -> None:
    with software_tpm(tmp_path / "tpm") as tcti:
        vault = opened(folder, tcti)
        token = enrol(vault, face(1))
    with pytest.raises(StoreError, match="the TPM at"):
        erase(vault.epochs, vault.store, [token.handle])
    assert opens(vault, token)
    assert vault.store.epoch() == 1
    vault.store.close()


def test_decommissioning_destroys_what_the_tpm_holds(folder: Path, tcti: str) -> None:
    vault = opened(folder, tcti)
    vault.epochs.begin()
    vault.store.close()
    destroy_keys(folder, tcti=tcti)
    assert indices(tcti) == []
    with pytest.raises(Decommissioned):
        open_vault(folder, tcti)
