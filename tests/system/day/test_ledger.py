"""The ledger of the mixed day, before made-up histories: each kind of harm must be found."""

import pytest

from tests.system.day.ledger import Ledger, Standing, Thing

BADGE = Thing("badge", "a badge")


def ledger_with(*notes: tuple[float, Standing]) -> Ledger:
    ledger = Ledger()
    for at, standing in notes:
        ledger.note(BADGE, standing, at)
    return ledger


def test_what_was_acknowledged_and_is_not_there_is_lost() -> None:
    ledger = ledger_with((1, Standing.EITHER), (2, Standing.PRESENT))
    findings = ledger.settle("badge", set(), 3)
    assert findings.lost == ["badge a badge was acknowledged and is not there"]
    assert findings.revived == []


@pytest.mark.parametrize("standing", [Standing.ABSENT, Standing.DOOMED])
def test_what_was_erased_or_was_to_be_and_is_there_is_revived(standing: Standing) -> None:
    ledger = ledger_with((1, Standing.PRESENT), (2, standing))
    findings = ledger.settle("badge", {"a badge"}, 3)
    assert findings.lost == []
    assert findings.revived == ["badge a badge was erased, acknowledged, and is there"]


@pytest.mark.parametrize(("there", "found"), [(True, Standing.PRESENT), (False, Standing.ABSENT)])
def test_what_was_not_answered_may_be_either_and_stands_as_it_is_found(there: bool, found: Standing) -> None:
    ledger = ledger_with((1, Standing.EITHER))
    findings = ledger.settle("badge", {"a badge"} if there else set(), 2)
    assert findings.lost == findings.revived == []
    assert ledger.standing(BADGE) is found


def test_once_it_was_found_it_may_not_change_any_more() -> None:
    ledger = ledger_with((1, Standing.EITHER))
    ledger.settle("badge", {"a badge"}, 2)
    assert ledger.settle("badge", set(), 3).lost


def test_what_may_open_is_all_that_was_not_absent_at_some_moment() -> None:
    ledger = ledger_with(
        (10, Standing.EITHER), (11, Standing.PRESENT), (20, Standing.EITHER), (21, Standing.ABSENT)
    )
    assert not ledger.may(BADGE, 5, 9)
    assert ledger.may(BADGE, 5, 10.5), "it was being added"
    assert ledger.may(BADGE, 12, 13)
    assert ledger.may(BADGE, 20.5, 25), "it was not yet acknowledged as removed"
    assert not ledger.may(BADGE, 21.5, 25)
    assert not ledger.may(Thing("badge", "never known"), 0, 100)


def test_what_must_open_is_what_was_there_all_the_time() -> None:
    ledger = ledger_with((10, Standing.EITHER), (11, Standing.PRESENT), (20, Standing.DOOMED))
    assert not ledger.must(BADGE, 10.5, 12)
    assert ledger.must(BADGE, 11.5, 19)
    assert not ledger.must(BADGE, 19, 20.5)


def test_an_account_of_one_kind_is_none_of_another() -> None:
    ledger = ledger_with((1, Standing.PRESENT))
    assert ledger.settle("person", set(), 2).lost == []
    assert ledger.standing(BADGE) is Standing.PRESENT
