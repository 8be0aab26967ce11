import hashlib
import io
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Literal

import pytest

from appliance.packs import fetch as fetching
from appliance.packs.fetch import DownloadFailed, Package, WrongHash, downloads, extract, fetch


def quiet(_: str) -> None:
    return


def wheel(version: str = "1.0") -> bytes:
    """A whole, tiny wheel, the same bytes each time."""
    dist = f"drempel_tiny-{version}.dist-info"
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as packed:
        for name, text in {
            "drempel_tiny/weights.bin": "weights",
            f"{dist}/METADATA": f"Metadata-Version: 2.1\nName: drempel-tiny\nVersion: {version}\n",
            f"{dist}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{dist}/RECORD": "",
        }.items():
            packed.writestr(zipfile.ZipInfo(name), text)
    return data.getvalue()


def pinned(data: bytes) -> Package:
    return Package("pypi", "drempel-tiny", "1.0", "wheel", hashlib.sha256(data).hexdigest())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All that pip can reach: a folder."""
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    (folder / "drempel_tiny-1.0-py3-none-any.whl").write_bytes(wheel())
    return folder


def left_over() -> list[str]:
    return sorted(path.name for path in downloads().iterdir() if path.name.startswith("."))


def test_pip_brings_a_package_by_its_hash(registry: Path) -> None:
    kept = fetch(pinned(wheel()), source_folder=None, progress=quiet)
    assert registry
    assert kept == downloads() / hashlib.sha256(wheel()).hexdigest()
    assert kept.read_bytes() == wheel()
    assert left_over() == []


def test_pip_brings_a_source_package_without_building_or_running_any_of_it(
    registry: Path, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    setup = f"import pathlib\npathlib.Path({str(ran)!r}).touch()\nraise SystemExit(1)\n".encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo("drempel_tiny-1.0/setup.py")
        member.size = len(setup)
        tar.addfile(member, io.BytesIO(setup))
    (registry / "drempel_tiny-1.0-py3-none-any.whl").unlink()
    (registry / "drempel_tiny-1.0.tar.gz").write_bytes(packed.getvalue())
    wanted = Package("pypi", "drempel-tiny", "1.0", "sdist", hashlib.sha256(packed.getvalue()).hexdigest())
    assert fetch(wanted, source_folder=None, progress=quiet).read_bytes() == packed.getvalue()
    assert not ran.exists()
    assert left_over() == []


def test_a_kept_package_serves_when_the_network_is_away(registry: Path) -> None:
    kept = fetch(pinned(wheel()), source_folder=None, progress=quiet)
    (registry / "drempel_tiny-1.0-py3-none-any.whl").unlink()
    said: list[str] = []
    assert fetch(pinned(wheel()), source_folder=None, progress=said.append) == kept
    assert said == []


def test_a_damaged_kept_package_is_noticed_and_fetched_again(registry: Path) -> None:
    kept = fetch(pinned(wheel()), source_folder=None, progress=quiet)
    kept.write_bytes(b"x" + wheel()[1:])
    said: list[str] = []
    assert fetch(pinned(wheel()), source_folder=None, progress=said.append).read_bytes() == wheel()
    assert registry
    assert "damaged" in said[0]


def test_a_damaged_kept_package_without_network_is_refused_and_gone(registry: Path) -> None:
    kept = fetch(pinned(wheel()), source_folder=None, progress=quiet)
    kept.write_bytes(wheel()[:-1])
    (registry / "drempel_tiny-1.0-py3-none-any.whl").unlink()
    with pytest.raises(DownloadFailed, match="--from FOLDER"):
        fetch(pinned(wheel()), source_folder=None, progress=quiet)
    assert not kept.exists()
    assert left_over() == []


def test_a_package_with_another_hash_is_refused_and_nothing_is_kept(registry: Path) -> None:
    (registry / "drempel_tiny-1.0-py3-none-any.whl").write_bytes(wheel() + b" ")
    with pytest.raises(WrongHash, match="drempel-tiny"):
        fetch(pinned(wheel()), source_folder=None, progress=quiet)
    assert list(downloads().iterdir()) == []


def test_an_installer_without_internet_gives_a_folder(tmp_path: Path) -> None:
    usb = tmp_path / "usb"
    usb.mkdir()
    (usb / "another.whl").write_bytes(b"another")
    (usb / "renamed by hand.bin").write_bytes(wheel())
    assert fetch(pinned(wheel()), source_folder=usb, progress=quiet).read_bytes() == wheel()


def test_a_folder_without_the_file_says_which_hash_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match=hashlib.sha256(wheel()).hexdigest()):
        fetch(pinned(wheel()), source_folder=tmp_path, progress=quiet)
    with pytest.raises(DownloadFailed, match="--from"):
        fetch(pinned(wheel()), source_folder=tmp_path / "nowhere", progress=quiet)


def test_a_file_that_changes_while_it_is_kept_leaves_no_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usb = tmp_path / "usb"
    usb.mkdir()
    file = usb / "tiny.whl"
    file.write_bytes(wheel())

    def look_and_change(folder: Path, wanted: fetching.Pinned) -> Path:
        assert (folder, wanted.version) == (usb, "1.0")
        file.write_bytes(wheel()[:40])
        return file

    monkeypatch.setattr(fetching, "_look_up", look_and_change)
    with pytest.raises(WrongHash):
        fetch(pinned(wheel()), source_folder=usb, progress=quiet)
    assert list(downloads().iterdir()) == []


def test_without_npm_and_without_network_the_error_says_what_to_do(
    registry: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    wanted = Package("npm", "drempel-tiny", "1.0", "tgz", "0" * 64)
    said: list[str] = []
    with pytest.raises(DownloadFailed, match="--from FOLDER"):
        fetch(wanted, source_folder=None, progress=said.append)
    assert registry
    assert any("npm" in line for line in said)
    assert list(downloads().iterdir()) == []


def test_leftovers_of_an_interrupted_download_are_cleaned_but_not_those_of_a_running_one(
    registry: Path,
) -> None:
    downloads().mkdir(parents=True)
    old, running = downloads() / ".part-old", downloads() / ".part-running"
    for path in (old, running):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    fetch(pinned(wheel()), source_folder=None, progress=quiet)
    assert registry
    assert left_over() == [".part-running"]


@pytest.mark.parametrize("kind", ["wheel", "tgz"])
def test_a_member_is_taken_by_its_own_hash(tmp_path: Path, kind: Literal["wheel", "tgz"]) -> None:
    archive = tmp_path / "archive"
    if kind == "wheel":
        archive.write_bytes(wheel())
    else:
        with tarfile.open(archive, "w:gz") as tar:
            member = tarfile.TarInfo("drempel_tiny/weights.bin")
            member.size = len(b"weights")
            tar.addfile(member, io.BytesIO(b"weights"))
    right = hashlib.sha256(b"weights").hexdigest()
    assert extract(archive, kind, "drempel_tiny/weights.bin", right) == b"weights"
    with pytest.raises(WrongHash, match=r"weights\.bin"):
        extract(archive, kind, "drempel_tiny/weights.bin", "0" * 64)
    with pytest.raises(WrongHash, match=r"other\.bin"):
        extract(archive, kind, "drempel_tiny/other.bin", right)


def test_a_cut_off_archive_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(wheel()[:100])
    with pytest.raises(WrongHash):
        extract(archive, "wheel", "drempel_tiny/weights.bin", "0" * 64)
    with pytest.raises(WrongHash):
        extract(archive, "tgz", "drempel_tiny/weights.bin", "0" * 64)


def test_an_unwritable_cache_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    with pytest.raises(DownloadFailed):
        fetch(pinned(wheel()), source_folder=None, progress=quiet)
