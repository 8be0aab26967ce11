"""One evaluation from its first photograph to its report: all rooms of this folder, in their order."""

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
import numpy.typing as npt

from appliance.evaluation.comparisons import Comparison, Comparisons, compare
from appliance.evaluation.dataset import Dataset
from appliance.evaluation.embeddings import Embeddings, Outcome, Source
from appliance.evaluation.error_rates import HISTOGRAM_EDGES, ScoreSet, histogram_of, threshold_for
from appliance.evaluation.groups_gap import Gap, GroupRates, groups_at
from appliance.evaluation.intervals import Rate, fmr_over_people, fnmr_over_people, share_over_people
from appliance.evaluation.operating_points import RATES, Stated, det, eer_over_people, fnmr_at_fmr
from appliance.evaluation.report import Report, model, with_limits
from appliance.lens.quality import Verdict
from appliance.packs.manifest import Manifest, UnknownThreshold

GROUPS_AT = 1e-4
"""FMR at whose threshold groups are compared: that of the settings' default."""
LEAST_SHOWN = 5
"""People of a group from which on its rates are shown."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """How the comparisons are made.

    Attributes:
        template: photographs in a template, N.
        frames: photographs in an attempt, M.
        seed: of what is drawn by chance.
    """

    template: int
    frames: int
    seed: int


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a report says of how it was made.

    Attributes:
        command: as it was typed.
        source: the pack.
        manifest: of the pack.
        pack_hash: of its files, the code and the libraries, see `Source.fingerprint`.
    """

    command: str
    source: Source
    manifest: Manifest
    pack_hash: str


def study(data: Dataset, seen: Embeddings, protocol: Protocol, made: Circumstances) -> Report:
    """All error rates of a data set.

    Args:
        data: people and photographs.
        seen: what the lens saw in them.
        protocol: how they are compared.
        made: what the report says of how it was made.

    Raises:
        NobodyToCompare: nobody has enough photographs with a face.
    """
    found = compare(
        data,
        seen,
        made.manifest.mean,
        template_size=protocol.template,
        frames=protocol.frames,
        seed=protocol.seed,
    )
    scores = found.scores
    stated = fnmr_at_fmr(scores)
    eer = eer_over_people(scores)
    report = Report(
        **about(data, seen, protocol, made),
        template_people=int((scores.templates_of > 0).sum()),
        templates=found.templates,
        genuine_people=eer.people,
        impostor_people=int((scores.attempts_of > 0).sum()),
        genuine=len(scores.genuine),
        impostor=scores.impostors,
        **_fte(found),
        eer=eer.eer,
        eer_low=eer.low,
        eer_high=eer.high,
        fnmr_at_fmr={
            f"{fmr:g}": model.StatedPoint(
                fnmr=each.fnmr,
                low=each.low,
                high=each.high,
                threshold=each.threshold,
                impostors_above=each.impostors_above,
            )
            for fmr, each in stated.stated.items()
        },
        left_out={f"{fmr:g}": why for fmr, why in stated.left_out.items()},
        at_pack_thresholds=_at_pack_thresholds(scores, made.manifest, protocol.frames),
        det=tuple(
            model.DetPoint(fmr=each.fmr, fnmr=each.fnmr, low=each.low, high=each.high) for each in det(scores)
        ),
        histograms=histograms(scores.genuine, scores.histogram),
        hardest=_hardest(data, found),
        groups=_groups(data, scores, stated, made.manifest, protocol.frames),
    )
    return with_limits(report)


def about(data: Dataset, seen: Embeddings, protocol: Protocol, made: Circumstances) -> dict[str, object]:
    """What every report says of its data and of how it was made."""
    outcomes = Counter(Outcome(each) for each in seen.outcomes)
    owner = np.array([photograph.person for photograph in data.photographs])
    missed = np.bincount(owner[seen.outcomes != Outcome.EMBEDDED], minlength=len(data.people))
    fta = share_over_people(missed, np.bincount(owner, minlength=len(data.people)))
    verdicts = Counter(list(Verdict)[each] for each in seen.verdicts)
    return {
        "drempel": version("drempel"),
        "made_at": datetime.now(tz=UTC),
        "command": made.command,
        "seconds": 0,  # the caller's to say, at the end
        "pack": made.source.name,
        "pack_hash": made.pack_hash,
        "detector_size": made.source.detector_size or made.manifest.detector.input_size,
        "data": data.name,
        "calibrated_on": made.manifest.calibration.data if made.manifest.calibration else None,
        "template": protocol.template,
        "frames": protocol.frames,
        "seed": protocol.seed,
        "people": len(data.people),
        "photographs": len(data.photographs),
        "ignored": data.ignored,
        "fta": fta.rate,
        "fta_low": fta.low,
        "fta_high": fta.high,
        "failures": {
            outcome.words: outcomes[outcome]
            for outcome in Outcome
            if outcome is not Outcome.EMBEDDED and outcomes[outcome]
        },
        "gates": {verdict.name.lower().replace("_", " "): count for verdict, count in verdicts.most_common()},
    }


def _fte(found: Comparisons) -> dict[str, float]:
    errors = np.zeros(found.to_enrol, np.int64)
    errors[: found.not_enrolled] = 1
    rate = share_over_people(errors, np.ones(found.to_enrol, np.int64))
    return {"fte": rate.rate, "fte_low": rate.low, "fte_high": rate.high}


def histograms(genuine: npt.NDArray[np.float32], impostor: npt.NDArray[np.int64]) -> model.Histograms:
    """Both histograms of scores, over the same edges."""
    return model.Histograms(edges=HISTOGRAM_EDGES, genuine=histogram_of(genuine), impostor=impostor)


def measured(rate: Rate) -> model.Measured:
    """A rate, as a report holds it."""
    return model.Measured(rate=rate.rate, low=rate.low, high=rate.high, count=rate.count)


def _at_pack_thresholds(scores: ScoreSet, manifest: Manifest, frames: int) -> tuple[model.PackPoint, ...]:
    """What the thresholds that a door has do on these data; fixed before, on other people or on these."""
    shipped = manifest.calibration.thresholds if manifest.calibration else []
    return tuple(
        model.PackPoint(
            named_fmr=each.fmr,
            threshold=each.threshold,
            fmr=measured(fmr_over_people(scores, each.threshold)),
            fnmr=measured(fnmr_over_people(scores, each.threshold)),
        )
        for each in shipped
        if each.frames == frames
    )


def _hardest(data: Dataset, found: Comparisons) -> model.Hardest:
    return model.Hardest(
        genuine=[_hard(data, each) for each in found.hardest_genuine],
        impostor=[_hard(data, each) for each in found.hardest_impostors],
    )


def _hard(data: Dataset, each: Comparison) -> model.HardPair:
    return model.HardPair(
        score=each.score,
        person=data.people[each.person],
        probe_person=None if each.probe_person == each.person else data.people[each.probe_person],
        template=names(data, each.template),
        probe=names(data, each.probe),
    )


def names(data: Dataset, photographs: Sequence[int]) -> tuple[str, ...]:
    """What photographs are called."""
    return tuple(data.photographs[each].name for each in photographs)


def _groups(
    data: Dataset, scores: ScoreSet, stated: Stated, manifest: Manifest, frames: int
) -> dict[str, model.Groups]:
    if not data.groups:
        return {}
    at_fmr, threshold = _common_threshold(scores, stated, manifest, frames)
    genuine_of = np.bincount(scores.genuine_person, minlength=scores.people)
    tables = {}
    for attribute, labels in data.groups.items():
        found = groups_at(scores, labels, threshold)
        tables[attribute] = model.Groups(
            rows=[_row(row, labels, genuine_of) for row in found.rows],
            threshold=threshold,
            at_fmr=at_fmr,
            fnmr_gap=_gap(found.fnmr_gap),
            fmr_gap=_gap(found.fmr_gap),
            left_out=found.left_out,
        )
    return tables


def _common_threshold(
    scores: ScoreSet, stated: Stated, manifest: Manifest, frames: int
) -> tuple[float, float]:
    """FMR and threshold at which groups are compared: the pack's, as at the door.

    Where the pack has none for so many frames, the strictest that these data can state, or else the loosest.
    """
    with contextlib.suppress(UnknownThreshold):
        return GROUPS_AT, manifest.threshold(GROUPS_AT, frames)
    at_fmr = min((fmr for fmr in stated.stated if fmr >= GROUPS_AT), default=max(RATES))
    return at_fmr, threshold_for(scores, at_fmr)[0]


def _row(row: GroupRates, labels: Sequence[str | None], genuine_of: npt.NDArray[np.int64]) -> model.GroupRow:
    members = np.array([label == row.group for label in labels])
    if row.people < LEAST_SHOWN:
        # The result of one person, beside what is stated of them, is a result about that person.
        return model.GroupRow(group=row.group or "not stated", people=row.people, genuine=0, impostor=0)
    return model.GroupRow(
        group=row.group or "not stated",
        people=row.people,
        fnmr_people=row.fnmr.people if row.fnmr else 0,
        fmr_people=row.fmr.people if row.fmr else 0,
        genuine=int(genuine_of[members].sum()),
        impostor=row.fmr.of if row.fmr else 0,
        fnmr=row.fnmr and row.fnmr.rate,
        fnmr_low=row.fnmr and row.fnmr.low,
        fnmr_high=row.fnmr and row.fnmr.high,
        fmr=row.fmr and row.fmr.rate,
        fmr_low=row.fmr and row.fmr.low,
        fmr_high=row.fmr and row.fmr.high,
    )


def _gap(gap: Gap | None) -> model.Gap | None:
    if gap is None:
        return None
    return model.Gap(
        worst=gap.worst,
        best=gap.best,
        difference=gap.difference,
        low=gap.low,
        high=gap.high,
        ratio=gap.ratio,
    )
