import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from appliance.vault.quantisation import STEPS, quantise, quantised_size, restore
from tests.cases import many
from tests.vault import reference
from tests.vault.watching import locals_at_return

CASES: list[dict[str, Any]] = json.loads((reference.VECTORS / "rotation.json").read_text())
both = pytest.mark.parametrize("bits", [4, 8])


def unit(seed: int, size: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    raw = np.random.default_rng(seed).normal(size=size)
    return raw / np.linalg.norm(raw)


def error(step: float, bits: int) -> float:
    """The mean squared error of the uniform quantiser for a normal distribution of deviation 1."""

    def below(edge: float, level: float) -> float:
        """The integral of (x - level)² over the density, up to `edge`."""
        tail = 0.0 if math.isinf(edge) else (edge - 2 * level) * norm.pdf(edge)
        return float((1 + level * level) * norm.cdf(edge) - tail)

    count = 2 ** (bits - 1)
    edges = [step * i for i in range(count)] + [math.inf]
    return 2 * sum(
        below(edges[i + 1], step * (i + 0.5)) - below(edges[i], step * (i + 0.5)) for i in range(count)
    )


@both
def test_the_step_is_the_one_of_least_error(bits: int) -> None:
    best = minimize_scalar(
        error, args=(bits,), bounds=(1 / 2**bits, 8 / 2**bits), method="bounded", options={"xatol": 1e-9}
    )
    assert STEPS[bits] == pytest.approx(best.x, rel=2e-4)
    # As Max's table II has it for 16 levels: 0.01154; and as the module's docstring says.
    assert best.fun == pytest.approx({4: 0.01154, 8: 0.0000877}[bits], rel=1e-3)


@both
def test_what_is_lost_is_what_the_theory_says(bits: int) -> None:
    lost = []
    for seed in range(200):
        values = unit(seed, 512)
        back = restore(quantise(values, bits), bits)
        lost.append(1 - float(values @ back) / float(np.linalg.norm(back)))
    assert 2 * np.mean(lost) == pytest.approx(error(STEPS[bits], bits), rel=0.1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["dimensions"]))
@both
def test_levels_are_those_of_the_committed_vectors(case: dict[str, Any], bits: int) -> None:
    values = np.frombuffer(bytes.fromhex(case["rotated_float64"]), "<f8").astype(np.float64)
    assert quantise(values, bits).hex() == case[f"quantised_{bits}"]


@many
@given(seed=st.integers(0, 2**32), size=st.sampled_from([2, 4, 16, 128, 512]), bits=st.sampled_from([4, 8]))
def test_levels_are_those_of_the_reference_and_come_back_within_half_a_step(
    seed: int, size: int, bits: int
) -> None:
    values = unit(seed, size)
    packed = quantise(values, bits)
    assert bytes(packed) == reference.quantise(values.tolist(), bits)
    assert len(packed) == quantised_size(size, bits)
    step = STEPS[bits] / math.sqrt(size)
    within = np.abs(values) < step * 2 ** (bits - 1)
    back = restore(packed, bits)
    assert np.all(np.abs(back - values)[within] <= step / 2 * (1 + 1e-9))
    assert np.all(np.sign(back) == np.where(values >= 0, 1, -1))
    # What was restored falls into the levels it came from.
    assert quantise(back, bits) == packed


@both
def test_what_lies_beyond_takes_the_outermost_level(bits: int) -> None:
    values = np.array([1.0, -1.0, 0.0, -0.0] + [0.0] * 60)
    packed = quantise(values, bits)
    assert packed[: quantised_size(4, bits)].hex() == {4: "f088", 8: "ff008080"}[bits]


@both
def test_every_buffer_is_overwritten(bits: int) -> None:
    values = unit(1, 512)
    with locals_at_return(quantise) as of_quantise:
        packed = quantise(values, bits)
    with locals_at_return(restore) as of_restore:
        restore(packed, bits)
    assert len(of_quantise) == len(of_restore) == 1
    assert not of_quantise[0]["levels"].any()
    if bits == 4:
        assert not any(of_quantise[0]["packed"])
        assert not of_restore[0]["nibbles"].any()
