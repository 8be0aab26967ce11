"""That every refused claim is answered, guided and embedded alike, and that its timing sees differences.

The times themselves are asserted of no shared machine: `scripts/claim-times` takes and judges them.
"""

import sys
from collections import Counter

import numpy as np
import pytest

from appliance.link.messages import Guidance
from tests.system import claim_times
from tests.system.claim_times import (
    ALL,
    REFUSED,
    hold_up_side_by_side,
    main,
    report,
    shares,
    table_of_work,
    wrong,
)
from tests.system.claim_work import work_of_numbers, work_of_tokens
from tests.system.claims_world import ASKED, OPENED, OTHERS, Seen, hold_up_all
from tests.system.separable import apart, area

ANSWER = 1000.0
"""Milliseconds of the fixed time in this test."""
CLOSING = 250.0
SLACK = 400.0
"""Milliseconds by which a busy machine may be late; it is never early."""


def tell(text: str) -> None:
    print(text, file=sys.stderr)


def look_at(outcomes: list[Seen]) -> None:
    """Order, counts and states of what was seen, and that nothing came before its time."""
    assert wrong(outcomes) == []
    for each in outcomes:
        if each.kind == "right face":
            assert each.closing <= each.answer < 1
            continue
        assert each.closing < each.guidance <= each.answer
        assert CLOSING <= 1000 * each.closing < CLOSING + SLACK
        assert 1000 * each.guidance >= ANSWER
        assert 1000 * each.answer < ANSWER + SLACK


@pytest.mark.timeout(120)
def test_a_few_claims_of_every_kind() -> None:
    outcomes = hold_up_all(dict.fromkeys(ALL, 2), 3, tell)
    look_at(outcomes)
    kinds = [each.kind for each in outcomes]
    assert Counter(kinds) == dict.fromkeys(ALL, 2)
    assert kinds != sorted(kinds, key=ALL.index), "in random order"
    text, _ = report(outcomes)
    tell(text)
    assert "of 18 claims 0 were answered, guided or embedded otherwise than they should" in text
    assert all(f"| {kind} | 2 |" in text for kind in ALL)
    assert all(f"| unknown, {kind} |" in text for kind in OTHERS)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_sixty_claims_of_each_kind_asked_for() -> None:
    outcomes = hold_up_side_by_side(dict.fromkeys(ASKED, 60) | dict.fromkeys(OTHERS, 6), 1, 3)
    tell(report(outcomes)[0])
    look_at(outcomes)
    assert Counter(each.kind for each in outcomes) == dict.fromkeys(ASKED, 60) | dict.fromkeys(OTHERS, 6)


@pytest.mark.full
def test_the_command_prints_all_tables(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--attempts", "4", "--others", "0", "--numbers", "2", "--worlds", "2"])
    said = capsys.readouterr().out
    # So few tell nothing, so either is right; what it says and how it ends belong together.
    assert status == (0 if "told apart: none;" in said else 1)
    assert "vault alone, tokens" in said
    assert "vault alone, numbers" in said
    assert "of 12 claims 0 were answered" in said


def test_the_command_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as over:
        main(["--help"])
    assert over.value.code == 0
    assert "--attempts" in capsys.readouterr().out
    with pytest.raises(SystemExit) as wrong_use:
        main(["--attempts", "1"])
    assert wrong_use.value.code == 2


def test_vaults_own_work_is_timed_for_tokens_and_for_numbers() -> None:
    for work in (work_of_tokens(4, 1), work_of_numbers(2, 1)):
        assert set(work) == set(ASKED)
        assert all(each > 0 for times in work.values() for each in times)
        tell(table_of_work(work, "vault alone"))
    assert [len(times) for times in work_of_tokens(4, 1).values()] == [4, 4, 4]


def of_kind(kind: str, *seconds: float, **different: object) -> list[Seen]:
    embeds = int(kind in OPENED)
    usual = {"embeds": embeds, "said": REFUSED, "byte": b"\x00"} | different
    return [Seen(kind, each - 0.75, each - 0.0001, each, **usual) for each in seconds]  # type: ignore[arg-type]


def times(random: np.random.Generator, late: float = 0) -> list[float]:
    return [1.0004 + late + each for each in random.gamma(2, 0.0002, 500)]


def test_kinds_that_take_as_long_are_not_told_apart_and_a_tenth_of_a_millisecond_is() -> None:
    random = np.random.default_rng(1)
    alike = [each for kind in ASKED for each in of_kind(kind, *times(random))]
    text, good = report(alike)
    assert good
    assert "told apart: none;" in text
    late = of_kind("unknown", *times(random, 0.0001)) + alike[500:]
    text, good = report(late)
    assert not good
    assert "unknown and wrong secret by answer" in text
    assert "wrong secret and another face" not in text.splitlines()[-1]


@pytest.mark.parametrize(
    "different",
    [
        {"byte": b"\x01"},
        {"byte": b""},
        {"byte": b"\x00\x00"},
        {"embeds": 1},
        {"said": [Guidance.SHOW_TOKEN, Guidance.USE_BADGE]},
        {"said": [*REFUSED, Guidance.COME_CLOSER]},
    ],
)
def test_a_refusal_that_is_not_like_every_other_is_found(different: dict[str, object]) -> None:
    outcomes = [each for kind in ASKED for each in of_kind(kind, 1.0, 1.1)]
    assert wrong(outcomes) == []
    assert len(wrong(outcomes + of_kind("unknown", 1.0, **different))) == 1


def test_the_area_is_that_of_all_pairs() -> None:
    random = np.random.default_rng(2)
    first = random.integers(0, 9, 40).astype(np.float64)
    second = random.integers(2, 11, 30).astype(np.float64)
    pairs = [(one < other) + (one == other) / 2 for one in first for other in second]
    assert area(first, second) == pytest.approx(np.mean(pairs))
    assert area(first, first) == 0.5
    found = apart(first, second, looks=3)
    assert found.low < found.area < found.high
    assert found.told
    assert not apart(first, first).told


def test_every_world_has_all_kinds_alike() -> None:
    worlds = shares({"unknown": 7, "expired": 3}, 3)
    assert worlds == [
        {"unknown": 3, "expired": 1},
        {"unknown": 2, "expired": 1},
        {"unknown": 2, "expired": 1},
    ]


def test_a_world_that_breaks_off_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_times, "COMMAND", (sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(RuntimeError, match="broke off"):
        hold_up_side_by_side({"unknown": 2}, 1, 1)
