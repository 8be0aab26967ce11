"""What an evaluation cannot tell, in sentences for whoever relies on it."""

import re
from collections.abc import Iterator

from appliance.evaluation.error_rates import attempt_fmr_bounds
from appliance.evaluation.report.model import Report
from appliance.evaluation.report.words import count, most_with_no_error, people, percent, stated

USUAL_FMR = 1e-4
"""That of the settings, unless a site chooses another."""

_LABELED_FACES = re.compile(r"(?<![a-z])lfw(?![a-z])|label?led faces in the wild", re.IGNORECASE)


def with_limits(report: Report) -> Report:
    """The report, with the sentences of this room after those that it has already."""
    said = (*report.cannot_tell, *(each for each in limits(report) if each not in report.cannot_tell))
    return report.model_copy(update={"cannot_tell": said})


def limits(report: Report) -> list[str]:
    """All sentences that hold for a report, the gravest first."""
    return [*_people(report), *_groups(report), *_attempts(report), *_origin(report)]


def _people(report: Report) -> Iterator[str]:
    most = percent(most_with_no_error(report.genuine_people, report.level))
    yield (
        f"The number of people bounds what can be said, not the number of comparisons: genuine attempts "
        f"are of {people(report.genuine_people)}. Even if none of them is ever refused, up to {most} of all "
        f"people could still be (the rule of three: about 3 divided by the number of people)."
    )
    if report.genuine_people < 2:
        yield (
            "With fewer than two people to be recognised no interval means anything: how one person differs "
            "from the next is not in the data."
        )
    yield (
        "The intervals say how far the figures could be off for people like those in this set. They do not "
        "cover that the people, the light and the camera of the site are different."
    )
    if report.left_out:
        rates = ", ".join(stated(float(rate)) for rate in report.left_out)
        yield f"Nothing is said of a false match rate of {rates}: the section on error rates says why."


def _groups(report: Report) -> Iterator[str]:
    if not report.groups:
        yield (
            "No groups were stated (there is no groups.csv), so this evaluation cannot tell whether some "
            "groups of people are refused, or mistaken for others, more often."
        )
        return
    few = [
        f"{attribute}: {group}" for attribute, groups in report.groups.items() for group in groups.left_out
    ]
    if few:
        yield (
            f"Of groups with few people little can be said; a gap may be chance, and one may be hidden: "
            f"{', '.join(few)}."
        )
    yield (
        "Groups are compared by the attributes that were stated and by no other, and one at a time: people "
        "in whom two of them meet may fare worse than either group."
    )


def _attempts(report: Report) -> Iterator[str]:
    yield (
        "No presentation attack was tried: how the door fares with a photograph, a screen or a mask held up "
        "to it has to be measured apart."
    )
    yield (
        "The impostors are people who happen to be in the set, each with their own face. Nobody tried to "
        "look like somebody else, and twins and close relatives can be accepted far more often than FMR says."
    )
    if report.frames > 1:
        yield (
            f"An attempt is {report.frames} frames, here photographs of different days and places. Frames of "
            f"one moment at a door are more alike, so that a second and third chance helps less there: FNMR "
            f"here flatters."
        )
        least, most = attempt_fmr_bounds(USUAL_FMR, report.frames)
        yield (
            f"What frames of one moment have in common decides how often an attempt by a stranger is "
            f"accepted: where {percent(USUAL_FMR)} of single frames are, between {percent(least)} and "
            f"{percent(most)} of attempts of {report.frames}. The pack's thresholds for three frames are "
            f"those of one frame at a third of the rate, so that the bound holds whatever they share."
        )


def _origin(report: Report) -> Iterator[str]:
    yield (
        "These are photographs, not frames of the door's camera: its light, angle and distance, movement, "
        "and people who look away are not in them. Photographs are also chosen by somebody, so that failures "
        "to acquire may well be more frequent at a door than FTA says."
    )
    yield (
        "How much a face changes between enrolment and attempt, over months and years, is known only as far "
        "as the photographs span it."
    )
    if report.at_pack_thresholds:
        yield (
            "Whether some of these people are among those on whom the pack's thresholds were fixed is not "
            "known to the program. If so, the figures at these thresholds flatter."
        )
    if _LABELED_FACES.search(report.data):
        yield (
            "Labeled Faces in the Wild shows people in the news of about 2002 to 2004, mostly men, mostly "
            "adults and mostly of light skin, in photographs of the press; some are wrongly labelled. "
            "Figures on it say little about others, and the models may have learnt from some of "
            "the same people."
        )
    else:
        yield (
            "Who is in the set, how they were found, and whether the models have learnt from the same people "
            "is not known to the program. Whoever gathered the photographs has to state it."
        )
    if report.pairs is not None:
        yield (
            f"A list of pairs does not say who is who: of the {count(report.photographs)} photographs those "
            f"that a pair calls the same person count as one, and all others as people of their own. Where "
            f"more of them are one person, the intervals are narrower than they ought to be."
        )
