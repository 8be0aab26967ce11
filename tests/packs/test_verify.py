import hashlib
import os
from pathlib import Path

import pytest

from appliance.packs import verify as verifying
from appliance.packs.verify import PackDamaged, read_verified, sums_text, verify_pack

FILES = {
    "README.md": b"# Pack\n",
    "detector.onnx": bytes(range(64)),
    "liveness/liveness.onnx": b"\x00\x01\x02",
    "manifest.json": b'{"manifest_version": 2}\n',
}


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    for name, data in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    (folder / "SHA256SUMS").write_text(sums_text(sums))
    return folder


def test_a_whole_pack_passes_and_its_hashes_are_returned(pack: Path) -> None:
    assert verify_pack(pack) == {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}


def test_the_bytes_returned_are_those_that_were_hashed(pack: Path) -> None:
    _, contents = read_verified(pack, ["detector.onnx"])
    assert contents == {"detector.onnx": FILES["detector.onnx"]}


def test_the_list_is_what_sha256sum_reads(pack: Path) -> None:
    lines = (pack / "SHA256SUMS").read_text().splitlines()
    assert lines[0].startswith("# ")
    assert lines[2] == f"{hashlib.sha256(FILES['detector.onnx']).hexdigest()}  detector.onnx"


@pytest.mark.parametrize("name", [*FILES, "SHA256SUMS"])
@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80])
def test_any_flipped_byte_is_refused_by_the_name_of_its_file(pack: Path, name: str, flip: int) -> None:
    path = pack / name
    whole = path.read_bytes()
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= flip
        path.write_bytes(damaged)
        with pytest.raises(PackDamaged, match=f"small/{name}"):
            verify_pack(pack)


@pytest.mark.parametrize("name", [*FILES, "SHA256SUMS"])
def test_a_shortened_lengthened_or_missing_file_is_refused_by_name(pack: Path, name: str) -> None:
    path = pack / name
    whole = path.read_bytes()
    for data in (whole[:-1], whole + b"\n", b""):
        path.write_bytes(data)
        with pytest.raises(PackDamaged, match=f"small/{name}"):
            verify_pack(pack)
    path.unlink()
    if name == "liveness/liveness.onnx":
        path.parent.rmdir()
    with pytest.raises(PackDamaged, match=f"small/{name}"):
        verify_pack(pack)


@pytest.mark.parametrize("name", ["more.onnx", "liveness/more.onnx", ".hidden"])
def test_a_file_that_is_not_listed_is_refused(pack: Path, name: str) -> None:
    (pack / name).write_bytes(b"more")
    with pytest.raises(PackDamaged, match=f"small/{name}"):
        verify_pack(pack)


def test_the_advice_names_the_folder_that_is_looked_into(tmp_path: Path) -> None:
    packs = tmp_path / "all packs"
    with pytest.raises(PackDamaged, match=f"run drempel models install edge --packs '{packs}'$"):
        verify_pack(packs / "edge")
    (packs / "edge").mkdir(parents=True)
    (packs / "edge" / "more.onnx").write_bytes(b"more")
    with pytest.raises(PackDamaged, match=f"run drempel models install edge --packs '{packs}'$"):
        verify_pack(packs / "edge")


def test_an_empty_folder_is_refused(pack: Path) -> None:
    (pack / "more").mkdir()
    with pytest.raises(PackDamaged, match="more"):
        verify_pack(pack)


def test_no_link_is_followed_even_to_the_right_bytes(pack: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.onnx"
    outside.write_bytes(FILES["detector.onnx"])
    (pack / "detector.onnx").unlink()
    (pack / "detector.onnx").symlink_to(outside)
    with pytest.raises(PackDamaged, match=r"detector\.onnx"):
        verify_pack(pack)


def test_a_linked_folder_is_refused(pack: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(pack)
    with pytest.raises(PackDamaged, match="linked"):
        verify_pack(tmp_path / "linked")


def test_a_pipe_does_not_hang_the_check(pack: Path) -> None:
    (pack / "detector.onnx").unlink()
    os.mkfifo(pack / "detector.onnx")
    with pytest.raises(PackDamaged, match=r"detector\.onnx"):
        verify_pack(pack)


@pytest.mark.parametrize("name", ["../outside.onnx", "/etc/hostname", "a//b", "./README.md", ".."])
def test_a_list_that_points_elsewhere_is_refused(pack: Path, name: str) -> None:
    sums = {each: hashlib.sha256(data).hexdigest() for each, data in FILES.items()}
    (pack / "SHA256SUMS").write_text(sums_text(sums | {name: "0" * 64}))
    with pytest.raises(PackDamaged):
        verify_pack(pack)


def test_a_list_in_another_order_or_form_is_refused(pack: Path) -> None:
    head, *lines = (pack / "SHA256SUMS").read_text().splitlines()
    for text in (
        "\n".join([head, *reversed(lines)]) + "\n",
        "\r\n".join([head, *lines]) + "\r\n",
        "\n".join([head, *lines, lines[-1]]) + "\n",
        "\n".join([head, *lines]),
        "\n".join(lines) + "\n",
    ):
        (pack / "SHA256SUMS").write_bytes(text.encode())
        with pytest.raises(PackDamaged, match="SHA256SUMS"):
            verify_pack(pack)


def test_a_link_put_in_place_during_the_check_is_not_followed(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_files = verifying._files

    def list_then_exchange(folder: Path) -> set[str]:
        found = list_files(folder)
        outside = tmp_path / "outside.onnx"
        outside.write_bytes(FILES["detector.onnx"])
        (folder / "detector.onnx").unlink()
        (folder / "detector.onnx").symlink_to(outside)
        return found

    monkeypatch.setattr(verifying, "_files", list_then_exchange)
    with pytest.raises(PackDamaged, match=r"detector\.onnx"):
        verify_pack(pack)
