"""Vault and admin are killed at random moments of what they write: enrol, renew, erase, rotate.

After each kill the zones start again, and a ledger says what must hold: every write that was acknowledged is
there and opens, no record whose erasure was acknowledged is there or opens, and the vault's own check is
clean. Started as `scripts/crash-test`, and by the tests. The zones are real processes, without a door and a
lens: see `bare_zones`. What a power cut does to a disk is not shown here; a killed process's writes are the
kernel's already.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from appliance.link.sockets import Deadline
from tests.system.bare_zones import bare_zones
from tests.system.crash_outcome import Outcome
from tests.system.crashes import Crashes, Tell

SLOWEST = 10.0
"""Seconds for each kill after which a run hangs."""


def crash(seed: int, kills: int, tell: Tell) -> Outcome:
    """One run; where something was wrong its folder is kept."""
    state = Path(tempfile.mkdtemp(prefix="drempel-crash-"))
    outcome = Outcome(seed, other=["the run broke off"])
    try:
        with bare_zones(state, "vault", "admin") as zones:
            outcome = Crashes(zones, seed, tell).run(kills)
    finally:
        if outcome.wrong:
            tell(f"seed {seed}: kept for inquiry: {state}")
        else:
            shutil.rmtree(state, ignore_errors=True)
    return outcome


def crash_side_by_side(seed: int, kills: int, worlds: int, tell: Tell) -> Outcome:
    """Several runs at once, each in a process of its own, taken together."""
    whole, processes = Outcome(seed), []
    for number in range(worlds):
        share = kills // worlds + (number < kills % worlds)
        command = [sys.executable, "-m", "tests.system.crash_test", str(share), "--seed", str(seed + number)]
        processes.append(
            subprocess.Popen([*command, "--worlds", "1", "--json"], stdout=subprocess.PIPE, text=True)
        )
    deadline = Deadline(SLOWEST * (kills // worlds + 1) + 60)
    try:
        for number, process in enumerate(processes):
            try:
                said, _ = process.communicate(timeout=max(1.0, deadline.remaining))
                whole.add(Outcome.from_json(said))
            except subprocess.TimeoutExpired:
                whole.other.append(f"seed {seed + number} did not end in time")
            except ValueError:
                whole.other.append(f"seed {seed + number} broke off with {process.returncode}: see above")
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    if whole.wrong:
        tell(f"repeat with --seed {seed}")
    return whole


def main(arguments: list[str] | None = None) -> int:
    """Crash as the command line says; the exit status: 1 where anything was wrong."""
    parser = argparse.ArgumentParser(
        prog="scripts/crash-test",
        description="Vault and admin are killed with SIGKILL at random moments of enrolling, renewing, "
        "erasing and rotating, and start again. Every write that was acknowledged must be there and open, "
        "nothing whose erasure was acknowledged may be there or open, and the vault's check must be clean. "
        "No camera and no model is needed.",
        epilog="Prints what was done and killed, and last: N kills, N acknowledged, 0 lost, 0 revived, 0 "
        "unreadable. Exit status 1: something was wrong; it is told, and the folder of that run is kept. The "
        "moments of the kills follow the seed; what the machine does meanwhile does not.",
    )
    parser.add_argument("kills", type=int, nargs="?", default=200, help="in all (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="for all that is left to chance (%(default)s)")
    parser.add_argument("--worlds", type=int, default=2, help="vaults side by side (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    options = parser.parse_args(arguments)
    if options.kills < 1 or not 1 <= options.worlds <= options.kills:
        parser.error("at least one kill in each world, and one world")

    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if options.worlds == 1:
        outcome = crash(options.seed, options.kills, tell)
    else:
        tell(f"seed {options.seed}")
        outcome = crash_side_by_side(options.seed, options.kills, options.worlds, tell)
    print(outcome.to_json() if options.json else outcome.report())
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
