"""Install a pack: fetch by hash, convert, prove, and put the whole folder in place at once.

The ONNX files' own hashes move with the version of `onnx` that writes them, so what is pinned is the
sources, and what is checked here is that the converted networks answer as the originals do. The
hashes of the result go into the pack's `SHA256SUMS`, which every start checks.
"""

import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import DrempelError
from appliance.packs.card import model_card
from appliance.packs.fetch import Progress, extract, fetch, sync_folder
from appliance.packs.manifest import Manifest, Source, available, load_manifest
from appliance.packs.verify import SUMS, PackDamaged, sums_text, verify_pack

CONVERSION = 2
"""Of the forms into which networks are brought here: a change of them is a new number.

1: CenterFace for multiples of 32, PReLU in three passes. 2: multiples of 16, PReLU in two passes.
"""
_CONVERSION_FILE = "CONVERSION"
_BUILDING = ".building-"
_REPLACED = ".replaced-"
_AT_FDCWD = -100  # relative to the working folder; see renameat2(2)
_RENAME_EXCHANGE = 2


class InstallFailed(DrempelError, OSError):
    """The pack could not be written; what was there before is there still."""


@dataclass(frozen=True, slots=True)
class Installed:
    """A pack found on disk.

    Attributes:
        name: of the pack.
        folder: where it is.
        damage: why it is not usable, or None.
    """

    name: str
    folder: Path
    damage: str | None


def install(name: str, *, into: Path, source_folder: Path | None, progress: Progress) -> Path:
    """Install a pack as the folder `into/name`.

    Args:
        name: of a manifest, such as `edge`.
        into: the folder of all packs; made if need be.
        source_folder: packages by hash, for an installer without internet, or None.
        progress: told in a few words what is being done.

    Returns:
        The pack's folder, whole and verified. A pack that was there before is replaced at the very
        end, in one step; an interrupted install leaves it as it was. (Only where the file system cannot
        exchange two folders, as NFS, there is a moment between two renames in which a kill leaves the
        former pack aside, and the next install puts it back.)

    Raises:
        UnknownPack, ManifestInvalid: there is no such manifest, or it is wrong.
        DownloadFailed, WrongHash: a package could not be had.
        ConversionError: a converted network does not answer as the original does.
        InstallFailed: the folder cannot be written.
    """
    manifest = load_manifest(name)
    try:
        into.mkdir(parents=True, exist_ok=True)
        with _alone(into):
            _clean(into)
            building = Path(tempfile.mkdtemp(prefix=f"{_BUILDING}{name}-", dir=into))
            try:
                _build(manifest, building, source_folder=source_folder, progress=progress)
                _sync(building)
                _put(building, into / name)
            finally:
                # Half of the new pack, or the whole of the former one.
                shutil.rmtree(building, ignore_errors=True)
    except OSError as error:
        if isinstance(error, DrempelError):
            raise
        raise InstallFailed(f"{into} cannot be written ({error.strerror}): check rights and space") from error
    verify_pack(into / name)
    progress(f"pack {name} is installed")
    return into / name


def installed(into: Path) -> list[Installed]:
    """The packs in a folder, by name, each verified."""
    packs = []
    for name in available():
        folder = into / name
        if not folder.exists():
            continue
        try:
            verify_pack(folder)
            packs.append(Installed(name, folder, None))
        except PackDamaged as damage:
            packs.append(Installed(name, folder, str(damage)))
    return packs


def is_current(folder: Path) -> bool:
    """Whether an intact pack was converted by this version of Drempel; an older one may not run any more."""
    try:
        return (folder / _CONVERSION_FILE).read_text(encoding="ascii").strip() == str(CONVERSION)
    except (OSError, UnicodeDecodeError):
        return False


def ensure(name: str, *, into: Path, progress: Progress) -> None:
    """Install a pack unless it is there, intact, and of this version's making.

    Raises:
        DrempelError: it cannot be had; see `install`.
    """
    try:
        verify_pack(into / name)
        sound = is_current(into / name)
    except PackDamaged:
        sound = False
    if not sound:
        install(name, into=into, source_folder=None, progress=progress)


def _build(manifest: Manifest, folder: Path, *, source_folder: Path | None, progress: Progress) -> None:
    """Write all files of the pack into an empty folder."""
    archives = {
        source.archive_sha256: fetch(source, source_folder=source_folder, progress=progress)
        for source in manifest.files
    }
    originals, licences = {}, {}
    for source in manifest.files:
        archive = archives[source.archive_sha256]
        originals[source.id] = extract(archive, source.kind, source.member, source.member_sha256)
        licences[source.id] = extract(archive, source.kind, source.licence_member, source.licence_sha256)

    proofs: dict[str, str] = {}
    progress(f"converting and proving the networks of {manifest.name}")
    files: dict[str, bytes] = {}
    for task, part in (("detector", manifest.detector), ("embedder", manifest.embedder)):
        files[part.file], proofs[task] = _converted(part.conversion, originals[part.source])
    if manifest.liveness is not None:
        files[manifest.liveness.file] = originals[manifest.liveness.source]
        proofs["liveness"] = "carried as published, not converted"
    files["manifest.json"] = insightface_manifest(manifest, files)
    files["MODEL.LICENSE"] = _licence_text(manifest.files, licences)
    files[_CONVERSION_FILE] = f"{CONVERSION}\n".encode()
    files["README.md"] = model_card(manifest, proofs).encode()
    files[SUMS] = sums_text({name: hashlib.sha256(data).hexdigest() for name, data in files.items()}).encode()
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o644)
    folder.chmod(0o755)


def _converted(conversion: str, original: bytes) -> tuple[bytes, str]:
    """A network in the form that the appliance runs, and how near it is to the original."""
    # Here, so that listing and verifying packs need neither onnx nor onnxruntime.
    from appliance.packs import centerface, dlib_resnet, fr_feature  # noqa: PLC0415

    if conversion == "centerface":
        data = centerface.convert_centerface(original)
        off = centerface.prove_centerface(original, data)
        return data, f"at most {off:.1e} px from CenterFace's own decoding"
    if conversion == "fr_feature":
        data = fr_feature.convert_fr_feature(original)
        off = fr_feature.prove_fr_feature(original, data)
        return data, f"at most {off:.1e} of the largest value from the original"
    data = dlib_resnet.convert_dlib_resnet(original)
    return data, f"at most {dlib_resnet.prove_dlib_resnet(data):.1e} from what dlib itself answers"


def insightface_manifest(manifest: Manifest, files: dict[str, bytes]) -> bytes:
    """Insightface's package manifest, version 2: its FaceAnalysis then checks hashes and preprocesses so."""
    detector, embedder = manifest.detector, manifest.embedder
    document = {
        "manifest_version": 2,
        "model_id": f"drempel-{manifest.name}",
        "display_name": manifest.description,
        "license": "MODEL.LICENSE",
        "tasks": {
            "detection": {
                "file": detector.file,
                "sha256": hashlib.sha256(files[detector.file]).hexdigest(),
                "preprocessing": {"mean": detector.mean, "std": detector.std},
            },
            "recognition": {
                "file": embedder.file,
                "sha256": hashlib.sha256(files[embedder.file]).hexdigest(),
                "preprocessing": {"mean": embedder.mean, "std": embedder.std},
                "input_size": [embedder.chip, embedder.chip],
                "embedding_dimension": embedder.dimension,
            },
        },
    }
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _licence_text(sources: list[Source], licences: dict[str, bytes]) -> bytes:
    """The licence texts as published, each once, under the files they are for."""
    texts: dict[bytes, list[Source]] = {}
    for source in sources:
        texts.setdefault(licences[source.id], []).append(source)
    parts = []
    for text, owners in texts.items():
        files = [f"{each.member.rpartition('/')[2]} ({each.package} {each.version})" for each in owners]
        parts.append(f"{', '.join(files)}\n\n".encode() + text.strip() + b"\n")
    return b"\n----------\n\n".join(parts)


@contextmanager
def _alone(into: Path) -> Iterator[None]:
    """One install at a time in a folder of packs."""
    descriptor = os.open(into, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _clean(into: Path) -> None:
    """Finish what an interrupted install left: half-built folders go, a pack moved aside comes back."""
    for path in into.iterdir():
        if path.name.startswith(_BUILDING):
            shutil.rmtree(path)
        elif path.name.startswith(_REPLACED):
            home = into / path.name.removeprefix(_REPLACED)
            if home.exists():
                shutil.rmtree(path)
            else:
                path.rename(home)


def _sync(folder: Path) -> None:
    for current, _, names in os.walk(folder):
        for name in names:
            with (Path(current) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(current))


def _put(building: Path, home: Path) -> None:
    """Move the finished folder into place; a pack that was there takes its place, or is removed."""
    aside = home.parent / f"{_REPLACED}{home.name}"
    if home.exists():
        if _exchange(building, home):
            sync_folder(home.parent)
            return
        home.rename(aside)
    building.rename(home)
    sync_folder(home.parent)
    if aside.exists():
        shutil.rmtree(aside)


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step; False, and nothing done, where that cannot be had."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    # In full, since a wrong type would be read as another: int, path, int, path, unsigned.
    renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    done: int = renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return done == 0
