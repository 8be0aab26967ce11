"""What an evaluation cannot tell, in sentences for whoever relies on it."""

import re
from collections.abc import Iterator

from appliance.evaluation.report.model import Report
from appliance.evaluation.report.words import count, most_with_no_error, people, percent, stated

FEW_PEOPLE = 30
"""In a group: below it, its rates say little more than that it was measured."""

_LABELED_FACES = re.compile(r"(?<![a-z])lfw(?![a-z])|label?led faces in the wild", re.IGNORECASE)


def with_limits(report: Report) -> Report:
    """The report, with the sentences of this room after those that it has already."""
    said = (*report.cannot_tell, *(each for each in limits(report) if each not in report.cannot_tell))
    return report.model_copy(update={"cannot_tell": said})


def limits(report: Report) -> list[str]:
    """All sentences that hold for a report, the gravest first."""
    return [*_people(report), *_groups(report), *_attempts(report), *_origin(report)]


def _people(report: Report) -> Iterator[str]:
    most = percent(most_with_no_error(report.template_people, report.level))
    yield (
        f"The number of people bounds what can be said, not the number of comparisons: templates are of "
        f"{people(report.template_people)}. Even if none of them is ever refused, up to {most} of all people "
        f"could still be (the rule of three: about 3 divided by the number of people)."
    )
    if report.template_people < 2:
        yield (
            "With templates of fewer than two people no interval means anything: how one person differs from "
            "the next is not in the data."
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
        f"{attribute}: {row.group} ({row.people})"
        for attribute, groups in report.groups.items()
        for row in groups.rows
        if row.people < FEW_PEOPLE
    ]
    if few:
        yield (
            f"Of groups with fewer than {FEW_PEOPLE} people little can be said; a gap may be chance, and one "
            f"may be hidden: {', '.join(few)}."
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
            f"A list of pairs does not say who is who: each of the {count(report.photographs)} photographs "
            f"counts as a person of its own, so that the intervals are narrower than they ought to be."
        )
