import numpy as np
import pytest

from appliance.evaluation.comparisons import MOST_PROBES, MOST_TEMPLATES, NobodyToCompare, compare, score_all
from appliance.evaluation.dataset import Dataset
from appliance.evaluation.embeddings import Embeddings
from appliance.vault.comparison import make_template, score
from tests.evaluation.people import made_up, seen, units

ZERO = np.zeros(64, np.float32)


@pytest.mark.parametrize("dimension", [128, 512])
@pytest.mark.parametrize("shift", [0.0, 0.6])
def test_all_scores_at_once_are_those_of_the_vault(dimension: int, shift: float) -> None:
    vectors = units(200, dimension, 1)
    mean = np.float32(shift) * units(1, dimension, 2)[0]
    template = make_template(list(vectors[:5]))
    scores = score_all(template, vectors, mean)
    expected = [score(template, vector, mean) for vector in vectors]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6)


def test_a_vector_without_direction_scores_as_in_the_vault() -> None:
    mean = units(1, 128, 3)[0]
    vectors = np.stack([mean, units(1, 128, 4)[0]])
    scores = score_all(vectors[1], vectors, mean)
    assert scores[0] == score(vectors[1], mean, mean) == -1


def test_genuine_scores_are_of_photographs_outside_the_template() -> None:
    data, people = made_up([7, 3], noise=0.0)
    found = compare(data, people, ZERO, template_size=5, frames=1, seed=1)
    assert found.templates == 1
    assert found.scores.templates_of.tolist() == [1, 0]
    assert found.scores.attempts_of.tolist() == [7, 3]
    np.testing.assert_allclose(found.scores.genuine, [1, 1], atol=1e-6)
    other = float(people.vectors[0] @ people.vectors[7])
    np.testing.assert_allclose(found.scores.tail, [other] * 3, atol=1e-6)


def test_no_photograph_of_a_template_is_its_own_probe_and_none_is_in_two_templates() -> None:
    data, people = made_up([23, 6, 6], noise=0.4)
    found = compare(data, people, ZERO, template_size=5, frames=1, seed=1)
    assert found.templates == 4 + 1 + 1
    assert len(found.scores.genuine) == 4 * 18 + 1 + 1
    for each in found.hardest_genuine:
        assert not set(each.template) & set(each.probe)
        assert each.person == each.probe_person


def test_people_with_very_many_photographs_count_for_no_more_than_the_most() -> None:
    data, people = made_up([200, 8], noise=0.4)
    found = compare(data, people, ZERO, template_size=5, frames=1, seed=1)
    assert found.scores.templates_of.tolist() == [MOST_TEMPLATES, 1]
    assert np.bincount(found.scores.genuine_person).tolist() == [MOST_TEMPLATES * MOST_PROBES, 3]
    assert found.scores.attempts_of.tolist() == [MOST_PROBES, 8]


def test_an_attempt_of_several_frames_is_as_good_as_its_best() -> None:
    data, people = made_up([8, 7, 3, 2], noise=0.7)
    one = compare(data, people, ZERO, template_size=5, frames=1, seed=1)
    three = compare(data, people, ZERO, template_size=5, frames=3, seed=1)
    # Person 0 has three probes left, person 1 two: one attempt of three frames.
    assert len(three.scores.genuine) == 1
    assert three.scores.genuine[0] >= one.scores.genuine[one.scores.genuine_person == 0].max() - 1e-6
    assert three.scores.attempts_of.tolist() == [2, 2, 1, 0]
    assert three.scores.impostors == (2 + 1) + (2 + 1)
    assert three.scores.tail.max() <= one.scores.tail.max() + 1e-6


def test_the_same_seed_draws_the_same_and_another_draws_otherwise() -> None:
    data, people = made_up([12] * 6, noise=0.8)
    first, again, other = (
        compare(data, people, ZERO, template_size=5, frames=1, seed=seed).scores.genuine for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("frames", [1, 3])
def test_a_mislabelled_person_is_among_the_hardest_pairs(frames: int) -> None:
    """One folder holds two people; and two folders hold the same person."""
    data, people = made_up([12] * 40, noise=0.5)
    vectors = people.vectors.copy()
    owner = np.array([each.person for each in data.photographs])
    stranger = units(1, 64, 99)[0]
    mixed = np.flatnonzero(owner == 7)[6:]
    vectors[mixed] = stranger + 0.5 * units(len(mixed), 64, 98)
    double = np.flatnonzero(owner == 20)
    vectors[double] = vectors[np.flatnonzero(owner == 3)][0] + 0.3 * units(len(double), 64, 97)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = compare(data, seen(vectors), ZERO, template_size=5, frames=frames, seed=1)
    assert found.hardest_genuine[0].person == 7
    assert {found.hardest_impostors[0].person, found.hardest_impostors[0].probe_person} == {3, 20}
    pairs = [frozenset((each.person, each.probe_person)) for each in found.hardest_impostors]
    assert len(set(pairs)) == len(pairs) == 20
    assert [each.score for each in found.hardest_impostors] == sorted(
        (each.score for each in found.hardest_impostors), reverse=True
    )


def test_who_cannot_be_enrolled_is_counted() -> None:
    data, people = made_up([6, 6, 6, 2], noise=0.1)
    # Of person 1 only four photographs show a face.
    lost = [6, 7]
    kept = np.setdiff1d(np.arange(len(data.photographs)), lost)
    outcomes = people.outcomes.copy()
    outcomes[lost] = 1
    partly = Embeddings(outcomes, people.verdicts, kept, people.vectors[kept])
    found = compare(data, partly, ZERO, template_size=5, frames=1, seed=1)
    assert (found.to_enrol, found.not_enrolled, found.templates) == (3, 1, 2)
    assert all(not set(each.template) & set(lost) for each in found.hardest_genuine)


@pytest.mark.parametrize("photographs", [[5, 5], [1], [6, 6]])
def test_too_few_photographs_are_said(photographs: list[int]) -> None:
    data, people = made_up(photographs, noise=0.1)
    frames = 2 if photographs == [6, 6] else 1
    with pytest.raises(NobodyToCompare, match="nobody has"):
        compare(data, people, ZERO, template_size=5, frames=frames, seed=1)


def test_one_person_alone_is_no_evaluation() -> None:
    data, people = made_up([8], noise=0.1)
    with pytest.raises(NobodyToCompare, match="two people"):
        compare(data, people, ZERO, template_size=5, frames=1, seed=1)


def test_nobody_with_a_face_is_said() -> None:
    data, _ = made_up([6, 6], noise=0.1)
    empty = Embeddings(
        np.ones(12, np.int8), np.ones(12, np.int8), np.zeros(0, np.int64), np.zeros((0, 0), "f4")
    )
    with pytest.raises(NobodyToCompare):
        compare(Dataset("x", data.people, data.photographs), empty, ZERO, template_size=5, frames=1, seed=1)
