import os
import resource
import secrets
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from appliance.vault.keys import (
    CREDENTIAL,
    OLD_CREDENTIAL,
    KeyLost,
    destroy_file,
    load_old_root,
    load_root,
    wipe,
    write_durably,
)


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


def test_the_root_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    first = load_root(tmp_path)
    assert len(first) == 32
    assert any(first)
    assert load_root(tmp_path) == first
    assert (tmp_path / "root.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["root.key"]


def test_two_devices_have_two_keys(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = load_root(tmp_path / "a"), load_root(tmp_path / "b")
    assert one != other


def test_a_new_root_key_is_never_made_beside_an_old_database(tmp_path: Path) -> None:
    (tmp_path / "vault.db").touch()
    with pytest.raises(KeyLost, match=r"put root\.key back, or move vault\.db and"):
        load_root(tmp_path)
    assert not (tmp_path / "root.key").exists()


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_root_key_of_another_length_is_refused_and_kept(tmp_path: Path, length: int) -> None:
    path = tmp_path / "root.key"
    path.write_bytes(b"x" * length)
    with pytest.raises(KeyLost, match="not 32 bytes long"):
        load_root(tmp_path)
    assert path.read_bytes() == b"x" * length


def test_a_credential_of_systemd_is_the_root_key_and_no_file_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    with pytest.raises(KeyLost, match="cannot be read"):
        load_root(tmp_path)
    key = secrets.token_bytes(32)
    (credentials / CREDENTIAL).write_bytes(key)
    assert load_root(tmp_path) == key
    assert not (tmp_path / "root.key").exists()


def test_a_device_whose_root_key_is_a_file_says_so_at_each_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        load_root(tmp_path, device=True)
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        assert "the root key lies in a file beside the database: hand it over as a systemd cred" in said[0]
    load_root(tmp_path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / CREDENTIAL).write_bytes(secrets.token_bytes(32))
    load_root(tmp_path, device=True)
    assert not capsys.readouterr().err


def test_a_file_that_is_destroyed_is_overwritten_first(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"secret" * 2000)
    (tmp_path / "link").hardlink_to(path)
    destroy_file(path)
    assert not path.exists()
    assert (tmp_path / "link").read_bytes() == bytes(12_000)
    destroy_file(path)


def test_no_link_leads_the_destruction_to_another_file(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"kept")
    (tmp_path / "key").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic links"):
        destroy_file(tmp_path / "key")
    assert (tmp_path / "other").read_bytes() == b"kept"


def test_an_old_root_key_is_read_only_where_one_is_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_old_root(tmp_path) is None
    (tmp_path / "root-old.key").write_bytes(b"o" * 32)
    assert load_old_root(tmp_path) == bytearray(b"o" * 32)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert load_old_root(tmp_path) is None
    (tmp_path / OLD_CREDENTIAL).write_bytes(b"p" * 32)
    assert load_old_root(tmp_path) == bytearray(b"p" * 32)


def test_a_durable_write_replaces_whole_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_durably(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("stale", ["file", "link", "open"])
def test_what_lies_where_the_temporary_goes_keeps_nothing_of_its_own(tmp_path: Path, stale: str) -> None:
    path, temporary, other = (tmp_path / name for name in ("key", "key.new", "other"))
    other.write_bytes(b"kept")
    if stale == "link":
        temporary.symlink_to(other)
    else:
        temporary.write_bytes(b"stale and longer")
        temporary.chmod(0o666)
    with other.open("rb") if stale != "open" else temporary.open("rb") as reader:
        write_durably(path, b"new")
        assert b"new" not in reader.read()
    assert path.read_bytes() == b"new"
    assert not path.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600
    assert other.read_bytes() == b"kept"


def test_a_full_disk_leaves_the_old_file_untouched(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    script = f"""
        import resource
        from pathlib import Path
        from appliance.vault.keys import write_durably
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
        try:
            write_durably(Path({str(path)!r}), bytes(100))
        except OSError:
            raise SystemExit(7)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == 7
    assert path.read_bytes() == b"old"
    write_durably(path, b"new")
    assert path.read_bytes() == b"new"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 10


def test_wiping_overwrites_the_buffer_itself() -> None:
    buffer = bytearray(os.urandom(32))
    kept = memoryview(buffer)
    wipe(buffer)
    assert not any(kept)
    part = memoryview(bytearray(b"abcdef"))
    wipe(part[2:4])
    assert bytes(part) == b"ab\0\0ef"
