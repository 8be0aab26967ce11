"""Variants of the recognition steps, each against the plain one: would any of them let fewer people down?

`scripts/trials DATASET --packs PACKS` compares each variant and the plain steps on the very same templates
and attempts, drawn with three seeds and averaged. The interval is that of the *difference*: in each replicate
of the bootstrap people are resampled once, with their templates and their attempts, and both thresholds are
found anew (see `intervals` and `operating_points`).

People are halved by a salted hash of their names. On TUNE the mean embedding and the whitening are learnt and
parameters are chosen; STATE has seen none of that, and what is worth stating is stated on it. An FMR that a
part decides by fewer than ten impostors is left out. `--cross-fit` asks another thing: see `trial_mean`.
"""

import argparse
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from appliance.errors import ConfigurationError, DrempelError
from appliance.evaluation import trial_mean
from appliance.evaluation.comparisons import owners, score_all
from appliance.evaluation.dataset import Dataset, Pairs, read_dataset, read_pairs
from appliance.evaluation.embeddings import Source
from appliance.evaluation.trial_looks import PLAIN, WAYS, Looks, look_at_all
from appliance.evaluation.trial_scores import (
    REPLICATES,
    SEEDS,
    Difference,
    Scorer,
    decided,
    difference,
    genuine_people,
    on_tune,
    rates_under,
    weights_of,
)
from appliance.evaluation.trial_variants import TRIALS, Trial, Vectors
from appliance.packs.manifest import load_manifest
from appliance.vault.comparison import make_template

PAIRS_FMR = 1e-4
PAIR_LOOKS = (
    ("as they are", PLAIN, PLAIN),
    ("both grey", "grey", "grey"),
    ("the probe grey", PLAIN, "grey"),
    ("both red channel", "red", "red"),
    ("the probe red channel", PLAIN, "red"),
)
"""What it is called, how the enrolled photograph is looked at, and how the other."""
PAIR_COUNTS = (
    "decided otherwise",
    "same person, no longer passes",
    "same person, passes now",
    "others, pass now",
    "others, no longer pass",
    "decided as labelled",
    "a score moves by at most",
)

READ = (
    "FNMR in per cent, plain → variant, and in brackets the interval of 95 % of the difference over people, "
    "bold where it leaves out zero: of many variants one in twenty does so by chance. "
    "Where nobody errs there is nothing to resample, and no difference can be told. "
    "'The same' is in no replicate different: so is a change of colours on photographs that have none."
)


@dataclass(frozen=True, slots=True)
class Column:
    """Some people at one FMR."""

    part: str
    people: int
    rate: int
    fmr: float


@dataclass(frozen=True, slots=True)
class Tried:
    """A trial's outcome.

    Attributes:
        trial: with the variants that were tried.
        genuine: genuine attempts of the first draw.
        impostors: its impostor attempts.
        columns: what the data decide.
        rows: of each variant, and of each column; None where the variant was learnt on these people.
    """

    trial: Trial
    genuine: int
    impostors: int
    columns: list[Column]
    rows: dict[str, list[Difference | None]]


def run(trial: Trial, scorer: Scorer, replicates: int, progress: Callable[[str], None]) -> Tried:
    """Compare all variants of a trial with its plain one.

    Raises:
        NobodyToCompare: nobody has enough photographs with a face.
    """
    draws = scorer.draws(trial)
    plain = scorer.scores(trial.plain, draws)
    parts = {"all": np.ones_like(scorer.tune), "TUNE": scorer.tune, "STATE": ~scorer.tune}
    columns = [
        Column(part, genuine_people(plain, members), number, fmr)
        for part, members in parts.items()
        for number, fmr in enumerate(trial.rates)
        if genuine_people(plain, members) and decided(plain[0], members, fmr)
    ]
    used = {each.part for each in columns}
    weights = {part: list(weights_of(parts[part], replicates)) for part in parts if part in used}
    before = {part: rates_under(plain, trial.rates, weights[part]) for part in weights}
    rows: dict[str, list[Difference | None]] = {}
    for variant in trial.variants:
        progress(variant.name)
        sets = scorer.scores(variant, draws)
        fair = {"STATE"} if variant.whitened else set(parts)
        after = {part: rates_under(sets, trial.rates, weights[part]) for part in weights if part in fair}
        rows[variant.name] = [
            difference(before[each.part][:, each.rate], after[each.part][:, each.rate])
            if each.part in after
            else None
            for each in columns
        ]
    return Tried(trial, len(plain[0].genuine), plain[0].impostors, columns, rows)


def table(tried: Tried) -> str:
    """Markdown; FNMR in per cent, bold where the interval of the difference leaves out zero."""
    heads = ["against " + tried.trial.plain.name, "costs"]
    heads += [f"{each.part} ({each.people} people), FMR {_short(each.fmr)}" for each in tried.columns]
    lines = [f"### {tried.trial.title}", ""]
    lines += [f"In a draw {tried.genuine:,} genuine and {tried.impostors:,} impostor attempts.", ""]
    lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for variant in tried.trial.variants:
        cells = [variant.name, variant.costs, *map(_cell, tried.rows[variant.name])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_chosen(tried)])


def _cell(found: Difference | None) -> str:
    if found is None:
        return "learnt here"
    if found.before == found.after == found.low == found.high == 0:
        return "0 → 0 (nobody errs)"
    if found.before == found.after and found.low == found.high == 0:
        return f"{100 * found.before:.2f} → the same"
    apart = f"({100 * found.low:+.2f} to {100 * found.high:+.2f})"
    clear = found.low > 0 or found.high < 0
    return f"{100 * found.before:.2f} → {100 * found.after:.2f} " + (f"**{apart}**" if clear else apart)


def _short(fmr: float) -> str:
    return f"{fmr:.0e}".replace("e-0", "e-")


def _chosen(tried: Tried) -> list[str]:
    """Of each family the variant that TUNE chooses at the first FMR, and what STATE says of it."""
    where = {each.part: number for number, each in enumerate(tried.columns) if each.rate == 0}
    if not {"TUNE", "STATE"} <= where.keys():
        return []
    lines = []
    for family in dict.fromkeys(each.family for each in tried.trial.variants if each.family):
        on = {each.name: tried.rows[each.name] for each in tried.trial.variants if each.family == family}
        tune = {name: row[where["TUNE"]] for name, row in on.items()}
        least = min((each.after, name) for name, each in tune.items() if each is not None)
        if any(each is not None and each.before <= least[0] for each in tune.values()):
            lines.append(f"Of {family}, TUNE chooses the plain one.")
        else:
            lines.append(
                f"Of {family}, TUNE chooses {least[1]}; STATE: {_cell(on[least[1]][where['STATE']])}."
            )
    return [*lines, ""] if lines else []


def decide_pairs(pairs: Pairs, looks: Looks, source: Source) -> str:
    """How many pairs are decided otherwise without colour, at the pack's own threshold; markdown."""
    manifest = load_manifest(source.name)
    threshold = manifest.threshold(PAIRS_FMR, 1)
    row = {int(photograph): number for number, photograph in enumerate(looks.index)}
    judged = [each for each in pairs.pairs if each.one in row and each.other in row]
    same = np.array([each.same for each in judged], np.bool_)

    def scored(one: str, other: str) -> Vectors:
        enrolled, seen = looks.of(one), looks.of(other)
        templates = [make_template([enrolled[row[each.one]]]) for each in judged]
        probes = [seen[row[each.other]][None] for each in judged]
        scores = [score_all(t, p, manifest.mean)[0] for t, p in zip(templates, probes, strict=True)]
        return np.array(scores, np.float32)

    before = scored(PLAIN, PLAIN)
    plain = before >= threshold
    lines = [
        f"### {len(judged)} of {len(pairs.pairs)} labelled pairs at {threshold:.4f}",
        "",
        "| photographs | " + " | ".join(PAIR_COUNTS) + " |",
        "|---" * (1 + len(PAIR_COUNTS)) + "|",
    ]
    for name, one, other in PAIR_LOOKS:
        after = scored(one, other)
        now = after >= threshold
        counts = [now != plain, same & plain & ~now, same & ~plain & now]
        counts += [~same & ~plain & now, ~same & plain & ~now, now == same]
        lines.append(f"| {name} | " + " | ".join(str(int(each.sum())) for each in counts))
        lines[-1] += f" | {np.abs(after - before).max(initial=0):.3f} |"
    lines += ["", f"Of {len(looks.index)} photographs, faces not found again: {_missed(looks)}.", ""]
    lines += [f"The threshold is the pack's for FMR {_short(PAIRS_FMR)} and one frame."]
    return "\n".join([*lines, "The red channel is only *like* infrared: no infrared camera took it.", ""])


def _missed(looks: Looks) -> str:
    found = [f"{way} {count}" for way, count in zip(looks.ways, looks.missed, strict=True) if count]
    return ", ".join(found) or "none"


def ways_of(trials: Sequence[Trial]) -> tuple[str, ...]:
    """All looks that these trials take, in the order of `WAYS`."""
    variants = [each for trial in trials for each in (trial.plain, *trial.variants)]
    used = {PLAIN, *(way for each in variants for way in each.template + each.probe)}
    return tuple(way for way in WAYS if way in used)


def only(names: Collection[str]) -> list[Trial]:
    """The trials with these variants only, or with all.

    Raises:
        ConfigurationError: there is no such variant.
    """
    known = [each.name for trial in TRIALS for each in trial.variants]
    if unknown := set(names) - set(known):
        raise ConfigurationError(f"no variant {', '.join(sorted(unknown))}: choose from {'; '.join(known)}")
    kept = [
        replace(trial, variants=tuple(each for each in trial.variants if not names or each.name in names))
        for trial in TRIALS
    ]
    return [trial for trial in kept if trial.variants]


def report(data: Dataset, looks: Looks, trials: Sequence[Trial], replicates: int = REPLICATES) -> str:
    """All tables of a data set, in markdown."""
    scorer = Scorer(looks, owners(data)[looks.index], on_tune(data.people))
    tables = [table(run(trial, scorer, replicates, _tell)) for trial in trials]
    size = f"{len(data.photographs)} photographs of {len(data.people)} people, {len(looks.index)} with a face"
    notes = [
        f"{data.name}: {size}; means of {len(SEEDS)} draws. {READ}",
        f"Faces that a variant's own detector missed (the plain landmarks stand in): {_missed(looks)}.",
    ]
    if scorer.shrinkage:
        notes.append(f"Shrinkage of the whitening, chosen on TUNE: {scorer.shrinkage:g}.")
    return "\n".join([*tables, *(f"{note}\n" for note in notes)])


def _tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _count(done: int, of: int) -> None:
    if done % 500 == 0 or done == of:
        _tell(f"{done} of {of} photographs")


def main(arguments: Sequence[str] | None = None) -> None:
    """See `--help`."""
    parser = argparse.ArgumentParser(prog="scripts/trials", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dataset", type=Path, help="a folder with one folder of photographs a person")
    parser.add_argument("--packs", type=Path, required=True, help="folder of installed packs")
    parser.add_argument("--pack", default="edge")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="variants, as the table names them"
    )
    parser.add_argument(
        "--pairs", type=Path, metavar="CSV", help="labelled pairs of the photographs beside it"
    )
    parser.add_argument(
        "--cross-fit",
        action="store_true",
        help="instead: do the rates hold on people of whom neither mean nor threshold is?",
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes that look at photographs")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep embeddings, which are biometric data"
    )
    given = parser.parse_args(arguments)
    source = Source(given.packs, given.pack)
    try:
        trials, data = only(given.only), read_dataset(given.dataset)
        pairs = read_pairs(given.pairs, given.pairs.parent) if given.pairs else None
        handed = {"jobs": given.jobs, "keep": given.keep, "progress": _count}
        if given.cross_fit:
            looks = look_at_all(data.photographs, source, (PLAIN,), **handed)
            mean = load_manifest(source.name).mean
            print(trial_mean.table(trial_mean.cross_fit(looks, owners(data)[looks.index], data.people, mean)))
            return
        looks = look_at_all(data.photographs, source, ways_of(trials), **handed)
        print(report(data, looks, trials))
        if pairs is not None:
            ways = tuple(dict.fromkeys(way for _, *both in PAIR_LOOKS for way in both))
            print(decide_pairs(pairs, look_at_all(pairs.data.photographs, source, ways, **handed), source))
    except DrempelError as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
