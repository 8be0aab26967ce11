import numpy as np
import pytest

from appliance.evaluation.token_size import (
    TOKENS,
    Measured,
    distance,
    drawn,
    is_read,
    main,
    measure,
    modules_of,
    on_token,
    tables,
)
from appliance.lens.code import read_codes

TIER_2 = TOKENS[0]


def test_tokens_are_as_long_as_vault_makes_them() -> None:
    assert [each.size for each in TOKENS] == [35, 323, 579]
    assert on_token(4, dimensions=128).size == 131


def test_a_large_code_is_read_and_one_of_a_pixel_a_module_is_not() -> None:
    held = bytes(range(35))
    rng = np.random.default_rng(1)
    assert read_codes(drawn(modules_of(held), 200, rng)) == [held]
    assert read_codes(drawn(modules_of(held), 37, rng)) == []
    assert is_read(TIER_2, 200, 3, seed=1)
    assert not is_read(TIER_2, 37, 3, seed=1)


def test_the_code_is_drawn_as_wide_as_it_is_said_to_be() -> None:
    code = np.full((40, 40), 255, np.uint8)
    frame = drawn(code, 200, np.random.default_rng(1))
    # Turned and in perspective, it keeps its area within some per cent.
    assert np.sqrt((frame[..., 0] > 160).sum()) == pytest.approx(200, rel=0.06)


def test_the_least_width_is_found() -> None:
    found = measure(TIER_2, 3, seed=1)
    assert (found.version, found.modules) == (3, 29)
    assert found.width is not None
    assert 60 < found.width < 130


def test_half_as_many_pixels_are_twice_as_far_away() -> None:
    # 640 pixels over 60 degrees: at a metre 1.155 m are seen, so 50 mm are 27.7 pixels.
    assert distance(27.71, 50) == pytest.approx(1, abs=1e-3)
    assert distance(50, 50) == pytest.approx(2 * distance(100, 50))


def test_what_is_never_read_has_no_distance() -> None:
    said = tables([Measured(TIER_2, 3, 29, None), Measured(TOKENS[1], 13, 69, 200)], 50)
    assert "| tier 2 | 35 | 3 | 29 | none |  |" in said
    assert "| tier 2 |  |  |  |" in said
    assert "| tier 1, 4 bits | 323 | 13 | 69 | 200 | 2.60 |" in said


def test_it_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    assert "--renderings" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--renderings", "0"])


def test_it_prints_both_tables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.evaluation.token_size.TOKENS", TOKENS[:1])
    main(["--renderings", "2"])
    assert "| tier 2 | 35 |" in capsys.readouterr().out
