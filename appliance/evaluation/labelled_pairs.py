"""Labelled pairs of photographs: one is enrolled, the other verified, at one threshold of the pack."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from appliance.errors import ConfigurationError
from appliance.evaluation.comparisons import score_all
from appliance.evaluation.dataset import Pair, Pairs
from appliance.evaluation.embeddings import Embeddings, Outcome
from appliance.evaluation.error_rates import histogram_of
from appliance.evaluation.intervals import Rate, share_over_people
from appliance.evaluation.report import Report, model, with_limits
from appliance.evaluation.study import Circumstances, Protocol, about, histograms, measured, names
from appliance.vault.comparison import make_template


class NoPairToCompare(ConfigurationError):
    """Of no pair both photographs show a face."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """A pair and its score."""

    pair: Pair
    score: float


def study_pairs(
    pairs: Pairs, seen: Embeddings, protocol: Protocol, made: Circumstances, fmr: float
) -> Report:
    """Decide every pair at the pack's threshold for `fmr`, and count how often that is wrong.

    Args:
        pairs: photographs, and which of them show the same person.
        seen: what the lens saw in them.
        protocol: a template of one and one frame; its seed is not used.
        made: what the report says of how it was made.
        fmr: as the settings name it.

    Raises:
        NoPairToCompare: of no pair both photographs show a face.
        UnknownThreshold: the pack has none for this FMR.
    """
    data = pairs.data
    threshold = made.manifest.threshold(fmr, 1)
    judged = _judge(pairs, seen, made)
    if not judged:
        raise NoPairToCompare("of no pair both photographs show a face: see whether these are photographs")
    wrong = [each for each in judged if (each.score >= threshold) != each.pair.same]
    same = np.array([each.pair.same for each in judged])
    scores = np.array([each.score for each in judged], np.float32)
    hard = [
        model.HardPair(
            score=each.score,
            person=data.people[each.pair.one],
            probe_person=None if each.pair.same else data.people[each.pair.other],
            template=names(data, (each.pair.one,)),
            probe=names(data, (each.pair.other,)),
        )
        for each in sorted(judged, key=lambda each: each.score)
    ]
    refused = {
        name: Outcome(outcome).words
        for name, outcome in zip(data.people, seen.outcomes, strict=True)
        if outcome != Outcome.EMBEDDED
    }
    people = _people(pairs)
    report = Report(
        **about(data, seen, protocol, made),
        template_people=len(set(people)),
        templates=len(seen.index),
        genuine_people=len({people[each.pair.one] for each in judged if each.pair.same}),
        impostor_people=len({people[each.pair.other] for each in judged if not each.pair.same}),
        genuine=int(same.sum()),
        impostor=int((~same).sum()),
        fte=len(refused) / len(data.people),
        at_pack_thresholds=_point(judged, people, threshold, fmr),
        histograms=histograms(scores[same], histogram_of(scores[~same])),
        hardest=model.Hardest(
            genuine=[each for each in hard if each.probe_person is None][:20],
            impostor=[each for each in reversed(hard) if each.probe_person is not None][:20],
        ),
        pairs={
            "pairs": len(pairs.pairs),
            "decided as labelled": len(judged) - len(wrong),
            "decided otherwise": len(wrong),
            "not compared, a face was not found": len(pairs.pairs) - len(judged),
            "at the pack's FMR": fmr,
            "threshold": threshold,
            "otherwise": tuple(_say(pairs, each) for each in wrong),
            "not enrolled": tuple(f"{name}: {why}" for name, why in refused.items()),
        },
    )
    return with_limits(report)


def _judge(pairs: Pairs, seen: Embeddings, made: Circumstances) -> list[_Judged]:
    row = {int(photograph): number for number, photograph in enumerate(seen.index)}
    judged = []
    for pair in pairs.pairs:
        if pair.one in row and pair.other in row:
            template = make_template([seen.vectors[row[pair.one]]])
            probe = seen.vectors[row[pair.other]][None]
            judged.append(_Judged(pair, float(score_all(template, probe, made.manifest.mean)[0])))
    return judged


def _say(pairs: Pairs, each: _Judged) -> str:
    one, other = names(pairs.data, (each.pair.one, each.pair.other))
    return f"{one} and {other}: {'same' if each.pair.same else 'different'}, score {each.score:.4f}"


def _point(
    judged: Sequence[_Judged], people: Sequence[int], threshold: float, fmr: float
) -> tuple[model.PackPoint, ...]:
    """Both rates, where there are pairs of both kinds."""
    rates: list[Rate] = []
    for kind in (False, True):
        mine = [each for each in judged if each.pair.same is kind]
        if not mine:
            return ()
        of = [people[each.pair.one] for each in mine]
        wrong = [people[each.pair.one] for each in mine if (each.score >= threshold) is not kind]
        size = max(people) + 1
        rates.append(share_over_people(np.bincount(wrong, minlength=size), np.bincount(of, minlength=size)))
    return (
        model.PackPoint(named_fmr=fmr, threshold=threshold, fmr=measured(rates[0]), fnmr=measured(rates[1])),
    )


def _people(pairs: Pairs) -> list[int]:
    """Whose each photograph is, as far as pairs of the same person tie them together."""
    owner = list(range(len(pairs.data.photographs)))

    def first(photograph: int) -> int:
        while owner[photograph] != photograph:
            photograph = owner[photograph]
        return photograph

    for pair in pairs.pairs:
        if pair.same:
            owner[first(pair.other)] = first(pair.one)
    return [first(photograph) for photograph in range(len(owner))]
