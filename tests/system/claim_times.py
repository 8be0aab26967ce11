"""Do the times of a refusal tell its reason? Claims of every kind, in random order, before real vaults.

Started as `scripts/claim-times`, and by the tests. See `claims_world` for what is seen of a claim.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from appliance.link.messages import Guidance
from appliance.link.sockets import Deadline
from tests.system.claim_work import Work, work_of_numbers, work_of_tokens
from tests.system.claims_world import ASKED, MEASURES, OPENED, OTHERS, Seen, hold_up_all
from tests.system.separable import CLOSE, Apart, Times, apart

COMMAND = (sys.executable, "-m", "tests.system.claim_times")
ALL = ASKED + OTHERS
SLOWEST = 3.0
"""Seconds for each claim after which a run hangs."""
REFUSED = [Guidance.SHOW_TOKEN, Guidance.LOOK_HERE, Guidance.USE_BADGE]
MATCHED = [Guidance.SHOW_TOKEN, Guidance.LOOK_HERE]


def wrong(outcomes: Sequence[Seen]) -> list[str]:
    """What vault did otherwise than it should, beside the times."""
    found = []
    for each in outcomes:
        expected = (b"\x01", MATCHED) if each.kind == "right face" else (b"\x00", REFUSED)
        if (each.byte, each.said) != expected:
            found.append(f"{each.kind}: answered {each.byte!r} and said {[one.name for one in each.said]}")
        if each.embeds != int(each.kind in OPENED):
            found.append(f"{each.kind}: a face was asked for {each.embeds} times")
    return found


def shares(counts: dict[str, int], worlds: int) -> list[dict[str, int]]:
    """The claims that each of the worlds gets, of every kind alike."""
    return [
        {kind: count // worlds + (number < count % worlds) for kind, count in counts.items()}
        for number in range(worlds)
    ]


def hold_up_side_by_side(counts: dict[str, int], seed: int, worlds: int) -> list[Seen]:
    """The claims of several vaults at once, each with a process of its own that holds them up."""
    processes = [
        subprocess.Popen(
            [*COMMAND, "--one-world", json.dumps(share), "--seed", str(seed + number)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, share in enumerate(shares(counts, worlds))
    ]
    outcomes: list[Seen] = []
    deadline = Deadline(SLOWEST * sum(counts.values()) / worlds + 60)
    try:
        for process in processes:
            said, _ = process.communicate(timeout=max(1.0, deadline.remaining))
            if process.returncode:
                raise RuntimeError("a world broke off: see above")
            outcomes += [_from_json(each) for each in json.loads(said)]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    return outcomes


def table_of_times(outcomes: Sequence[Seen]) -> str:
    """Median and 5-95 % of each measure, in ms, by kind."""
    lines = [f"| claim | n | {' | '.join(MEASURES)} |", "| --- " * (2 + len(MEASURES)) + "|"]
    for kind in ALL:
        if count := sum(each.kind == kind for each in outcomes):
            columns = [_spread(_times(outcomes, kind, measure)) for measure in MEASURES]
            if kind == "right face":
                columns[MEASURES.index("guidance")] = "-"
            lines.append(f"| {kind} | {count} | {' | '.join(columns)} |")
    return "\n".join(lines)


def compared(outcomes: Sequence[Seen], pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str, str], Apart]:
    """How well each pair of kinds is told apart by each measure (closing, guidance, answer)."""
    looks = len(pairs) * len(MEASURES)
    return {
        (one, other, measure): apart(
            _times(outcomes, one, measure), _times(outcomes, other, measure), looks=looks
        )
        for one, other in pairs
        for measure in MEASURES
    }


def table_of_pairs(found: dict[tuple[str, str, str], Apart]) -> str:
    """Each pair: the area with its interval, and the shift of the medians in µs."""
    pairs = list(dict.fromkeys((one, other) for one, other, _ in found))
    lines = [f"| told apart by | {' | '.join(MEASURES)} |", "| --- " * (1 + len(MEASURES)) + "|"]
    for one, other in pairs:
        columns = [_area(found[one, other, measure]) for measure in MEASURES]
        lines.append(f"| {one}, {other} | {' | '.join(columns)} |")
    return "\n".join(lines)


def table_of_work(work: Work, what: str) -> str:
    """Vault's own work by kind, ms, and how well it would tell them apart."""
    lines = [f"| {what} | n | ms | area beside *{ASKED[0]}* |", "| --- | --- | --- | --- |"]
    first = np.array(work[ASKED[0]]) * 1000
    for kind in ASKED:
        times = np.array(work[kind]) * 1000
        beside = "" if kind == ASKED[0] else _area(apart(first, times, looks=len(ASKED) - 1))
        lines.append(f"| {kind} | {len(times)} | {_spread(times, 3)} | {beside} |")
    return "\n".join(lines)


def report(outcomes: Sequence[Seen]) -> tuple[str, bool]:
    """All tables of the claims, the verdict, and whether it is a good one."""
    asked = compared(outcomes, list(combinations(ASKED, 2)))
    parts = [table_of_times(outcomes), table_of_pairs(asked)]
    others = [(ASKED[0], kind) for kind in OTHERS if any(each.kind == kind for each in outcomes)]
    if others:
        parts.append(table_of_pairs(compared(outcomes, others)))
    problems = wrong(outcomes)
    parts += problems
    told = [f"{one} and {other} by {measure}" for (one, other, measure), each in asked.items() if each.told]
    parts.append(
        f"told apart: {', '.join(told) or 'none'}; of {len(outcomes)} claims {len(problems)} were "
        "answered, guided or embedded otherwise than they should"
    )
    return "\n\n".join(parts), not told and not problems


def _times(outcomes: Sequence[Seen], kind: str, measure: str) -> Times:
    return np.array([getattr(each, measure) for each in outcomes if each.kind == kind]) * 1000


def _spread(times: Times, digits: int = 2) -> str:
    low, median, high = np.quantile(times, (0.05, 0.5, 0.95))
    return f"{median:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def _area(each: Apart) -> str:
    return f"{each.area:.3f} ({each.low:.3f}-{each.high:.3f}), {1000 * each.shift:+.0f} µs"


def _from_json(fields: dict[str, Any]) -> Seen:
    byte, said = bytes.fromhex(fields.pop("byte")), [Guidance(each) for each in fields.pop("said")]
    return Seen(byte=byte, said=said, **fields)


def _to_json(each: Seen) -> dict[str, Any]:
    return asdict(each) | {"byte": each.byte.hex()}


def main(arguments: list[str] | None = None) -> int:
    """Hold up claims as the command line says; the exit status: 1 where their kinds are told apart."""
    parser = argparse.ArgumentParser(
        prog="scripts/claim-times",
        description="Unknown claims, claims with a wrong secret, and right claims with another's face, held "
        "up in random order before real vault processes with a scripted lens. Each has a record of its own. "
        "Timed from the code that is handed to vault, to the closing of the camera, the guidance and the "
        "answer. No camera and no model is needed.",
        epilog="Prints medians and 5-95 % in ms, and for each pair of kinds the chance that the second takes "
        "longer (0.5: they cannot be told apart), with an interval that holds for all pairs and measures "
        f"together with 95 %. Exit status 1: for two of the three kinds 0.5 lies outside it, or {CLOSE} "
        "away, or something was answered otherwise than it should be.",
    )
    parser.add_argument("--attempts", type=int, default=500, help="of each of the three (%(default)s)")
    parser.add_argument("--others", type=int, default=30, help="of each other kind (%(default)s)")
    parser.add_argument("--numbers", type=int, default=30, help="numbers with a PIN (%(default)s)")
    parser.add_argument("--worlds", type=int, default=3, help="vaults side by side (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the order (%(default)s)")
    parser.add_argument("--one-world", metavar="COUNTS", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)

    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if options.one_world:
        seen = hold_up_all(json.loads(options.one_world), options.seed, tell)
        print(json.dumps([_to_json(each) for each in seen]))
        return 0
    if (
        options.worlds < 1
        or options.attempts < 2 * options.worlds
        or options.others < 0
        or options.numbers < 0
    ):
        parser.error("at least one world, and two claims of each kind in each")
    work = [table_of_work(work_of_tokens(options.attempts, options.seed), "vault alone, tokens")]
    if options.numbers:
        work.append(table_of_work(work_of_numbers(options.numbers, options.seed), "vault alone, numbers"))
    print("\n\n".join(work), end="\n\n", flush=True)
    counts = dict.fromkeys(ASKED, options.attempts)
    if options.others:
        counts |= dict.fromkeys(OTHERS, options.others)
    text, good = report(hold_up_side_by_side(counts, options.seed, options.worlds))
    print(text)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
