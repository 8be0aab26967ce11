"""Whether a pack on disk is, byte for byte, what was installed. Neither ONNX nor a parser of images here.

A pack's `SHA256SUMS` lists every other file, sorted, in the format of `sha256sum`; its first line, a
comment to that tool, holds the hash of the lines below it, so that damage to the list itself is
noticed as such.

This finds damage: a worn disk, a torn copy, a file of another version. It does not find an attacker who
may write to the folder, since he can rewrite the list with the files. What keeps him out is that the
folders of packs belong to root, and that no zone may write to them.
"""

import hashlib
import os
import re
import shlex
import stat
from collections.abc import Collection, Mapping
from pathlib import Path

from appliance.errors import DrempelError

SUMS = "SHA256SUMS"

_HEAD = "# sha256 of the lines below: "
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*)")
_LARGEST_FILE = 1 << 30  # bytes; a pack is some tens of megabytes


class PackDamaged(DrempelError, ValueError):
    """A pack is not what was installed; nothing of it was used."""


def how_to_install(folder: Path) -> str:
    """What to do about a pack that is missing or damaged in this folder, such as `…/packs/edge`.

    It names the folder, since the command's own choice is the user's and not the settings'.
    """
    return f"run drempel models install {folder.name} --packs {shlex.quote(str(folder.parent))}"


def sums_text(sums: Mapping[str, str]) -> str:
    """The text of a `SHA256SUMS` file.

    Args:
        sums: relative path, with forward slashes, to SHA-256 in lower-case hexadecimal.
    """
    lines = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))
    return f"{_HEAD}{hashlib.sha256(lines.encode()).hexdigest()}\n{lines}"


def verify_pack(folder: Path) -> dict[str, str]:
    """Check every file of a pack against its list, and that there is nothing else.

    Args:
        folder: the pack, such as `…/packs/edge`. Symbolic links are refused, not followed.

    Returns:
        Relative path to SHA-256 of every file but the list itself.

    Raises:
        PackDamaged: naming the first file that is wrong, missing or not listed.
    """
    return read_verified(folder, ())[0]


def read_verified(folder: Path, wanted: Collection[str]) -> tuple[dict[str, str], dict[str, bytes]]:
    """Check a pack as `verify_pack` does and return the bytes of some files from the same reading.

    What is returned was hashed in memory: a file that changes on disk afterwards changes nothing.

    Args:
        folder: the pack.
        wanted: relative paths of the files to return.

    Returns:
        The hashes as of `verify_pack`, and the wanted files' bytes.

    Raises:
        PackDamaged: as of `verify_pack`, or a wanted file is not part of the pack.
    """
    present = _files(folder)
    if SUMS not in present:
        raise PackDamaged(f"{folder.name}/{SUMS} is missing: {how_to_install(folder)}")
    sums = _parse(folder, _read(folder, SUMS))
    for name in sorted(present - {SUMS} - set(sums)):
        raise PackDamaged(f"{folder.name}/{name} is not part of the pack: {how_to_install(folder)}")
    for name in sorted(set(sums) | set(wanted)):
        if name not in present or name not in sums:
            raise PackDamaged(f"{folder.name}/{name} is missing: {how_to_install(folder)}")
    contents = {}
    for name, expected in sums.items():
        data = _read(folder, name)
        if hashlib.sha256(data).hexdigest() != expected:
            raise PackDamaged(f"{folder.name}/{name} is not what was installed: {how_to_install(folder)}")
        if name in wanted:
            contents[name] = data
    return sums, contents


def _files(folder: Path) -> set[str]:
    """Relative paths of all regular files; anything that is neither file nor folder is refused."""
    found: set[str] = set()
    pending = [folder]
    if folder.is_symlink() or not folder.is_dir():
        raise PackDamaged(f"{folder.name} is not a pack's folder: {how_to_install(folder)}")
    while pending:
        current = pending.pop()
        entries = list(os.scandir(current))
        if not entries:
            name = current.relative_to(folder).as_posix()
            raise PackDamaged(f"{folder.name}/{name} is an empty folder: {how_to_install(folder)}")
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                found.add(Path(entry.path).relative_to(folder).as_posix())
            else:
                raise PackDamaged(
                    f"{folder.name}/{entry.name} is a link or a device: {how_to_install(folder)}"
                )
    return found


def _read(folder: Path, name: str) -> bytes:
    """A whole file, and never through a link that replaced it meanwhile."""
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise PackDamaged(f"{folder.name}/{name} cannot be read ({error.strerror}): check rights") from error
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_size > _LARGEST_FILE:
            raise PackDamaged(f"{folder.name}/{name} is not a plain file of a pack: {how_to_install(folder)}")
        return file.read()


def _parse(folder: Path, data: bytes) -> dict[str, str]:
    """The list, accepted only if writing it anew gives the same bytes."""
    damaged = PackDamaged(f"{folder.name}/{SUMS} is not what was installed: {how_to_install(folder)}")
    try:
        lines = data.decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise damaged from error
    sums: dict[str, str] = {}
    for line in lines[1:]:
        match = _LINE.fullmatch(line)
        if match is None:
            raise damaged
        sums[match[2]] = match[1]
    if not sums or SUMS in sums or sums_text(sums).encode() != data:
        raise damaged
    return sums
