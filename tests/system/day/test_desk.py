"""What the desk writes down when the answer is no: a refusal takes nothing away, and forgives no loss."""

import random
from typing import Any, cast

import pytest

from tests.system.day.desk import Desk, Handed, Person
from tests.system.day.ledger import Ledger, Standing, Thing
from tests.system.day.world import Answer, World


class Says:
    """A world that answers as it is told, and in which nobody presses."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)

    def ask(self, *_: Any) -> Answer:
        return self._answers.pop(0)

    def press(self) -> None:
        return None

    def wait_alive(self, _: Any) -> None:
        return None

    def show_enrolment(self, _: Any) -> None:
        return None


OPENED, YES = Answer({"id": "1"}), Answer({})


@pytest.mark.parametrize(
    ("act", "answers", "standing"),
    [
        ("_erase_template", [Answer(refused="no")], Standing.PRESENT),
        ("_erase_template", [Answer(unknown=True)], Standing.EITHER),
        ("_enrol", [Answer(refused="no")], Standing.PRESENT),
        ("_enrol", [Answer(unknown=True)], Standing.EITHER),
        ("_enrol", [OPENED, YES, Answer({"state": "failed"})], Standing.PRESENT),
        ("_enrol", [OPENED, YES, Answer({"state": "done"})], Standing.EITHER),
        ("_enrol", [OPENED, Answer(unknown=True)], Standing.EITHER),
    ],
)
def test_what_was_not_done_leaves_what_was_there(act: str, answers: list[Answer], standing: Standing) -> None:
    ledger = Ledger()
    thing = Thing("template", "a template")
    ledger.acknowledge(thing, Standing.PRESENT, 0.0)
    desk = Desk(cast("World", Says(*answers)), ledger, random.Random(1), "name")
    person = Person("name", "obama", id="p", tokens=[Handed(thing, b"", "obama")])
    assert not getattr(desk, act)(person)
    assert ledger.standing(thing) is standing
