"""The sealed file: it gives back what went in, or nothing."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.backup import sealing
from appliance.backup.sealing import PIECE, BackupUnreadable, seal, unseal
from appliance.errors import ConfigurationError

PASSPHRASE = bytearray(b"five words are better")
HEADER = 31
SEALED_PIECE = PIECE + 16


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in microseconds, for tests of what stands around it."""
    monkeypatch.setattr(sealing, "MEMORY_KIB", 8)
    monkeypatch.setattr(sealing, "PASSES", 1)


def sealed(path: Path, content: bytes) -> Path:
    seal(bytearray(content), PASSPHRASE, path)
    return path


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 5])
def test_what_went_in_comes_out(tmp_path: Path, size: int) -> None:
    content = bytes(number % 251 for number in range(size))
    path = sealed(tmp_path / "backup", content)
    assert unseal(path, PASSPHRASE) == content
    assert path.stat().st_mode & 0o777 == 0o600
    if size:
        assert content[:40] not in path.read_bytes() or size < 8


def test_the_file_is_what_the_docstring_says(tmp_path: Path) -> None:
    """Opened by hand, with the parameters written out."""
    data = sealed(tmp_path / "backup", b"x" * (PIECE + 3)).read_bytes()
    header, body = data[:HEADER], data[HEADER:]
    assert header[:15] == b"drempel backup\x01"
    derived = Argon2id(salt=header[15:], length=32, iterations=3, lanes=1, memory_cost=65536)
    cipher = AESGCM(derived.derive(bytes(PASSPHRASE)))
    assert cipher.decrypt(bytes(12), body[:SEALED_PIECE], header) == b"x" * PIECE
    assert cipher.decrypt(bytes(10) + b"\x01\x01", body[SEALED_PIECE:], header) == b"xxx"


@pytest.mark.usefixtures("quick")
def test_two_backups_of_one_content_have_nothing_in_common(tmp_path: Path) -> None:
    one = sealed(tmp_path / "one", b"content" * 20).read_bytes()
    other = sealed(tmp_path / "other", b"content" * 20).read_bytes()
    assert one[15:31] != other[15:31]
    assert one[31:] != other[31:]


@pytest.mark.usefixtures("quick")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "backup"
    path.unlink(missing_ok=True)
    content = bytearray(sealed(path, b"y" * (PIECE + 40)).read_bytes())
    place = data.draw(st.one_of(st.integers(0, HEADER + 80), st.integers(0, len(content) - 1)))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(BackupUnreadable):
        unseal(path, PASSPHRASE)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "cut",
    [HEADER, HEADER + 1, HEADER + SEALED_PIECE - 1, HEADER + SEALED_PIECE, HEADER + 2 * SEALED_PIECE, -1],
)
def test_a_file_cut_short_is_refused_even_between_two_pieces(tmp_path: Path, cut: int) -> None:
    path = sealed(tmp_path / "backup", b"z" * (2 * PIECE + 9))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BackupUnreadable, match="does not open"):
        unseal(path, PASSPHRASE)


@pytest.mark.usefixtures("quick")
def test_pieces_that_changed_places_or_were_added_are_refused(tmp_path: Path) -> None:
    path = sealed(tmp_path / "backup", b"a" * PIECE + b"b" * PIECE + b"c")
    data = path.read_bytes()
    one, two, rest = (
        data[HEADER : HEADER + SEALED_PIECE],
        data[HEADER + SEALED_PIECE : HEADER + 2 * SEALED_PIECE],
        data[HEADER + 2 * SEALED_PIECE :],
    )
    for body in (two + one + rest, one + rest, one + two + rest + rest, one + two + rest + b"\0"):
        path.write_bytes(data[:HEADER] + body)
        with pytest.raises(BackupUnreadable, match="does not open"):
            unseal(path, PASSPHRASE)


@pytest.mark.usefixtures("quick")
def test_a_wrong_passphrase_and_a_damaged_file_are_told_in_the_same_words(tmp_path: Path) -> None:
    path = sealed(tmp_path / "backup", b"content")
    with pytest.raises(BackupUnreadable) as wrong:
        unseal(path, bytearray(b"another passphrase"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BackupUnreadable) as damaged:
        unseal(path, PASSPHRASE)
    assert str(wrong.value) == str(damaged.value)


def test_a_short_passphrase_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="five random words"):
        seal(bytearray(b"x"), bytearray(b"hunter2"), tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "backup").write_text("mine")
    with pytest.raises(ConfigurationError, match="name a new file"):
        seal(bytearray(b"x"), PASSPHRASE, tmp_path / "backup")
    assert (tmp_path / "backup").read_text() == "mine"


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("appliance.backup.sealing.os.fsync", full)
    with pytest.raises(ConfigurationError, match="No space left"):
        seal(bytearray(b"x"), PASSPHRASE, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


@pytest.mark.parametrize("content", [b"", b"drempel backup", b"PK\x03\x04" + bytes(99)])
def test_another_file_is_said_to_be_no_backup(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(BackupUnreadable, match="no backup of Drempel"):
        unseal(tmp_path / "file", PASSPHRASE)


def test_a_newer_layout_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"drempel backup\x02" + bytes(99))
    with pytest.raises(BackupUnreadable, match="upgrade"):
        unseal(tmp_path / "file", PASSPHRASE)


def test_a_file_that_is_not_there_is_a_wrong_call(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        unseal(tmp_path / "file", PASSPHRASE)
