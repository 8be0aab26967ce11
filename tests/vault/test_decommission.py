"""The end of a device: nothing opens any more, and only an empty folder begins a new one."""

import secrets
from pathlib import Path

import pytest

from appliance.vault.decommission import MARKER, REQUEST, Decommissioned, destroy_keys
from appliance.vault.keys import CREDENTIAL
from appliance.vault.opening import open_vault


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


def begin(folder: Path) -> None:
    store, epochs = open_vault(folder)
    epochs.begin()
    store.close()
    (folder / "root-old.key").write_bytes(secrets.token_bytes(32))
    (folder / "epoch.key").write_bytes(secrets.token_bytes(65))
    (folder / "epoch-3.key.new").write_bytes(secrets.token_bytes(65))
    (folder / "epoch-3.pending.new").write_bytes(secrets.token_bytes(65))


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith("vault.db-")}


def test_no_key_is_left_and_each_was_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "vault"
    folder.mkdir()
    begin(folder)
    keys = [path for path in folder.iterdir() if not path.name.startswith("vault.db")]
    assert len(keys) == 7
    for path in keys:
        (tmp_path / path.name).hardlink_to(path)
    destroy_keys(folder)
    assert left_in(folder) == {MARKER, "vault.db"}
    assert not any(any((tmp_path / path.name).read_bytes()) for path in keys)
    destroy_keys(folder)


def test_a_later_start_refuses_and_only_an_empty_folder_begins_anew(tmp_path: Path) -> None:
    begin(tmp_path)
    destroy_keys(tmp_path)
    with pytest.raises(Decommissioned, match="to begin as a new device, remove all that is in"):
        open_vault(tmp_path)
    assert left_in(tmp_path) == {MARKER, "vault.db"}
    for path in tmp_path.iterdir():
        path.unlink()
    store, epochs = open_vault(tmp_path)
    assert (store.count(), epochs.current.epoch) == (0, 1)
    store.close()


def test_a_power_cut_after_the_marker_is_finished_by_the_next_start(tmp_path: Path) -> None:
    begin(tmp_path)
    (tmp_path / MARKER).touch()
    with pytest.raises(Decommissioned):
        open_vault(tmp_path)
    assert left_in(tmp_path) == {MARKER, "vault.db"}


def test_one_key_that_resists_does_not_save_the_others(tmp_path: Path) -> None:
    begin(tmp_path)
    (tmp_path / "epoch-1.key").unlink()
    (tmp_path / "epoch-1.key").symlink_to("/dev/null")
    with pytest.raises(OSError, match="symbolic"):
        destroy_keys(tmp_path)
    assert left_in(tmp_path) == {MARKER, "vault.db", "epoch-1.key"}


def test_a_disk_that_takes_no_marker_does_not_save_the_keys(tmp_path: Path) -> None:
    begin(tmp_path)
    (tmp_path / f"{MARKER}.new").mkdir()
    with pytest.raises(IsADirectoryError):
        destroy_keys(tmp_path)
    assert left_in(tmp_path) == {"vault.db", f"{MARKER}.new"}


def test_on_a_device_root_is_asked_for_the_credential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / name for name in ("vault", "run", "credentials")]
    for folder in folders:
        folder.mkdir()
    vault, runtime, credentials = folders
    (credentials / CREDENTIAL).write_bytes(secrets.token_bytes(32))
    destroy_keys(vault, runtime)
    assert not (runtime / REQUEST).exists(), "a simulation has no credential"
    (vault / MARKER).unlink()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    open_vault(vault)[0].close()
    destroy_keys(vault, runtime)
    assert (runtime / REQUEST).exists()
    # The runtime folder is in memory: a power cut loses what lies in it.
    for _ in range(2):
        (runtime / REQUEST).unlink()
        with pytest.raises(Decommissioned, match="as root, remove the sealed credential drempel-root-key"):
            open_vault(vault, runtime=runtime)
        assert (runtime / REQUEST).exists()
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(Decommissioned) as refused:
        open_vault(vault, runtime=runtime)
    assert "sealed credential" not in str(refused.value)
