"""No card is missed while recognition runs, hangs and crashes; `pytest -s` shows the times.

The thousand cards are `scripts/badge-under-load`.
"""

import sys
from pathlib import Path

import pytest

from tests.system.badge_load import CONDITIONS, Row, measure, plan, table
from tests.system.house import open_house

pytestmark = pytest.mark.models


@pytest.mark.parametrize(
    "cards",
    [
        pytest.param(10, marks=pytest.mark.timeout(180)),
        pytest.param(200, marks=[pytest.mark.full, pytest.mark.timeout(1800)]),
    ],
)
def test_every_card_opens_whatever_recognition_does(
    cards: int, test_models: Path, portrait_paths: dict[str, Path]
) -> None:
    with open_house(test_models, portrait_paths, plan(test_models)) as house:
        house.enrol()
        rows = [measure(house, condition, cards, 1, lambda _: None) for condition in CONDITIONS]
    print(f"\n{table(rows)}", file=sys.stderr)
    for row in rows:
        assert row.cards == cards
        assert row.ok, table([row])
    assert all(row.presses and row.looks for row in rows[1:]), "there was load"
    assert all(row.disturbances for row in rows[2:]), "and trouble"


def test_a_missed_card_a_rise_without_reason_and_a_door_left_open_are_told() -> None:
    assert Row("idle", cards=3).ok
    for row in (Row("runs", missed=1), Row("runs", unexplained=1), Row("runs", left_open=1)):
        assert not row.ok
    assert "2 RISES WITHOUT A REASON" in table([Row("hangs", unexplained=2)])
