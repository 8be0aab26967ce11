"""A Cortex-A72 under qemu-user, with Debian's Python and the locked wheels, on which a frame is counted.

All of it lies in a cache folder and is used again while it fits. Nothing is installed for it but the tools:
packages are unpacked, no maintainer script runs, and binfmt and the machine's own apt stay as they are.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from appliance.errors import ConfigurationError, DrempelError
from appliance.evaluation.bench.one_frame import STEPS
from appliance.lens.camera.replay import fit
from appliance.packs.portraits import portraits

LEAST_COSINE = 0.99
"""Between the embeddings of this machine and of aarch64: rounding differs, the face does not."""

_ROOT = Path(__file__).parents[3]
_PLUGIN_SOURCE = _ROOT / "scripts" / "insn-count.c"
_LOCK = _ROOT / "requirements.lock"
_PORTRAIT = "obama.jpg"
# Commands, and the Debian packages that bring them.
_TOOLS = {"qemu-aarch64": "qemu-user", "gcc": "gcc libc6-dev", "apt-get": "apt", "dpkg-deb": "dpkg"}
# For the other processor: Python, and what opencv-python and onnxruntime load from the system.
_GUEST_PACKAGES = ("python3", "libgl1", "libglib2.0-0", "libxcb1", "libstdc++6")
_PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
_PATIENCE_S = 1800

# What a Pi 4 says of each of its cores. qemu-user would show this machine's own, and onnxruntime, which
# chooses its kernels by it, falls over an x86 one.
_PI4_CORE = """\
processor\t: {number}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""


class CountFailed(DrempelError, RuntimeError):
    """Nothing was counted, or not what was asked."""


def locked(lock: str, names: Collection[str]) -> str:
    """The lines of a lock file that pin the named packages, with their hashes.

    Args:
        lock: the text of the lock file.
        names: of distributions; a name that is not locked is left out (pip, or this checkout itself).
    """
    wanted = {_canonical(name) for name in names}
    lines = []
    for line in lock.replace("\\\n", " ").splitlines():
        pin = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)==", line)
        if pin is not None and _canonical(pin[1]) in wanted:
            lines.append(" ".join(line.split()))
    return "".join(f"{line}\n" for line in lines)


def missing_tools() -> list[str]:
    """The Debian packages that bring what is not on the PATH."""
    return [package for tool, package in _TOOLS.items() if shutil.which(tool) is None]


def ensure_tools() -> None:
    """Have all tools, by installing what is missing where that is allowed.

    Raises:
        ConfigurationError: something is missing and this is not root, or apt could not install it.
    """
    missing = missing_tools()
    if not missing:
        return
    line = f"apt-get install --yes --no-install-recommends {' '.join(missing)}"
    advice = ConfigurationError(
        f"counting needs {' '.join(missing)} of Debian 12: run {line} as root, then this script again"
    )
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise advice
    say(f"installing {' '.join(missing)}")
    for command in ("apt-get update", line):
        done = subprocess.run(
            [*command.split(), "--quiet=2"],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdout=sys.stderr,
            check=False,
        )
        if done.returncode != 0:
            raise advice


class Guest:
    """The other processor: its files in the cache folder, and runs of one frame on it.

    Args:
        cache: a folder of our own, kept between calls.
        packs: the folder of packs, with `edge` in it.
    """

    def __init__(self, cache: Path, packs: Path) -> None:
        self._packs = packs
        self._cache = cache
        self._system = cache / "system"
        self._wheels = cache / "wheels"
        self._plugin = cache / "plugin"
        self._frame = cache / "frame.npy"
        self._bytecode = cache / "bytecode"
        self._python = Path()

    def prepare(self) -> None:
        """Fetch and unpack what is not there yet, and see that the frame comes out as on this machine.

        Raises:
            CountFailed: something could not be fetched, or the outcome differs.
        """
        self._cache.mkdir(parents=True, exist_ok=True)
        with _alone(self._cache):
            self._save_frame()
            here = self._here()
            if here["faces"] != 1 or set(here["verdicts"]) != {"GOOD"}:
                raise CountFailed(
                    "the portrait does not pass the gates: nothing else would be embedded either"
                )
            source = _PLUGIN_SOURCE.read_bytes()
            _made(self._plugin, hashlib.sha256(source).hexdigest(), _compile_plugin)
            _made(self._system, " ".join(_GUEST_PACKAGES), _unpack_system)
            self._python = self._find_python()
            pins = locked(_LOCK.read_text("utf-8"), _distributions(here["modules"]))
            version = self._python.name.removeprefix("python")
            _made(self._wheels, f"{version}\n{pins}", lambda folder: _unpack_wheels(folder, pins, version))
            say("running one frame on aarch64, and comparing it with this machine")
            # Compiles all modules besides, so that the runs that are counted find them compiled.
            _, there = self.run(dict.fromkeys(STEPS, 1))
        cosine = float(np.dot(here["probe"], there["probe"]))
        if here["verdicts"] != there["verdicts"] or here["faces"] != there["faces"] or cosine < LEAST_COSINE:
            raise CountFailed(
                f"aarch64 does not see what this machine sees (cosine {cosine:.3f}): the count would "
                "be of other work; report it"
            )

    def run(self, times: Mapping[str, int]) -> tuple[int, dict[str, Any]]:
        """Run one frame with each step as often as told.

        Returns:
            The instructions of the whole run, and what it printed.

        Raises:
            CountFailed: the run failed.
        """
        environment = {
            # In one order and in one thread, so that a run takes the same instructions each time.
            "PYTHONHASHSEED": "0",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": f"{self._wheels}:{_ROOT}",
            "PYTHONPYCACHEPREFIX": str(self._bytecode),
            "LC_ALL": "C.UTF-8",
        }
        with tempfile.TemporaryDirectory() as folder:
            count = Path(folder) / "count"
            # Instructions are counted, not time: others may go first.
            command: list[str | Path] = [
                "nice",
                "-n",
                "10",
                "qemu-aarch64",
                "-cpu",
                "cortex-a72",
                "-L",
                self._system,
            ]
            command += ["-plugin", f"{self._plugin / 'insn-count.so'},out={count}"]
            for name, value in environment.items():
                command += ["-E", f"{name}={value}"]
            command += [self._python, "-P", *self._arguments(times)]
            done = subprocess.run(
                command,
                env={"PATH": os.environ["PATH"], "HOME": folder},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0 or not count.is_file():
                last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
                raise CountFailed(
                    f"the run on aarch64 failed ({last}): if QEMU is not Debian 12's, use that one; "
                    f"else remove {self._cache} and try again"
                )
            return int(count.read_text()), json.loads(done.stdout)

    def versions(self) -> dict[str, str]:
        """What was run, for the record."""
        found = {"python": self._python.name.removeprefix("python"), "cpu": "cortex-a72"}
        said = subprocess.run(
            ["qemu-aarch64", "--version"], capture_output=True, text=True, check=True
        ).stdout
        found["qemu"] = said.split()[2]
        for each in importlib.metadata.distributions(path=[str(self._wheels)]):
            if each.name in {"numpy", "onnxruntime", "opencv-python", "insightface"}:
                found[each.name] = each.version
        return found

    def _here(self) -> dict[str, Any]:
        """The same frame on this machine."""
        done = subprocess.run(
            [sys.executable, "-P", *self._arguments(dict.fromkeys(STEPS, 1))],
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise CountFailed(f"one frame could not be run on this machine: {last}")
        outcome: dict[str, Any] = json.loads(done.stdout)
        return outcome

    def _arguments(self, times: Mapping[str, int]) -> list[str]:
        numbers = [str(times[step]) for step in STEPS]
        return ["-m", "appliance.evaluation.bench.one_frame", str(self._packs), str(self._frame), *numbers]

    def _save_frame(self) -> None:
        picture = cv2.imread(str(portraits(say)[_PORTRAIT]))
        np.save(self._frame, fit(np.asarray(picture, dtype=np.uint8), 640, 480))

    def _find_python(self) -> Path:
        # A file and not `python3`, whose link is made absolute and would lead out of the folder.
        for found in (self._system / "usr/bin").glob("python3.[0-9][0-9]"):
            return found
        raise CountFailed(f"Debian's Python is not in {self._system}: remove that folder, and try again")


def _made(folder: Path, key: str, make: Callable[[Path], None]) -> None:
    """Have `folder`, made by `make` for this `key`: whole, or not at all."""
    stamp = folder / ".made-for"
    if stamp.is_file() and stamp.read_text("utf-8") == key:
        return
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        make(building)
        (building / stamp.name).write_text(key, "utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One call at a time fills the cache."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _compile_plugin(folder: Path) -> None:
    target = folder / "insn-count.so"
    _call(
        ["gcc", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", str(target), str(_PLUGIN_SOURCE)],
        "the plugin does not compile: install gcc and libc6-dev of Debian 12",
    )


def _unpack_system(folder: Path) -> None:
    """Debian's packages for arm64, from where this machine's apt gets its own, unpacked and no more."""
    say("fetching Debian's Python for arm64 (60 MB)")
    advice = "Debian's arm64 packages could not be fetched: is there internet, and does apt-get update work?"
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".apt-") as name:
        apt = Path(name)
        for each in ("state/lists/partial", "cache/archives/partial"):
            (apt / each).mkdir(parents=True)
        # Nothing is installed in this private state: so all that is needed is fetched.
        (apt / "status").touch()
        options = {
            "Dir::State": apt / "state",
            "Dir::State::status": apt / "status",
            "Dir::Cache": apt / "cache",
            "APT::Architecture": "arm64",
            "APT::Architectures": "arm64",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "Debug::NoLocking": "true",
        }
        apt_get = ["apt-get", *(word for pair in options.items() for word in ("-o", f"{pair[0]}={pair[1]}"))]
        _call([*apt_get, "update", "--quiet=2"], advice)
        _call([*apt_get, "install", "--download-only", "--yes", "--quiet=2", *_GUEST_PACKAGES], advice)
        for package in sorted((apt / "cache/archives").glob("*.deb")):
            _call(["dpkg-deb", "--extract", str(package), str(folder)], advice)
    # qemu-user looks here before it looks at this machine's own.
    (folder / "proc").mkdir(exist_ok=True)
    (folder / "proc/cpuinfo").write_text("".join(_PI4_CORE.format(number=number) for number in range(4)))
    cores = folder / "sys/devices/system/cpu"
    cores.mkdir(parents=True, exist_ok=True)
    for each in ("possible", "present"):
        (cores / each).write_text("0-3\n")


def _unpack_wheels(folder: Path, pins: str, python: str) -> None:
    """Exactly the locked wheels, for the other processor."""
    say(f"fetching {len(pins.splitlines())} wheels for aarch64 as requirements.lock has them (some 400 MB)")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(pins)
        requirements.flush()
        _call(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
                *("--no-input", "--target", str(folder), "--no-compile", f"--python-version={python}"),
                *(f"--platform={each}_aarch64" for each in _PLATFORMS),
                *("--implementation=cp", "--only-binary=:all:", "--no-deps", "--require-hashes"),
                *("--requirement", requirements.name),
            ],
            "the wheels for aarch64 could not be fetched: is there internet, or a wheelhouse for pip?",
        )


def _call(command: Sequence[str], advice: str) -> None:
    """Run a tool; what it said goes to standard error when it failed."""
    try:
        subprocess.run(
            command, check=True, timeout=_PATIENCE_S, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except subprocess.CalledProcessError as error:
        say(error.output.decode(errors="replace").rstrip())
        raise CountFailed(advice) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CountFailed(advice) from error


def _distributions(modules: Collection[str]) -> set[str]:
    """The distributions in this environment that hold the named modules."""
    holders = importlib.metadata.packages_distributions()
    return {name for module in modules for name in holders.get(module, [])}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def say(text: str) -> None:
    """Tell what is being done, on standard error."""
    print(text, file=sys.stderr, flush=True)
