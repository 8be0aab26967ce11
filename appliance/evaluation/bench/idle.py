"""What a door costs while nobody comes: memory and processor time of each zone, and whether a camera is open.

Everything is read from /proc, from outside: a zone is not woken by being measured.
"""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.errors import DrempelError
from appliance.packs.fetch import Progress
from appliance.process import ZONES, Zone
from appliance.settings import Settings
from appliance.simulation.door import READY_SOCKETS, Plan, SimulatedDoor, temporary_state

SETTLE = 10.0
"""Seconds after its start in which a door is not at rest yet: leases, the reader's first exchanges."""
LOOK_EVERY = 1.0
"""Seconds between two looks at what lens has open."""
ZONE_CPU = 0.01
ALL_CPU = 0.02
"""What design §9 allows each zone and all of them, as a share of one core."""
TOTAL_PSS_MIB = 330
_KIB_PER_MIB = 1024
_TICK = os.sysconf("SC_CLK_TCK")
_ACCEPTS = 1 << 16
"""`__SO_ACCEPTCON`, among the flags in /proc/net/unix: somebody listens on this socket."""
_VIDEO = ("/dev/video", "/dev/media", "/dev/v4l-subdev")


class NotAtRest(DrempelError, RuntimeError):
    """A zone is not there, may not be looked at, or ended while it was watched."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one process, in MiB: resident, and its proportional share, which counts shared pages once."""

    rss: float
    pss: float


def memory(pid: int) -> Memory:
    """What a process holds at this moment.

    Raises:
        NotAtRest: it is gone, or this is not root: a zone is closed to every other process.
    """
    found = {}
    for line in _read(pid, "smaps_rollup").splitlines():
        name, _, rest = line.partition(":")
        if name in {"Rss", "Pss"}:
            found[name] = int(rest.split()[0]) / _KIB_PER_MIB
    return Memory(found["Rss"], found["Pss"])


def processor_time(pid: int) -> float:
    """The seconds that a process has been running on a processor, all threads together.

    Raises:
        NotAtRest: it is gone.
    """
    # After the name in brackets, which may hold spaces: utime and stime are fields 14 and 15 (proc(5)).
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def camera_handles(pid: int, replay: Path | None) -> int:
    """How many open handles a process has on a camera: on a video device, or on what a replay plays.

    Raises:
        NotAtRest: it is gone, or this is not root: a zone is closed to every other process.
    """
    played = replay.resolve() if replay is not None else None
    count = 0
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed while we looked
                target = entry.readlink()
                count += str(target).startswith(_VIDEO) or played in {target, *target.parents}
    except (FileNotFoundError, PermissionError) as error:
        raise _unreadable(pid) from error
    return count


def zones_of(settings: Settings) -> dict[Zone, int]:
    """The process of each zone of a running door: whoever has its socket open for listening.

    Found in /proc, and not by connecting: that would wake the zones, and a caller who is none of their
    peers would stand in their journals.

    Raises:
        NotAtRest: a zone does not run, or is another user's and this is not root.
    """
    inodes = {}
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        words = line.split(maxsplit=7)
        # An accepted connection bears the listener's name as well; only the listener has this flag.
        if len(words) == 8 and int(words[3], 16) & _ACCEPTS:
            inodes[words[7]] = words[6]
    wanted = {inodes.get(str(settings.socket(READY_SOCKETS[zone]))): zone for zone in ZONES}
    found: dict[Zone, int] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # ended, or another user's
            for entry in (folder / "fd").iterdir():
                zone = wanted.get(_socket_inode(entry))
                if zone is not None:
                    found[zone] = int(folder.name)
    for zone in ZONES:
        if zone not in found:
            raise NotAtRest(
                f"no process that we may look at is {zone}: is the door running, and is this root?"
            )
    return found


def _socket_inode(entry: Path) -> str:
    try:
        target = str(entry.readlink())
    except OSError:
        return ""
    return target.removeprefix("socket:[").removesuffix("]") if target.startswith("socket:[") else ""


def watch(
    pids: Mapping[Zone, int],
    replay: Path | None,
    seconds: float,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Watch four zones for so long, in the shape of design §8 under `idle`.

    Args:
        pids: the process of each zone.
        replay: what lens's replay camera would open, or None for a device.
        seconds: for how long.
        sleep: waits for so many seconds.

    Raises:
        NotAtRest: a zone ended meanwhile, or may not be looked at.
    """
    before = {zone: processor_time(pid) for zone, pid in pids.items()}
    began = time.monotonic()
    handles = camera_handles(pids["lens"], replay)
    while (left := began + seconds - time.monotonic()) > 0:
        sleep(min(left, LOOK_EVERY))
        handles = max(handles, camera_handles(pids["lens"], replay))
    took = time.monotonic() - began
    idle: dict[str, Any] = {}
    for zone, pid in pids.items():
        cpu = (processor_time(pid) - before[zone]) / took
        held = memory(pid)
        idle[zone] = {"rss_mib": round(held.rss, 1), "pss_mib": round(held.pss, 1), "cpu": round(cpu, 5)}
    idle["camera_handles"] = handles
    each = [idle[zone] for zone in pids]
    total = {name: round(sum(zone[name] for zone in each), 5) for name in ("rss_mib", "pss_mib", "cpu")}
    met = {
        "camera_closed": handles == 0,
        "each_zone_cpu": all(zone["cpu"] < ZONE_CPU for zone in each),
        "all_zones_cpu": total["cpu"] < ALL_CPU,
        "total_pss": total["pss_mib"] <= TOTAL_PSS_MIB,
    }
    return {"idle": idle, "total": total, "seconds": round(took, 1), "met": met}


def watch_running(settings: Settings, seconds: float, progress: Progress) -> dict[str, Any]:
    """Watch the door that runs with these settings.

    Raises:
        NotAtRest: see `zones_of` and `watch`.
    """
    pids = zones_of(settings)
    progress(f"watching the running door for {seconds:g} s")
    camera = settings.camera
    return watch(pids, camera.replay if camera.source == "replay" else None, seconds)


def watch_simulated(
    packs: Path, seconds: float, progress: Progress, *, settle: float = SETTLE
) -> dict[str, Any]:
    """Start a simulated door with recognition on and one badge reader, let it settle, and watch it.

    Raises:
        SimulationError: it does not start.
        NotAtRest: a zone ended meanwhile.
    """
    progress("starting a simulated door: four zones, one reader, recognition on")
    with temporary_state() as state, SimulatedDoor(state, Plan(packs=packs)) as door:
        time.sleep(settle)
        progress(f"watching it for {seconds:g} s")
        pids: dict[Zone, int] = {zone: door.pid(zone) for zone in ZONES}
        return watch(pids, door.settings.camera.replay, seconds)


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError) as error:
        raise _unreadable(pid) from error


def _unreadable(pid: int) -> NotAtRest:
    if Path(f"/proc/{pid}").exists():
        return NotAtRest(f"process {pid} lets no other process look into it, as every zone: run this as root")
    return NotAtRest(f"process {pid} ended while it was watched: see its zone's log")
