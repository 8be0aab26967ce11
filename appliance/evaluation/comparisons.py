"""Embeddings to scores: who is enrolled, who stands before the door, and how alike each pair is.

With vault's own `make_template`, and the cosine of vault's own `score`, on many at once:

- *templates* of N photographs of a person who has more than N, up to five a person, drawn by chance;
- *genuine attempts* of M frames: photographs of the same person that are not in the template, up to twenty
  photographs a template;
- *impostor attempts* of M frames: photographs of everyone else, up to twenty a person, against each template.

Five and twenty, because it is people that are sampled: somebody of whom there are five hundred photographs
would otherwise count as five hundred. (In Labeled Faces in the Wild one pair of brothers, of whom one has
hundreds, makes up two thirds of all false matches at FMR 1e-4 when all photographs count.)

An attempt of several frames has the score of its best, since at the door it passes if any frame does.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from appliance.errors import ConfigurationError
from appliance.evaluation.dataset import Dataset
from appliance.evaluation.embeddings import Embeddings
from appliance.evaluation.error_rates import ScoreSet
from appliance.evaluation.impostor_tail import ImpostorTail
from appliance.vault.comparison import make_template

Vectors = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

MOST_TEMPLATES = 5
"""Of one person: more would only count the same few people again."""
MOST_PROBES = 20
"""Photographs of one person that stand before one template, for the same reason."""
HARDEST = 20
"""Pairs that a report names, of each kind."""


class NobodyToCompare(ConfigurationError):
    """No person has enough photographs with a face."""


@dataclass(frozen=True, slots=True, order=True)
class Comparison:
    """One template and one attempt against it; photographs as indices into the data set."""

    score: float
    person: int
    probe_person: int
    template: tuple[int, ...]
    probe: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Comparisons:
    """All scores, and the hardest.

    Attributes:
        scores: for `error_rates`.
        template_size, frames: N and M.
        templates: how many there are.
        to_enrol: people with more than N photographs.
        not_enrolled: those of them from whom no template could be made.
        hardest_genuine: the least alike first, one a person.
        hardest_impostors: the most alike first, one for each two people.
    """

    scores: ScoreSet
    template_size: int
    frames: int
    templates: int
    to_enrol: int
    not_enrolled: int
    hardest_genuine: list[Comparison]
    hardest_impostors: list[Comparison]


@dataclass(frozen=True, slots=True)
class Enrolled:
    """One template; photographs as rows of the embeddings.

    Attributes:
        person: whose it is.
        template: (N,), its photographs.
        genuine: (n, M), the attempts of that person at it.
    """

    person: int
    template: Indices
    genuine: Indices


@dataclass(frozen=True, slots=True)
class Draw:
    """What is compared, as chance had it.

    Attributes:
        enrolled: all templates, with their genuine attempts.
        attempts: (n, M), the attempts that each of everyone else's templates meets; rows of the embeddings.
        standing: (n,), who makes them.
    """

    enrolled: list[Enrolled]
    attempts: Indices
    standing: Indices


def compare(
    data: Dataset, seen: Embeddings, mean: Vectors, *, template_size: int, frames: int, seed: int
) -> Comparisons:
    """Compare templates with attempts.

    Args:
        data: whose photographs they are.
        seen: their embeddings.
        mean: the pack's mean embedding (d,).
        template_size: photographs in a template, 1 or more.
        frames: photographs in an attempt, 1 or more.
        seed: of what is drawn by chance.

    Raises:
        NobodyToCompare: nobody has enough photographs with a face.
    """
    owner = owners(data)
    drawn = draw(owner[seen.index], len(data.people), template_size=template_size, frames=frames, seed=seed)
    attempts, standing = drawn.attempts, drawn.standing
    attempts_of = np.bincount(standing, minlength=len(data.people)).astype(np.int64)
    templates_of = np.zeros(len(data.people), np.int64)
    genuine: list[Vectors] = []
    genuine_person: list[Indices] = []
    tail = ImpostorTail()
    hardest = _Hardest(seen.index)
    for each in drawn.enrolled:
        person, template, mine = each.person, each.template, each.genuine
        made = make_template(list(seen.vectors[template]))
        scores = score_all(made, seen.vectors, mean)
        if mine.size:
            own = scores[mine].max(axis=1)
            genuine.append(own)
            genuine_person.append(np.full(len(own), person, np.int64))
            hardest.genuine(person, template, mine, own)
        others = standing != person
        theirs = scores[attempts[others]].max(axis=1)
        tail.add(theirs, person, standing[others])
        hardest.impostors(person, template, attempts[others], standing[others], theirs)
        templates_of[person] += 1
    if genuine and not tail.added:
        raise NobodyToCompare("there is nobody else to compare with: give photographs of two people or more")
    if not genuine:
        raise NobodyToCompare(
            f"nobody has {template_size + frames} photographs with a face, which a template of "
            f"{template_size} and an attempt of {frames} take: give more photographs, or a smaller --template"
        )
    have_files = np.bincount(owner, minlength=len(data.people))
    to_enrol = have_files > template_size
    scores_set = tail.score_set(
        np.concatenate(genuine), np.concatenate(genuine_person), templates_of, attempts_of
    )
    return Comparisons(
        scores_set,
        template_size,
        frames,
        int(templates_of.sum()),
        int(to_enrol.sum()),
        int((to_enrol & (templates_of == 0)).sum()),
        hardest.least_alike(),
        hardest.most_alike(),
    )


def owners(data: Dataset) -> Indices:
    """Whose each photograph is, (photographs,)."""
    return np.array([photograph.person for photograph in data.photographs], np.int64)


def draw(owner: Indices, people: int, *, template_size: int, frames: int, seed: int) -> Draw:
    """Who is enrolled with which photographs, and who stands before the door with which.

    Args:
        owner: whose each embedding is, (n,).
        people: how many there are.
        template_size: photographs in a template, 1 or more.
        frames: photographs in an attempt, 1 or more.
        seed: of what is drawn by chance.
    """
    rng = np.random.default_rng(seed)
    have = _by_person(owner, people)
    attempts, standing = _attempts(have, frames, rng)
    enrolled = [
        Enrolled(person, template, _genuine_attempts(have[person], template, frames, rng))
        for person, template in _templates(have, template_size, rng)
    ]
    return Draw(enrolled, attempts, standing)


def score_all(template: Vectors, probes: Vectors, mean: Vectors) -> Vectors:
    """What `vault.comparison.score` says of each probe, at once.

    Args:
        template: normalised (d,).
        probes: normalised (n, d).
        mean: the pack's mean embedding (d,).

    Returns:
        (n,) cosines, from -1 to 1.
    """
    one, others = template - mean, probes - mean
    lengths = np.linalg.norm(one) * np.linalg.norm(others, axis=1)
    scores: Vectors = np.where(lengths > 0, others @ one / np.where(lengths > 0, lengths, 1), -1)
    return scores.astype(np.float32)


def _by_person(owner: Indices, people: int) -> list[Indices]:
    """Rows of each person."""
    order = np.argsort(owner, kind="stable")
    return np.split(order, np.searchsorted(owner[order], np.arange(1, people)))


def _templates(have: Sequence[Indices], size: int, rng: np.random.Generator) -> Iterator[tuple[int, Indices]]:
    """Disjoint draws of `size` rows of each person who has more."""
    for person, rows in enumerate(have):
        if len(rows) <= size:
            continue
        drawn = rng.permutation(rows)
        for number in range(min(len(rows) // size, MOST_TEMPLATES)):
            yield person, drawn[number * size : (number + 1) * size]


def _genuine_attempts(rows: Indices, template: Indices, frames: int, rng: np.random.Generator) -> Indices:
    """Rows of attempts (n, frames), none of which is in the template."""
    probes = rng.permutation(np.setdiff1d(rows, template))[:MOST_PROBES]
    whole = len(probes) // frames
    return probes[: whole * frames].reshape(whole, frames)


def _attempts(have: Sequence[Indices], frames: int, rng: np.random.Generator) -> tuple[Indices, Indices]:
    """Rows of all attempts as an impostor (n, frames), and who stands there (n,)."""
    attempts, standing = [np.zeros((0, frames), np.int64)], [np.zeros(0, np.int64)]
    for person, rows in enumerate(have):
        drawn = rng.permutation(rows)[:MOST_PROBES]
        whole = len(drawn) // frames
        if whole:
            attempts.append(drawn[: whole * frames].reshape(whole, frames))
            standing.append(np.full(whole, person, np.int64))
    return np.concatenate(attempts), np.concatenate(standing)


@dataclass(slots=True)
class _Hardest:
    """The comparisons that come nearest to an error, or are one."""

    index: Indices
    _genuine: dict[int, Comparison] = field(default_factory=dict)
    _impostors: dict[tuple[int, int], Comparison] = field(default_factory=dict)

    def genuine(self, person: int, template: Indices, attempts: Indices, scores: Vectors) -> None:
        worst = int(np.argmin(scores))
        found = self._comparison(person, person, template, attempts[worst], scores[worst])
        if person not in self._genuine or found < self._genuine[person]:
            self._genuine[person] = found

    def impostors(
        self, person: int, template: Indices, attempts: Indices, standing: Indices, scores: Vectors
    ) -> None:
        if not len(scores):
            return
        # Enough of them that twenty different people may be among them, whatever the first are.
        first = np.argpartition(scores, -min(len(scores), 5 * HARDEST))[-5 * HARDEST :]
        for row in first[np.argsort(-scores[first], kind="stable")]:
            other = int(standing[row])
            two = (min(person, other), max(person, other))
            if two not in self._impostors or scores[row] > self._impostors[two].score:
                self._impostors[two] = self._comparison(person, other, template, attempts[row], scores[row])
        if len(self._impostors) > 50 * HARDEST:
            kept = heapq.nlargest(HARDEST, self._impostors.items(), key=lambda item: item[1].score)
            self._impostors = dict(kept)

    def least_alike(self) -> list[Comparison]:
        return heapq.nsmallest(HARDEST, self._genuine.values())

    def most_alike(self) -> list[Comparison]:
        return heapq.nlargest(HARDEST, self._impostors.values())

    def _comparison(
        self, person: int, other: int, template: Indices, attempt: Indices, score: np.float32
    ) -> Comparison:
        return Comparison(
            float(score),
            person,
            other,
            tuple(self.index[template].tolist()),
            tuple(self.index[attempt].tolist()),
        )
