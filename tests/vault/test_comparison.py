import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from appliance.link.messages import (
    Probe,
)
from appliance.vault.attempt import take_embedding
from appliance.vault.comparison import NotAnEmbedding, Vector, make_template, read_embedding, score
from tests.vault.faces import DECIDER, DIMENSION, EDGE, face, seen

SMALL = 16
numbers = st.floats(-1, 1, width=32)
vectors = arrays(np.float32, SMALL, elements=numbers).filter(lambda vector: np.linalg.norm(vector) > 1e-3)


def unit(vector: Vector) -> Vector:
    return read_embedding(vector.astype("<f4").tobytes(), SMALL)


@given(one=vectors, other=vectors, mean=vectors)
def test_a_score_is_a_cosine_whichever_of_the_two_is_the_template(
    one: Vector, other: Vector, mean: Vector
) -> None:
    template, probe = unit(one), unit(other)
    value = score(template, probe, mean)
    assert -1 - 1e-5 <= value <= 1 + 1e-5
    assert value == score(probe, template, mean)


@given(one=vectors, mean=vectors)
def test_nobody_is_more_alike_than_oneself(one: Vector, mean: Vector) -> None:
    template = unit(one)
    if np.linalg.norm(template - mean) > 1e-3:
        assert score(template, template, mean) == pytest.approx(1, abs=1e-4)
    assert score(mean, template, mean) == -1


def test_a_comparison_leaves_template_probe_and_mean_as_they_were() -> None:
    template, probe, mean = face(1), face(2), EDGE.mean.copy()
    score(template, probe, mean)
    assert np.array_equal(template, face(1))
    assert np.array_equal(probe, face(2))
    assert np.array_equal(mean, EDGE.mean)


def test_one_person_is_above_the_threshold_and_strangers_are_below() -> None:
    template = make_template([read_embedding(seen(1, frame), DIMENSION) for frame in range(5)])
    assert score(template, read_embedding(seen(1, 9), DIMENSION), EDGE.mean) >= DECIDER.threshold
    strangers = [score(template, read_embedding(seen(seed), DIMENSION), EDGE.mean) for seed in range(2, 100)]
    assert max(strangers) < DECIDER.threshold


@settings(max_examples=300)
@given(raw=arrays(np.float32, SMALL, elements=st.floats(width=32)))
@example(raw=np.full(SMALL, 3e38, np.float32))
@example(raw=np.full(SMALL, 1e-38, np.float32))
def test_numbers_that_no_embedding_has_are_refused_and_all_others_have_length_one(raw: Vector) -> None:
    try:
        vector = read_embedding(raw.astype("<f4").tobytes(), SMALL)
    except NotAnEmbedding:
        assert not 1.01e-6 <= np.linalg.norm(raw.astype(np.float64)) <= 1e19
    else:
        assert np.linalg.norm(vector.astype(np.float64)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_number_spoils_the_embedding(bad: float) -> None:
    vector = face(1)
    vector[100] = bad
    with pytest.raises(NotAnEmbedding, match="finite"):
        read_embedding(vector.tobytes(), DIMENSION)


def test_an_embedding_without_direction_is_refused() -> None:
    with pytest.raises(NotAnEmbedding, match="direction"):
        read_embedding(bytes(4 * DIMENSION), DIMENSION)


@pytest.mark.parametrize("length", [0, 4, 4 * DIMENSION - 4, 4 * DIMENSION - 1, 4 * DIMENSION + 4])
def test_an_embedding_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(NotAnEmbedding, match="bytes are no embedding"):
        read_embedding((face(1).tobytes() * 2)[:length], DIMENSION)


def test_a_template_needs_embeddings_that_agree() -> None:
    with pytest.raises(NotAnEmbedding, match="at least one"):
        make_template([])
    with pytest.raises(NotAnEmbedding, match="cancel out"):
        make_template([face(1), -face(1)])
    assert np.linalg.norm(make_template([face(1), face(2)])) == pytest.approx(1, abs=1e-5)


def test_taking_a_probe_overwrites_the_bytes_it_came_in() -> None:
    buffer = bytearray(seen(1))
    embedding = take_embedding(Probe(buffer), DIMENSION)
    assert embedding.any()
    assert not any(buffer)
    nonsense = bytearray(b"\xff" * 4 * DIMENSION)
    with pytest.raises(NotAnEmbedding):
        take_embedding(Probe(nonsense), DIMENSION)
    assert not any(nonsense)
