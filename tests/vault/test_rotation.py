import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.vault import rotation
from appliance.vault.comparison import NotAnEmbedding, Vector, score
from appliance.vault.rotation import MAX_DIMENSIONS, Rotation, padded
from tests.cases import many
from tests.vault import reference
from tests.vault.watching import locals_at_return

CASES: list[dict[str, Any]] = json.loads((reference.VECTORS / "rotation.json").read_text())
KEY = bytes(range(32))
seeds = st.integers(0, 2**32)


def somebody(seed: int, dimensions: int, length: float = 1) -> Vector:
    raw = np.random.default_rng(seed).normal(size=dimensions)
    return np.asarray(raw * (length / np.linalg.norm(raw)), np.float32)


def float32(text: str) -> Vector:
    return np.frombuffer(bytes.fromhex(text), "<f4").astype(np.float32)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["dimensions"]))
def test_a_rotation_is_bit_for_bit_that_of_the_committed_vectors(case: dict[str, Any]) -> None:
    turned = Rotation(bytearray.fromhex(case["key"]), case["dimensions"])
    rotated = turned.rotate(float32(case["vector_float32"]), float32(case["mean_float32"]))
    assert rotated.astype("<f8").tobytes().hex() == case["rotated_float64"]
    assert rotated.astype("<f4").tobytes().hex() == case["rotated_float32"]


def test_the_committed_vectors_are_those_that_the_reference_makes() -> None:
    for name, cases in reference.files().items():
        assert json.loads((reference.VECTORS / name).read_text()) == cases


def test_the_key_derivation_of_the_reference_is_that_of_rfc_5869() -> None:
    # Appendix A.1.
    first = reference.extract(bytes(range(13)), b"\x0b" * 22)
    assert first.hex() == "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"
    assert reference.expand(first, bytes(range(0xF0, 0xFA)), 42).hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )


@many
@given(key=st.binary(min_size=32, max_size=32), seed=seeds, dimensions=st.integers(1, 40))
def test_every_rotation_is_bit_for_bit_that_of_the_reference(key: bytes, seed: int, dimensions: int) -> None:
    vector, mean = somebody(seed, dimensions), somebody(seed + 1, dimensions, 0.3)
    rotated = Rotation(bytearray(key), dimensions).rotate(vector, mean)
    assert rotated.tolist() == reference.rotate(key, vector.tolist(), mean.tolist())


@many
@given(
    key=st.binary(min_size=32, max_size=32),
    seed=seeds,
    dimensions=st.sampled_from([512, 128, 100, 511, 65, 7]),
    alike=st.floats(0, 1),
)
def test_a_cosine_stays_what_it_was(key: bytes, seed: int, dimensions: int, alike: float) -> None:
    one, mean = somebody(seed, dimensions), somebody(seed + 2, dimensions, 0.3)
    other = one * np.float32(alike) + somebody(seed + 1, dimensions) * np.float32(1 - alike)
    turned = Rotation(bytearray(key), dimensions)
    first, second = turned.rotate(one, mean), turned.rotate(other, mean)
    assert math.isclose(np.linalg.norm(first), 1, abs_tol=1e-12)
    assert float(first @ second) == pytest.approx(score(one, other, mean), abs=1e-6)


def test_the_transform_is_that_of_hadamard() -> None:
    hadamard = np.ones((1, 1))
    for _ in range(4):
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    transformed = [rotation._transform(row.copy(), np.empty(16))[0] for row in np.eye(16)]
    assert np.array_equal(transformed, hadamard)


def test_every_flipped_bit_of_the_key_gives_another_rotation() -> None:
    vector, mean = somebody(1, 512), somebody(2, 512, 0.3)
    before = Rotation(bytearray(KEY), 512).rotate(vector, mean)
    for bit in range(256):
        key = bytearray(KEY)
        key[bit // 8] ^= 1 << bit % 8
        # Six deviations of what two unrelated vectors have.
        assert abs(before @ Rotation(key, 512).rotate(vector, mean)) < 6 / math.sqrt(512)


@pytest.mark.parametrize("dimensions", [-1, 0, MAX_DIMENSIONS + 1, 65535])
def test_a_number_of_dimensions_that_no_embedding_has_is_refused(dimensions: int) -> None:
    with pytest.raises(NotAnEmbedding):
        Rotation(bytearray(KEY), dimensions)


def test_a_vector_is_padded_to_a_power_of_two() -> None:
    sizes = {1: 2, 2: 2, 3: 4, 100: 128, 128: 128, 129: 256, 512: 512}
    assert {each: padded(each) for each in sizes} == sizes


def test_what_is_no_embedding_is_refused() -> None:
    turned, vector, mean = Rotation(bytearray(KEY), 100), somebody(1, 100), somebody(2, 100, 0.3)
    broken = vector.copy()
    broken[3] = np.nan
    endless = vector.copy()
    endless[3] = -np.inf
    for bad in (mean, broken, endless, vector[:99], np.append(vector, vector[:1]), vector.reshape(1, -1)):
        with pytest.raises(NotAnEmbedding):
            turned.rotate(bad, mean)
    with pytest.raises(NotAnEmbedding):
        turned.rotate(vector, mean[:1])


def test_what_is_rotated_stays_as_it_is() -> None:
    vector, mean = somebody(1, 100), somebody(2, 100, 0.3)
    Rotation(bytearray(KEY), 100).rotate(vector, mean)
    assert np.array_equal(vector, somebody(1, 100))
    assert np.array_equal(mean, somebody(2, 100, 0.3))


def test_key_stream_and_work_buffers_are_overwritten_and_a_forgotten_rotation_is_gone() -> None:
    vector, mean = somebody(1, 512), somebody(2, 512, 0.3)
    with locals_at_return(rotation._expand) as of_expand:
        turned = Rotation(bytearray(KEY), 512)
    with locals_at_return(Rotation.rotate) as of_rotate:
        turned.rotate(vector, mean)
        with pytest.raises(NotAnEmbedding):
            turned.rotate(mean, mean)
    assert len(of_expand) == 3
    for call in of_expand:
        assert len(call["stream"]) == 8 * 512 + 64
        assert not any(call["stream"])
        assert not call["bits"].any()
    assert len(of_rotate) == 2
    for call in of_rotate:
        assert not call["values"].any()
        assert not call["spare"].any()
    turned.forget()
    assert not any(each.any() for each in (*turned._signs, *turned._orders))
    assert not turned.rotate(vector, mean).any()
