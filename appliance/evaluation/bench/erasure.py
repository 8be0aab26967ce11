"""Opening and erasing one record among many: how long it takes, and what it writes.

Erasing changes the epoch, so it rewrites the device half of everyone else; that this costs one disk some
20 MB for 100,000 people, and not the 1 GB that their templates would, is what these figures are to show.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from appliance.evaluation.bench.enrolled import Enrolled, enrolled
from appliance.evaluation.bench.spread import Spread
from appliance.packs.fetch import Progress
from appliance.packs.manifest import load_manifest
from appliance.vault.check import check
from appliance.vault.claims import read_token
from appliance.vault.erasing import erase

PACK = "edge"
COUNT = 100_000
OPENED = 2_000
ERASED = 5
TARGET = 0.5
"""Seconds that erasing one among 100,000 may take: "near 0.5 s" in design §4."""


def measure_erasing(count: int, *, opened: int, erased: int, progress: Progress) -> dict[str, Any]:
    """The figures, under `erase`.

    Raises:
        StoreError: the records do not fit on the disk.
    """
    with tempfile.TemporaryDirectory(prefix="drempel-bench-") as root:
        folder = Path(root) / "vault"
        progress(f"enrolling {count:,}, sealed and stored as any other record")
        with enrolled(count, load_manifest(PACK), folder, progress) as vault:
            progress(f"opening {opened:,}, erasing {erased}")
            opening = [_open_one(vault) for _ in range(opened)]
            erasing = [_erase_one(vault) for _ in range(erased)]
            started = time.perf_counter()
            found = check(vault.vaulted.store, vault.vaulted.epochs)
            checking = time.perf_counter() - started
            size = (folder / "vault.db").stat().st_size
    walls = Spread.of([each["seconds"] for each in erasing])
    return {
        "erase": {
            "count": count,
            "open_ms": Spread.of(opening).as_json(),
            "erase_s": walls.as_json(),
            "erase_cpu_s": Spread.of([each["cpu"] for each in erasing]).as_json(),
            "written_mb": round(Spread.of([each["written"] for each in erasing]).median / 1e6, 1),
            "handed_over_mb": round(Spread.of([each["handed"] for each in erasing]).median / 1e6, 1),
            "database_mb": round(size / 1e6, 1),
            "check_s": round(checking, 2),
            "sound": found.sound,
            "target_s": TARGET,
            "met": walls.median <= TARGET,
        }
    }


def _open_one(vault: Enrolled) -> float:
    """Milliseconds from a code to an opened template."""
    code = vault.codes[int(np.random.default_rng().integers(len(vault.codes)))]
    started = time.perf_counter()
    token = read_token(bytearray(code))
    claimed = None if token is None else vault.vaulted.open(token)
    took = time.perf_counter() - started
    assert claimed is not None, "a record of this vault opens"  # noqa: S101 - or the figure is of nothing
    claimed.forget()
    vault.vaulted.limits.succeeded(claimed.handle)
    return took * 1000


def _erase_one(vault: Enrolled) -> dict[str, float]:
    """Seconds by the clock and on the processor, and bytes written to the disk and handed to the kernel."""
    code = vault.codes.pop(int(np.random.default_rng().integers(len(vault.codes))))
    token = read_token(bytearray(code))
    assert token is not None  # noqa: S101 - it was made here
    before, cpu, started = _written(), time.process_time(), time.perf_counter()
    gone = erase(vault.vaulted.epochs, vault.vaulted.store, [token.handle])
    figures = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}
    assert gone == 1  # noqa: S101 - or the figure is of nothing
    after = _written()
    # What goes to a disk in memory is no write of a block device: both are told.
    return figures | {
        "written": after["write_bytes"] - before["write_bytes"],
        "handed": after["wchar"] - before["wchar"],
    }


def _written() -> dict[str, int]:
    """What this process wrote, by /proc/self/io (proc(5))."""
    lines = Path("/proc/self/io").read_text("ascii").splitlines()
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}
