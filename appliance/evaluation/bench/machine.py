"""What was measured on, and how a measurement is kept on one core of it."""

import contextlib
import os
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """The machine in a few words: processor, cores, load at this moment, and what matters of the software."""
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {
            name: version(name)
            for name in ("drempel", "insightface", "onnxruntime", "opencv-python", "numpy", "cryptography")
        },
    }


def in_words(machine: dict[str, Any]) -> str:
    """The machine as one line."""
    return (
        f"{machine['processor']}, {machine['cores']} cores ({machine['architecture']}), "
        f"Python {machine['python']}, load {machine['load']}"
    )


@contextlib.contextmanager
def one_core() -> Iterator[int]:
    """Keep this process, and those that it starts meanwhile, on one core; which one it is.

    So the contestants of a measurement meet the same core, clock and neighbours, and nobody gains by a
    second thread. Ours and the peers' never run at the same time.
    """
    before = os.sched_getaffinity(0)
    core = max(before)
    os.sched_setaffinity(0, {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, before)


def _processor() -> str:
    """The processor's name as Linux gives it; a board's, where the processor has none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return " ".join(value.split())
    with contextlib.suppress(OSError):
        return Path("/proc/device-tree/model").read_text().strip("\0 \n")
    return platform.machine()
