"""The limits on guessing against a pack's own scores: a year of strangers, and one of honest entries.

`scripts/guessing` prints it. An attempt of somebody else passes where its score reaches the threshold; how
often it does differs from template to template (some faces are more common than others), so the chances are
counted template by template, on the very comparisons that the thresholds come from. With --dataset they are
drawn anew; else they are what was counted when `guessing_edge.json` was made: numbers, and no one's name.

Two ways to count an attempt of three frames:

- *single frames*, three times: 1 - (1 - p)^3. All people with a photograph are the strangers, and the
  thresholds rest on these; where frames have something in common, as at the door, this is too much.
- *three frames* of one person: as at the door, but only of people with three photographs, in Labeled Faces in
  the Wild a sixth of them. A few pairs of look-alikes decide it, hence the wide interval.

The figure covers attempts without effort: people chosen at random, not for their looks, and no masks.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import bdtrc

from appliance.errors import DrempelError
from appliance.evaluation.comparisons import compare
from appliance.evaluation.dataset import Dataset, read_dataset
from appliance.evaluation.embeddings import Embeddings
from appliance.evaluation.guessing_simulation import attack, genuine_years
from appliance.evaluation.intervals import clopper_pearson, fmr_over_people
from appliance.packs.manifest import load_manifest
from appliance.vault.limits import PERIOD, PERIODS, budget_of

SUMMARY = Path(__file__).with_name("guessing_edge.json")
TEMPLATE, SEED = 5, 7
DAYS, ENTRIES = 225, 8
"""Of an honest year: working days, and entries on each."""
FNMRS = (0.02, 0.03, 0.04, 0.05)


@dataclass(frozen=True, slots=True)
class Measured:
    """Strangers before templates, template person by template person.

    Attributes:
        frames: photographs in a measured attempt, 1 or 3.
        attempts: of strangers, for each person with a template.
        passed: of those, with a score at or above the threshold.
        rate: of all together; `low` and `high` are its interval of 95 % over people.
    """

    frames: int
    attempts: tuple[int, ...]
    passed: tuple[int, ...]
    rate: float
    low: float
    high: float

    def attempt_rates(self, frames: int) -> npt.NDArray[np.float64]:
        """(people with a template,), the chance that a stranger's attempt of `frames` frames passes."""
        single = np.array(self.passed) / np.array(self.attempts)
        rates: npt.NDArray[np.float64] = 1 - (1 - single) ** (frames / self.frames)
        return rates

    def risk(self, frames: int, budget: int) -> float:
        """The chance that one of `budget` attempts passes, each by another stranger; the mean over claims."""
        weights = np.array(self.attempts, np.float64)
        return float(np.average(1 - (1 - self.attempt_rates(frames)) ** budget, weights=weights))

    def risk_interval(self, frames: int, budget: int) -> tuple[float, float]:
        """The interval of 95 % of that, over people: that of the rate, scaled as the risk is to the rate."""
        scale = self.risk(frames, budget) / self.rate if self.rate else budget * frames / self.frames
        return min(1.0, self.low * scale), min(1.0, self.high * scale)


@dataclass(frozen=True, slots=True)
class Summary:
    """What was counted at one threshold of a pack; `frames` and `fmr` are of the attempt it is for."""

    pack: str
    data: str
    fmr: float
    frames: int
    threshold: float
    measured: tuple[Measured, ...]


def read_summary(path: Path = SUMMARY) -> Summary:
    """What `--write` wrote."""
    values = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        Measured(**{**row, "attempts": tuple(row["attempts"]), "passed": tuple(row["passed"])})
        for row in values.pop("measured")
    ]
    return Summary(**values, measured=tuple(rows))


def measure(data: Dataset, seen: Embeddings, pack: str, fmr: float, frames: int) -> Summary:
    """Count on a data set how often strangers pass.

    Raises:
        NobodyToCompare: nobody has enough photographs with a face.
        UnknownThreshold: the pack was not calibrated for this.
    """
    manifest = load_manifest(pack)
    threshold = manifest.threshold(fmr, frames)
    measured = []
    for each in sorted({1, frames}):
        scores = compare(data, seen, manifest.mean, template_size=TEMPLATE, frames=each, seed=SEED).scores
        above = scores.tail >= np.float64(threshold)
        passed = np.bincount(scores.tail_template[above], minlength=scores.people)
        attempts = scores.templates_of * (scores.attempts_of.sum() - scores.attempts_of)
        some = attempts > 0
        rate = fmr_over_people(scores, threshold)
        measured.append(
            Measured(
                each,
                tuple(attempts[some].tolist()),
                tuple(passed[some].tolist()),
                rate.rate,
                rate.low,
                rate.high,
            )
        )
    return Summary(pack, data.name, fmr, frames, threshold, tuple(measured))


def lock_out_probability(fnmr: float, entries: int, budget: int) -> float:
    """The chance that an honest person spends the budget.

    Who tries until recognised is locked out if the budget-th failure comes before the last entry's success:
    if of the first `entries + budget - 1` attempts at least `budget` fail (the negative binomial as a tail of
    the binomial). Failures are taken for independent, and all fall into one year's count.

    Args:
        fnmr: of an attempt.
        entries: while failures count.
        budget: failures that are let.
    """
    return float(bdtrc(budget - 1, entries + budget - 1, fnmr))


def entries_that_count(days: int = DAYS, entries: int = ENTRIES) -> int:
    """Entries in the longest time for which a failure counts, with `days` working days in 365."""
    return round(days * entries * (PERIODS + 1) * PERIOD / (365 * 86_400))


def budget_at(summary: Summary, risk: float) -> int:
    """The failures that the door lets a claim have in a year: by the pack's FMR of whole attempts."""
    return budget_of(risk, load_manifest(summary.pack).attempt_fmr(summary.fmr, summary.frames))


def attack_table(summary: Summary, risk: float, claims: int, seed: int) -> str:
    """Markdown: risk per claim and year, from the counts and simulated."""
    budget = budget_at(summary, risk)
    heads = "strangers counted as|attempts|passed|FMR of an attempt|risk a year|simulated: guessed"
    heads += "|most attempts at a claim|let, refused|restarts"
    about = (
        f"Pack {summary.pack} on {summary.data}, FMR {summary.fmr:g} at {summary.frames} frames: "
        f"threshold {summary.threshold:.4f}; risk {risk:.2%} a year allowed: {budget} failures."
    )
    lines = [
        about,
        "",
        f"|{heads}|",
        "|---" * len(heads.split("|")) + "|",
    ]
    for each in summary.measured:
        rates = each.attempt_rates(summary.frames)
        rng = np.random.default_rng(seed)
        share = np.array(each.attempts) / sum(each.attempts)
        drawn = rates[rng.choice(len(rates), claims, p=share)]
        done = attack(drawn.tolist(), budget, seed)
        times = summary.frames / each.frames
        low, high = each.risk_interval(summary.frames, budget)
        seen_low, seen_high = clopper_pearson(done.guessed, claims)
        cells = (
            "three frames" if each.frames == summary.frames else f"single frames, {times:g} times",
            f"{sum(each.attempts):,}",
            f"{sum(each.passed)}",
            f"{each.rate * times:.2g} ({each.low * times:.2g} to {each.high * times:.2g})",
            f"{each.risk(summary.frames, budget):.2%} ({low:.2%} to {high:.2%})",
            f"{done.guessed} of {claims:,}: {done.guessed / claims:.2%} ({seen_low:.2%} to {seen_high:.2%})",
            f"{done.most}",
            f"{done.attempts:,}, {done.refused:,}",
            f"{done.restarts}",
        )
        lines.append("|" + "|".join(cells) + "|")
    return "\n".join(lines)


def genuine_table(budget: int, people: int, seed: int) -> str:
    """Markdown: an honest year, in closed form and simulated."""
    heads = "FNMR of an attempt|locked out, closed form|simulated|failures in a year, mean and most"
    heads += "|met a wait|longest wait met"
    about = (
        f"{ENTRIES} entries on {DAYS} working days, {budget} failures let; at most "
        f"{entries_that_count():,} entries count at a time."
    )
    lines = [
        about,
        "",
        f"|{heads}|",
        "|---" * len(heads.split("|")) + "|",
    ]
    for fnmr in FNMRS:
        done = genuine_years(people, fnmr, budget, seed, days=DAYS, entries=ENTRIES)
        cells = (
            f"{fnmr:.0%}",
            f"{lock_out_probability(fnmr, entries_that_count(), budget):.2g}",
            f"{done.locked_out} of {people}",
            f"{done.failures / people:.1f}, {done.most}",
            f"{done.waited} of {people}",
            f"{done.longest} s",
        )
        lines.append("|" + "|".join(cells) + "|")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="scripts/guessing",
        description="What the limits on guessing come to, with a pack's own scores: the risk for a claim in "
        "a year of attack, and an honest year.",
    )
    parser.add_argument("--dataset", type=Path, help="a folder of people: count on it, not by the summary")
    parser.add_argument("--pack", default="edge", help="with --dataset: which pack (edge)")
    parser.add_argument("--packs", type=Path, help="folder of installed packs")
    parser.add_argument("--fmr", type=float, default=1e-4, help="with --dataset: FMR of an attempt (1e-4)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="with --dataset: write the counts here")
    parser.add_argument(
        "--risk", type=float, default=0.01, help="that a claim may be guessed in a year (0.01)"
    )
    parser.add_argument("--claims", type=int, default=3000, help="attacked, simulated (3000)")
    parser.add_argument("--people", type=int, default=100, help="of the honest year, simulated (100)")
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args(arguments)
    try:
        if given.dataset is None:
            summary = read_summary()
        else:
            summary = _counted_on(given.dataset, given.pack, given.packs, given.fmr)
            if given.write is not None:
                given.write.write_text(json.dumps(asdict(summary)) + "\n", encoding="utf-8")
        print(attack_table(summary, given.risk, given.claims, given.seed))
        print()
        print(genuine_table(budget_at(summary, given.risk), given.people, given.seed))
    except DrempelError as error:
        sys.exit(f"scripts/guessing: {error}")


def _counted_on(folder: Path, pack: str, packs: Path | None, fmr: float) -> Summary:
    # Loads the networks' libraries, which nothing else here needs.
    from appliance.commands.evaluate import embeddings_of, find_source  # noqa: PLC0415

    data = read_dataset(folder)
    seen = embeddings_of(data, find_source(pack, packs, None), jobs=None, keep_nothing=False)
    return measure(data, seen, pack, fmr, 3)


if __name__ == "__main__":
    main()
