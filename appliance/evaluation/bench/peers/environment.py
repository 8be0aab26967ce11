"""The environment of a peer: made once from its lock file, by hash, and used again until that changes.

pip decides where packages come from, by the machine's own configuration; the lock file decides what they
are.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from appliance.errors import ConfigurationError, DrempelError
from appliance.packs.fetch import Progress

Peer = Literal["face_recognition", "insightface"]
PEERS: tuple[Peer, ...] = get_args(Peer)
_HERE = Path(__file__).parent
_STAMP = ".made-from"
_PATIENCE = 1800.0
"""Seconds for pip on a slow line; face_recognition's models are 100 MB."""
_BACKEND = "setuptools"


class PeerFailed(DrempelError, RuntimeError):
    """A peer could not be set up, or did not answer; our own figures are not concerned."""


def lock_file(peer: Peer) -> Path:
    """The peer's lock file, as shipped."""
    return _HERE / f"{peer}.lock"


def peers_folder() -> Path:
    """Where the environments are kept, for the user who calls."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "drempel" / "peers"


def known_peer(name: str) -> Peer:
    """The peer of this name.

    Raises:
        ConfigurationError: there is none.
    """
    for peer in PEERS:
        if peer == name:
            return peer
    raise ConfigurationError(f"there is no peer {name[:40]!r}: choose {' or '.join(PEERS)}")


def interpreter(peer: Peer, progress: Progress, *, into: Path | None = None) -> Path:
    """The Python of the peer's environment, which is made first where it is missing or stale.

    Args:
        peer: whose.
        progress: told in a few words what is being done.
        into: the folder of all peers, instead of the user's cache.

    Raises:
        PeerFailed: pip could not install; its last words are in the message. Nothing half-made is used.
    """
    lock = lock_file(peer)
    folder = (into or peers_folder()) / peer
    python = folder / "bin" / "python"
    wanted = _stamp(lock)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder.parent):
            stamp = folder / _STAMP
            if python.exists() and stamp.is_file() and stamp.read_text("ascii") == wanted:
                return python
            progress(f"making an environment for {peer}, by hash (about half a minute)")
            shutil.rmtree(folder, ignore_errors=True)
            venv.create(folder, with_pip=False, symlinks=True)
            for requirements in _in_order(lock.read_text("utf-8")):
                _install(peer, python, requirements)
            stamp.write_text(wanted, "ascii")
    except OSError as error:
        if isinstance(error, DrempelError):
            raise
        reason = error.strerror or error
        raise PeerFailed(
            f"{folder} cannot be made ({reason}): free some space, or set XDG_CACHE_HOME"
        ) from error
    return python


def _stamp(lock: Path) -> str:
    """What the environment depends on: the lock, and the interpreter below it."""
    about = f"{sys.version}\n{sys.base_prefix}\n".encode()
    return hashlib.sha256(about + lock.read_bytes()).hexdigest()


def _in_order(lock: str) -> list[str]:
    """The lock in the order to install: what builds source packages first, and then the rest.

    face_recognition_models comes as source alone, and building it apart would fetch a setuptools that no
    hash pins.
    """
    pins = [pin for pin in lock.replace("\\\n", " ").splitlines() if "--hash" in pin]
    first = [pin for pin in pins if pin.startswith(f"{_BACKEND}==")]
    rest = [pin for pin in pins if pin not in first]
    return ["\n".join(each) + "\n" for each in (first, rest) if each]


def _install(peer: Peer, python: Path, requirements: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(requirements)
        file.flush()
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-input"]
        options = ["--disable-pip-version-check", "--no-deps", "--require-hashes", "--no-build-isolation"]
        try:
            done = subprocess.run(
                [*pip, *options, "--requirement", file.name],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise PeerFailed(f"{peer} could not be installed: pip took too long; try again") from error
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if "error" in line.lower()]
        reason = said[-1][:200] if said else "pip gave no reason"
        raise PeerFailed(f"{peer} could not be installed ({reason}): check the network and pip's settings")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One environment is made at a time."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
