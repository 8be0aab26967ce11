"""Gather the impostor scores template by template: the largest one by one, all of them as a histogram."""

import numpy as np
import numpy.typing as npt

from appliance.evaluation.error_rates import (
    BINS,
    Counts,
    People,
    Scores,
    ScoresError,
    ScoreSet,
    check_scores,
    histogram_of,
)

KEPT = 2_000_000
"""Impostor scores kept with their people: enough for FMR 1e-2 of 200 million, in 48 MB."""


class ImpostorTail:
    """The `keep` largest of all impostor scores that were added, and the histogram of all.

    Memory is flat, whatever is added: twice `keep` are held at most, and cut back to the largest `keep` when
    full. Of scores that are equal to the last one kept, some may be dropped.
    """

    def __init__(self, keep: int = KEPT) -> None:
        if keep < 1:
            raise ScoresError(f"a tail of {keep} scores: keep one or more")
        self._keep = keep
        self._scores = np.empty(2 * keep, np.float32)
        self._template = np.empty(2 * keep, np.int32)
        self._probe = np.empty(2 * keep, np.int32)
        self._held = 0
        self._least = np.float32(-np.inf)
        self._histogram = np.zeros(BINS, np.int64)

    @property
    def added(self) -> int:
        """How many scores were added."""
        return int(self._histogram.sum())

    def add(
        self, scores: npt.NDArray[np.floating], template_person: int, probe_people: npt.NDArray[np.integer]
    ) -> None:
        """Add the scores of one template.

        Args:
            scores: (n,), rounded to float32.
            template_person: whose template.
            probe_people: (n,), who stood before it; never that person.

        Raises:
            ScoresError: a score is no number from -1 to 1, or a probe is of the template's own person.
        """
        if scores.shape != probe_people.shape or scores.ndim != 1:
            raise ScoresError(f"scores {scores.shape} of probes {probe_people.shape}: give a row, and whose")
        check_scores(scores, "a template")
        if (probe_people == template_person).any():
            raise ScoresError("an impostor score of a person with the own template: leave those out")
        scores = scores.astype(np.float32)
        self._histogram += histogram_of(scores)
        candidate = scores > self._least
        scores, probe_people = scores[candidate], probe_people[candidate]
        start = 0
        while start < len(scores):
            taken = slice(start, start + 2 * self._keep - self._held)
            self._append(scores[taken], template_person, probe_people[taken])
            start = taken.stop

    def score_set(
        self,
        genuine: npt.NDArray[np.floating],
        genuine_person: npt.NDArray[np.integer],
        templates_of: npt.NDArray[np.integer],
        attempts_of: npt.NDArray[np.integer],
    ) -> ScoreSet:
        """All that was added, with the genuine scores; see `ScoreSet` for the rest.

        Raises:
            ScoresError: the counts do not fit what was added.
        """
        if self._held > self._keep:
            self._cut()
        held = slice(0, self._held)
        # The people decide between equal scores, so that the order of adding makes no difference.
        order = np.lexsort((self._probe[held], self._template[held], -self._scores[held]))
        tail: Scores = self._scores[order]
        template: People = self._template[order]
        probe: People = self._probe[order]
        counts: list[Counts] = [each.astype(np.int64) for each in (templates_of, attempts_of)]
        return ScoreSet(
            genuine=genuine.astype(np.float32),
            genuine_person=genuine_person.astype(np.int32),
            tail=tail,
            tail_template=template,
            tail_probe=probe,
            templates_of=counts[0],
            attempts_of=counts[1],
            histogram=self._histogram.copy(),
        )

    def _append(self, scores: Scores, template_person: int, probe_people: npt.NDArray[np.integer]) -> None:
        room = slice(self._held, self._held + len(scores))
        self._scores[room] = scores
        self._template[room] = template_person
        self._probe[room] = probe_people
        self._held = room.stop
        if self._held == 2 * self._keep:
            self._cut()

    def _cut(self) -> None:
        """Keep the largest, and remember which score a newcomer has to beat."""
        largest = np.argpartition(self._scores[: self._held], self._held - self._keep)[-self._keep :]
        for values in (self._scores, self._template, self._probe):
            values[: self._keep] = values[largest]
        self._held = self._keep
        self._least = self._scores[: self._keep].min()
