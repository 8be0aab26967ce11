"""Count the instructions of one frame on aarch64, and estimate what a Raspberry Pi 4 would take for it.

Run as `scripts/count-instructions`, which makes the environment first.

The very code of the door (`lens` for steps 2 to 4 with its gates on quality, `vault.comparison` for step 5)
runs on an official portrait in a frame of 640x480, as a Cortex-A72 under qemu-user, and the executed
instructions are counted. Each figure is a difference: a run in which a step (or all of them) is done eleven
times, less one in which it is done once, by ten. So start, loading and warming are in none of them.

Needs Debian 12 (qemu-user 7.2, gcc, apt); as root it installs what is missing. Debian's Python for arm64 and
the wheels that requirements.lock names for aarch64 are unpacked into the user's cache folder, and used again
while they fit: no binfmt, no maintainer script, and the machine's own apt is not changed.

Exit status: 0 within the limit, 1 above it, 2 when nothing could be counted.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.errors import DrempelError
from appliance.evaluation.bench.aarch64 import CountFailed, Guest, ensure_tools, say
from appliance.evaluation.bench.one_frame import PACK, STEPS
from appliance.packs.install import ensure
from appliance.packs.verify import verify_pack

LIMIT = 200_000_000
"""Instructions a frame, at most (design, numbers to reach)."""
TIMES = 11
"""How often a step is done in the longer of two runs."""
APART = 0.003
"""Two counts of the same that differ by more than this share are no count. At rest they differ by a
millionth, under load by a thousandth (the interpreter takes turns by the clock)."""

# The anchor of the estimate: one network whose time on a Pi 4 is published and whose instructions we counted.
ANCHOR_INSTRUCTIONS = 88e6
"""YuNet at 320x320 under onnxruntime, counted as here by an earlier measurement (its file is not fetched)."""
ANCHOR_S = 0.0544
"""Seconds of YuNet at 320x320 on a Pi 4, one thread of OpenCV (58.7, 54.4 and 54.4 ms for three pictures).
Source: TonyCongqianWang/cv_facedetection_eval, time_comparison_pi.md (Cortex-A72, 1500 MHz)."""
ANCHOR_HZ = 1.5e9
SLOWER, FASTER = 0.7, 1.4
"""The range around the anchor's instructions per cycle: by judgement, see `REASONS`."""
CLOCKS_HZ = (1.5e9, 1.8e9)
"""Of a Pi 4: as first sold, and of later boards (revision 1.4 with a current Raspberry Pi OS)."""

REASONS = (
    "time = instructions / (instructions per cycle x clock), on one core, since lens uses one thread",
    (
        "anchor: YuNet 320x320 takes 54.4 ms on one thread of a Pi 4 at 1.5 GHz (published, with OpenCV) "
        "and 88 million instructions here (counted, with onnxruntime): {anchor:.2f} instructions per cycle"
    ),
    (
        "second look: OpenCV Zoo publishes 5.41 ms for YuNet 160x120 on a Pi 4B with OpenCV's own threads; "
        "88 million by its pixels are 16.5 million, and four threads gave 1.65 x in the anchor's source: 1.2"
    ),
    (
        "range: {slower} to {faster} x the anchor, by judgement, for another engine and other networks; a "
        "Cortex-A72 dispatches 3 a cycle at most, so the end of the range lies at half of what it could do"
    ),
)
WRONG_IF = (
    (
        "OpenCV executes many more or fewer instructions for YuNet than onnxruntime does, or the published "
        "times are of another version of YuNet than the one that was counted"
    ),
    (
        "memory is slower than the anchor saw: 12 MB of weights do not fit into 1 MB of second-level cache, "
        "and other zones use the same memory"
    ),
    "the board is hot or badly powered, and lowers its clock",
    "instructions wait for one another (multiply-accumulates in a chain) more than in YuNet",
)


@dataclass(frozen=True, slots=True)
class Counts:
    """Instructions of one frame.

    Attributes:
        steps: by name, of each step by itself.
        whole: of all steps together, the mean of `wholes`.
        wholes: the same, each counted by runs of its own.
    """

    steps: dict[str, float]
    whole: float
    wholes: tuple[float, ...]

    @property
    def apart(self) -> float:
        """By what share the counts of the whole differ."""
        return (max(self.wholes) - min(self.wholes)) / self.whole

    @property
    def ok(self) -> bool:
        """Whether a frame stays within the limit."""
        return self.whole <= LIMIT


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a frame may take on one core of a Pi 4, in seconds. No measurement."""

    clock: float
    quick: float
    likely: float
    slow: float


def per_time(many: int, once: int, times: int = TIMES) -> float:
    """What doing a thing once more costs, from a run that does it `times` times and one that does it once.

    Raises:
        CountFailed: the longer run counted less.
    """
    if many < once:
        raise CountFailed(f"{times} times took fewer instructions than once ({many} < {once}): run it again")
    return (many - once) / (times - 1)


def counts_of(run: Callable[[Mapping[str, int]], int], progress: Callable[[str], None]) -> Counts:
    """Count each step, and all of them twice.

    Args:
        run: executes a frame with each step as often as it is told, and returns all instructions of that run.
        progress: told in a few words what is being done.

    Raises:
        CountFailed: the two counts of the whole are too far apart.
    """
    once = dict.fromkeys(STEPS, 1)
    many = dict.fromkeys(STEPS, TIMES)
    wholes = []
    bases = []
    for attempt in ("first", "second"):
        progress(f"counting the whole, {attempt} time")
        bases.append(run(once))
        wholes.append(per_time(run(many), bases[-1]))
    steps = {}
    for step in STEPS:
        progress(f"counting {step}")
        steps[step] = per_time(run(once | {step: TIMES}), bases[0])
    counts = Counts(steps, sum(wholes) / len(wholes), tuple(wholes))
    if counts.apart > APART:
        raise CountFailed(f"two counts of the same differ by {counts.apart:.2%}: run it again")
    return counts


def instructions_per_cycle() -> float:
    """What one core of a Pi 4 did in the anchor."""
    return ANCHOR_INSTRUCTIONS / (ANCHOR_S * ANCHOR_HZ)


def estimate(instructions: float, clock: float) -> Estimate:
    """What so many instructions may take on one core of a Pi 4. An estimate; the reasons are `REASONS`.

    Args:
        instructions: of a frame, counted on aarch64.
        clock: of the core, Hz.
    """
    likely = instructions / (instructions_per_cycle() * clock)
    return Estimate(clock, quick=likely / FASTER, likely=likely, slow=likely / SLOWER)


def reasons() -> list[str]:
    """The reasoning of the estimate, a sentence each."""
    numbers = {"anchor": instructions_per_cycle(), "slower": SLOWER, "faster": FASTER}
    return [reason.format(**numbers) for reason in REASONS]


def report(counts: Counts, versions: Mapping[str, str], networks: Mapping[str, str]) -> dict[str, Any]:
    """All that was found, for `--json`. Times are milliseconds.

    Args:
        counts: of a frame.
        versions: of what ran.
        networks: the pack's ONNX files and their SHA-256, since a pack may have been converted otherwise.
    """
    return {
        "frame": "640x480, one face",
        "pack": PACK,
        "networks": dict(networks),
        "steps": {step: round(count) for step, count in counts.steps.items()},
        "whole": round(counts.whole),
        "counted_twice": [round(count) for count in counts.wholes],
        "limit": LIMIT,
        "ok": counts.ok,
        "versions": dict(versions),
        "pi4": {
            "what": "an estimate, not a measurement",
            "instructions_per_cycle": [
                round(instructions_per_cycle() * factor, 2) for factor in (SLOWER, 1, FASTER)
            ],
            "ms": [
                {
                    "clock_ghz": each.clock / 1e9,
                    "quick": round(each.quick * 1000),
                    "likely": round(each.likely * 1000),
                    "slow": round(each.slow * 1000),
                }
                for each in (estimate(counts.whole, clock) for clock in CLOCKS_HZ)
            ],
            "reasons": reasons(),
            "wrong_if": list(WRONG_IF),
        },
    }


def as_text(found: Mapping[str, Any]) -> str:
    """The same for people."""
    lines = [f"Instructions of one frame on aarch64 ({found['frame']}, pack {found['pack']}), one thread"]
    lines += [
        f"  {step:12}{count:>14,}  {count / found['whole']:6.1%}" for step, count in found["steps"].items()
    ]
    first, second = found["counted_twice"]
    lines += [
        f"  {'whole':12}{found['whole']:>14,}  counted twice: {first:,} and {second:,}",
        f"  {'limit':12}{found['limit']:>14,}  {'kept' if found['ok'] else 'NOT KEPT'}",
        "  networks " + ", ".join(f"{name} {sha256[:12]}" for name, sha256 in found["networks"].items()),
        "  with " + ", ".join(f"{name} {version}" for name, version in sorted(found["versions"].items())),
        "",
        "A Raspberry Pi 4, steps 2 to 5 of one frame: an estimate, not a measurement",
    ]
    lines += [
        f"  at {each['clock_ghz']:.1f} GHz about {each['likely']} ms ({each['quick']} to {each['slow']} ms)"
        for each in found["pi4"]["ms"]
    ]
    lines += ["because", *(f"  - {reason}" for reason in found["pi4"]["reasons"])]
    lines += ["wrong if", *(f"  - {reason}" for reason in found["pi4"]["wrong_if"])]
    return "\n".join(lines)


def main() -> int:
    """Read the command line, count, print."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="scripts/count-instructions",
    )
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    parser.add_argument(
        "--packs",
        type=Path,
        default=Path(data) / "drempel" / "packs",
        help="folder of packs; edge is installed there if it is not (default: the user's own)",
    )
    parser.add_argument("--json", action="store_true", help="print an object")
    chosen = parser.parse_args()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "drempel" / "aarch64"
    try:
        ensure_tools()
        packs = chosen.packs.absolute()
        ensure(PACK, into=packs, progress=say)
        files = verify_pack(packs / PACK)
        networks = {name: files[name] for name in ("detector.onnx", "embedder.onnx")}
        guest = Guest(cache.absolute(), packs)
        guest.prepare()
        found = report(counts_of(lambda times: guest.run(times)[0], say), guest.versions(), networks)
    except DrempelError as error:
        say(f"count-instructions: {error}")
        return 2
    print(json.dumps(found, indent=2) if chosen.json else as_text(found))
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
