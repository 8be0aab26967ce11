import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from appliance.errors import ConfigurationError
from appliance.vault import clock
from appliance.vault.clock import WRITTEN_EVERY
from appliance.vault.limits import (
    LONGEST_WAIT,
    PERIOD,
    PERIODS,
    STRANGERS,
    TABLES,
    budget_of,
    claim_key,
    forget,
    wait_after,
)
from appliance.vault.store import StoreError
from tests.vault.simulated import INDEX_KEY, Appliance

DAY = 86_400
HANDLE = bytes(range(16))


@pytest.fixture
def device() -> Appliance:
    return Appliance()


def fail(device: Appliance, times: int, handle: bytes = HANDLE) -> None:
    """Fail so often, waiting as long as it takes."""
    for _ in range(times):
        device.time.pass_by(LONGEST_WAIT)
        assert device.limits.charge(handle)


@pytest.mark.parametrize(
    ("risk", "fmr", "budget"), [(0.01, 1e-4, 100), (0.01, 1e-5, 1000), (0.01, 1e-3, 10), (1e-3, 1e-3, 1)]
)
def test_the_budget_is_the_risk_by_the_fmr(risk: float, fmr: float, budget: int) -> None:
    assert budget_of(risk, fmr) == budget


def test_a_risk_below_one_attempt_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        budget_of(1e-3, 1e-2)


def test_waits_are_free_three_times_then_double_to_a_quarter_of_an_hour() -> None:
    assert [wait_after(n) for n in range(10)] == [0, 0, 0, 30, 60, 120, 240, 480, 900, 900]
    assert wait_after(10_000) == 900


def test_three_failures_are_free_and_the_fourth_attempt_waits(device: Appliance) -> None:
    assert [device.limits.charge(HANDLE) for _ in range(4)] == [True, True, True, False]
    device.time.pass_by(29.9)
    assert not device.limits.may_try(HANDLE)
    assert not device.limits.charge(HANDLE)
    device.time.pass_by(0.2)
    assert device.limits.may_try(HANDLE)
    assert device.limits.charge(HANDLE)


def test_trying_during_a_wait_does_not_make_it_longer(device: Appliance) -> None:
    fail(device, 3)
    for _ in range(29):
        device.time.pass_by(1)
        assert not device.limits.charge(HANDLE)
    device.time.pass_by(1.1)
    assert device.limits.charge(HANDLE)


def test_a_success_ends_the_wait_and_leaves_the_years_count(device: Appliance) -> None:
    device = Appliance(budget=6)
    fail(device, 4)
    device.time.pass_by(LONGEST_WAIT)
    assert device.limits.charge(HANDLE)
    device.limits.succeeded(HANDLE)
    assert [device.limits.charge(HANDLE) for _ in range(3)] == [True, True, False]
    device.time.pass_by(DAY)
    assert not device.limits.may_try(HANDLE), "six failures, the success not among them"


def test_an_attempt_without_a_face_leaves_all_as_it_was(device: Appliance) -> None:
    fail(device, 4)
    before = (
        device.disk.all("SELECT claim, failures, boot, since_boot, spent FROM wait"),
        device.disk.all("SELECT claim, period, count FROM failure"),
    )
    device.time.pass_by(LONGEST_WAIT)
    for _ in range(10):
        assert device.limits.charge(HANDLE)
        device.limits.refund(HANDLE)
    after = (
        device.disk.all("SELECT claim, failures, boot, since_boot, spent FROM wait"),
        device.disk.all("SELECT claim, period, count FROM failure"),
    )
    assert before == after


def test_only_the_last_charge_is_taken_back_and_only_once(device: Appliance) -> None:
    fail(device, 2)
    device.limits.refund(HANDLE)
    device.limits.refund(HANDLE)
    device.limits.succeeded(HANDLE)
    assert device.disk.all("SELECT count FROM failure") == [(1,)]
    device.limits.charge(bytes(16))
    device.limits.refund(HANDLE)
    assert device.disk.all("SELECT sum(count) FROM failure") == [(2,)]


def test_what_was_charged_before_a_power_cut_stays_charged(device: Appliance) -> None:
    fail(device, 1)
    device.start()
    device.limits.refund(HANDLE)
    assert device.disk.all("SELECT count FROM failure") == [(1,)]


def test_a_restart_neither_shortens_nor_lengthens_a_wait(device: Appliance) -> None:
    fail(device, 3)
    device.time.pass_by(20)
    device.start()
    assert not device.limits.may_try(HANDLE)
    device.time.pass_by(10.1)
    assert device.limits.may_try(HANDLE)


def test_after_a_reboot_the_wait_begins_anew_in_full(device: Appliance) -> None:
    fail(device, 8)
    device.time.reboot(off=30 * DAY)
    device.start()
    device.time.pass_by(LONGEST_WAIT - 1)
    assert not device.limits.may_try(HANDLE)
    device.time.pass_by(1)
    assert device.limits.may_try(HANDLE)


def test_a_spent_budget_asks_for_renewal_however_long_one_waits() -> None:
    device = Appliance(budget=5)
    fail(device, 5)
    for _ in range(100):
        device.time.pass_by(20 * DAY)
        device.time.wrong += 20 * DAY
        device.clock.moment()
        device.start()
        assert not device.limits.may_try(HANDLE)
        assert not device.limits.charge(HANDLE)
    assert device.limits.may_try(bytes(16)), "another claim, such as that of the renewed record"


def test_a_lower_budget_holds_for_what_was_counted_before_and_a_higher_one_renews_nobody() -> None:
    device = Appliance(budget=10)
    fail(device, 6)
    device.time.pass_by(LONGEST_WAIT)
    device.budget = 6
    device.start()
    assert not device.limits.charge(HANDLE)
    device.budget = 7
    device.start()
    assert device.limits.charge(HANDLE)
    device.budget = 100
    device.start()
    device.time.pass_by(LONGEST_WAIT)
    assert not device.limits.charge(HANDLE)


def test_failures_of_more_than_a_year_ago_are_forgotten() -> None:
    device = Appliance(budget=5)
    fail(device, 4)
    device.time.pass_by((PERIODS + 1) * PERIOD)
    fail(device, 4)
    device.limits.charge(HANDLE)
    assert device.disk.all("SELECT count(*) FROM failure") == [(1,)]
    assert PERIODS * PERIOD >= 365 * DAY


def test_a_clock_put_forward_forgets_no_failure() -> None:
    device = Appliance(budget=5)
    fail(device, 4)
    device.time.wrong, device.time.synchronised = 3 * 365.0 * DAY, True
    assert device.clock.moment() is not None
    device.start()
    fail(device, 1)
    device.time.pass_by(LONGEST_WAIT)
    assert not device.limits.may_try(HANDLE)


def test_a_full_disk_compares_nothing_and_loses_no_count(device: Appliance) -> None:
    fail(device, 3)
    device.time.pass_by(DAY)
    device.disk.full = True
    for _ in range(5):
        with pytest.raises(StoreError):
            device.limits.charge(HANDLE)
    device.disk.full = False
    assert device.disk.all("SELECT sum(count) FROM failure") == [(3,)]
    assert device.limits.charge(HANDLE)
    device.disk.full = True
    with pytest.raises(StoreError):
        device.limits.succeeded(HANDLE)
    device.disk.full = False
    assert device.disk.all("SELECT sum(count) FROM failure") == [(4,)], "what was not taken back, stands"


def test_no_handle_stands_in_the_tables_nor_can_be_found_without_the_key(device: Appliance) -> None:
    fail(device, 3)
    device.limits.charge(HANDLE, known=False)
    dump = "\n".join(device.disk._db.iterdump())
    assert HANDLE.hex() not in dump.lower()
    assert claim_key(INDEX_KEY, HANDLE).hex() in dump.lower()
    assert claim_key(bytes(32), HANDLE).hex() not in dump.lower()


def test_of_an_erased_record_nothing_is_counted_any_more(device: Appliance) -> None:
    other = bytes(16)
    fail(device, 2)
    fail(device, 3, other)
    with device.disk.transaction() as db:
        forget(db, INDEX_KEY, [HANDLE])
    assert device.disk.all("SELECT failures FROM wait") == [(3,)]
    assert device.disk.all("SELECT count FROM failure") == [(3,)]


@pytest.mark.parametrize("succeeded", [False, True])
def test_an_attempt_that_ends_after_the_erasure_leaves_no_row_of_the_erased(
    device: Appliance, succeeded: bool
) -> None:
    fail(device, 1)
    with device.disk.transaction() as db:
        forget(db, INDEX_KEY, [HANDLE])
    (device.limits.succeeded if succeeded else device.limits.refund)(HANDLE)
    assert device.disk.all("SELECT count(*) FROM wait") == [(0,)]
    assert device.disk.all("SELECT count(*) FROM failure") == [(0,)]


def test_a_wrong_pin_waits_but_spends_nothing_of_the_year() -> None:
    device = Appliance(budget=5)
    for _ in range(4):
        device.time.pass_by(LONGEST_WAIT)
        assert device.limits.charge(HANDLE, counted=False)
        device.limits.refund(HANDLE)
    assert not device.limits.may_try(HANDLE), "a wait, which nothing but time or a success ends"
    for _ in range(200):
        device.time.pass_by(LONGEST_WAIT)
        assert device.limits.charge(HANDLE, counted=False)
        assert not device.limits.charge(HANDLE, counted=False)
    assert device.disk.all("SELECT sum(count) FROM failure") == [(0,)]
    fail(device, 4)
    device.time.pass_by(LONGEST_WAIT)
    assert device.limits.charge(HANDLE)
    device.limits.succeeded(HANDLE)
    assert device.limits.charge(HANDLE), "the wait is over"
    device.time.pass_by(DAY)
    assert not device.limits.charge(HANDLE, counted=False), (
        "the faces that were counted spend it all the same"
    )


def test_each_charge_writes_as_many_pages(tmp_path: Path) -> None:
    device = Appliance()
    device.disk.close()
    log = tmp_path / "claims-wal"
    device.disk._db = sqlite3.connect(tmp_path / "claims", isolation_level=None)
    device.disk._db.executescript(
        "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;" + clock.TABLES + TABLES
    )
    for known in (True, False):
        device.limits.charge(HANDLE, known=known)

    def written(**how: bool) -> int:
        before = log.stat().st_size
        device.limits.charge(HANDLE, **how)
        return log.stat().st_size - before

    pages = {
        "face": written(),
        "wrong PIN": written(counted=False),
        "during a wait": written(),
        "unknown": written(known=False),
        "unknown number": written(known=False, counted=False),
    }
    assert len(set(pages.values())) == 1, pages


def test_a_wrong_secret_makes_nobody_else_wait(device: Appliance) -> None:
    for _ in range(50):
        device.limits.charge(HANDLE, known=False)
    assert [device.limits.charge(HANDLE) for _ in range(3)] == [True, True, True]


def test_unknown_claims_take_256_rows_at_most_and_the_longest_unused_goes_first(device: Appliance) -> None:
    fail(device, 2)
    often = b"often".ljust(16)
    for number in range(3 * STRANGERS):
        device.limits.charge(number.to_bytes(16, "big"), known=False)
        device.limits.charge(often, known=False)
        if number % 100 == 0:
            device.time.pass_by(PERIOD)
            device.start()
    assert device.disk.all("SELECT count(*) FROM wait WHERE stranger = 1") == [(STRANGERS,)]
    assert device.disk.all("SELECT count(*) FROM failure") == [(STRANGERS + 1,)]
    ((kept,),) = device.disk.all(
        "SELECT failures FROM wait WHERE stranger = 1 ORDER BY failures DESC LIMIT 1"
    )
    assert kept != 1, "the one that comes often was never put out"
    assert device.disk.all("SELECT failures FROM wait WHERE stranger = 0") == [(2,)]


def statements(device: Appliance, act: Callable[[], object]) -> list[str]:
    device.disk.statements.clear()
    act()
    # Values are written into what SQLite reports: only the statements themselves are compared.
    return [re.sub(r"(?i)x'[0-9a-f]+'|'[^']*'|-?\b\d+\b", "?", each) for each in device.disk.statements]


def test_every_claim_takes_the_same_statements_and_has_something_to_write() -> None:
    device = Appliance(budget=8)
    device.disk.trace()
    limits = device.limits
    fresh = statements(device, lambda: limits.charge(HANDLE))
    assert len(fresh) == 9
    known = [statements(device, lambda: limits.charge(HANDLE)) for _ in range(6)]  # the last four wait
    known += [statements(device, lambda: limits.charge(HANDLE, counted=False)) for _ in range(2)]
    unknown = [statements(device, lambda: limits.charge(HANDLE, known=False)) for _ in range(6)]
    unknown += [
        statements(device, lambda: limits.charge(number.to_bytes(16, "big"), known=False))  # noqa: B023
        for number in range(STRANGERS + 10)
    ]
    fail(device, 5)
    device.time.pass_by(DAY)
    spent = [statements(device, lambda: limits.charge(HANDLE)) for _ in range(3)]
    assert not limits.may_try(HANDLE)
    assert all(each == fresh for each in (*known, *unknown, *spent))
    # Rows change also where nothing is counted: a transaction without a change would not wait for the disk.
    turns = [device.disk.all("SELECT max(turn) FROM wait")]
    limits.charge(HANDLE)
    turns.append(device.disk.all("SELECT max(turn) FROM wait"))
    assert turns[0] != turns[1]


@dataclass
class Model:
    """What must be true of a claim, in true time."""

    failed: list[float] = field(default_factory=list)
    in_a_row: int = 0
    last: float = float("-inf")
    spent: bool = False


class Guessing(RuleBasedStateMachine):
    """Attempts, restarts, reboots, wrong clocks and full disks in any order."""

    BUDGET = 6

    def __init__(self) -> None:
        super().__init__()
        self.device = Appliance(self.BUDGET)
        self.model = Model()

    @rule(
        outcome=st.sampled_from(["other face"] * 3 + ["match", "no face", "power cut", "disk full"]),
        waited=st.sampled_from([0, 1, 29, 31, 59, 61, 119, 121, 241, 901]),
    )
    def attempt(self, outcome: str, waited: int) -> None:
        self.device.time.pass_by(waited)
        model, now = self.model, self.device.time.true
        lately = [each for each in model.failed if each > now - 365 * DAY]
        if not self.device.limits.charge(HANDLE):
            since = max(model.last, self.device.time.booted)
            waits = now - since < wait_after(model.in_a_row) + 0.01
            assert model.spent or len(model.failed) >= self.BUDGET or waits, "refused without a reason"
            return
        assert not model.spent
        assert len(lately) < self.BUDGET, "more than the budget in a year"
        assert now - model.last >= wait_after(model.in_a_row) - 0.01, "a wait was shortened"
        if outcome == "match":
            self.device.limits.succeeded(HANDLE)
            model.in_a_row = 0
            return
        if outcome == "no face":
            self.device.limits.refund(HANDLE)
            return
        if outcome == "disk full":
            with self.device.disk.filled(), pytest.raises(StoreError):
                self.device.limits.succeeded(HANDLE)
        if outcome == "power cut":
            self.device.time.reboot(5)
            self.device.start()
        model.failed.append(now)
        model.in_a_row += 1
        model.last = now
        model.spent = len(lately) + 1 >= self.BUDGET

    @rule(waited=st.sampled_from([0, 31, 901]))
    def wrong_pin(self, waited: int) -> None:
        self.device.time.pass_by(waited)
        model, now = self.model, self.device.time.true
        if self.device.limits.charge(HANDLE, counted=False):
            assert not model.spent
            assert now - model.last >= wait_after(model.in_a_row) - 0.01, "a wait was shortened"
            model.in_a_row += 1
            model.last = now

    @rule(times=st.integers(2, 5))
    def siege(self, times: int) -> None:
        for _ in range(times):
            self.attempt("other face", LONGEST_WAIT + 1)

    @rule(seconds=st.sampled_from([1, 30, 901, WRITTEN_EVERY, DAY]), restart=st.booleans())
    def full_disk(self, seconds: int, restart: bool) -> None:
        with self.device.disk.filled():
            with pytest.raises(StoreError):
                self.device.limits.charge(HANDLE)
            self.device.time.pass_by(seconds)
            self.device.clock.moment()
            if restart:
                self.device.start()

    @rule(number=st.integers(0, 999))
    def unknown(self, number: int) -> None:
        self.device.limits.charge(number.to_bytes(16, "big"), known=False)

    @rule(days=st.sampled_from([1, 20, 180, 250, 300, 330, 360, 364, 365, 400]))
    def pass_by(self, days: int) -> None:
        self.device.time.pass_by(days * DAY)

    @rule()
    def restart(self) -> None:
        self.device.clock.moment()
        self.device.start()

    @rule(off=st.sampled_from([5.0, 31.0, 1000.0, 30.0 * DAY, 400.0 * DAY]))
    def reboot(self, off: float) -> None:
        self.device.time.reboot(off)
        self.device.start()

    @rule(
        days=st.sampled_from([-4000, -365, -1, 0, 1, 59, 380, 3650]),
        synchronised=st.booleans(),
        restart=st.booleans(),
    )
    def put_the_clock(self, days: int, synchronised: bool, restart: bool) -> None:
        self.device.time.wrong = days * float(DAY)
        self.device.time.synchronised = synchronised
        self.device.clock.moment()
        if restart:
            self.device.start()

    @invariant()
    def a_genuine_person_without_failures_never_waits(self) -> None:
        if not self.model.in_a_row and len(self.model.failed) < self.BUDGET:
            assert self.device.limits.may_try(HANDLE)


TestGuessing = Guessing.TestCase
TestGuessing.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)


@pytest.mark.full
def test_no_sequence_gets_more_than_the_budget_at_length() -> None:
    run_state_machine_as_test(
        Guessing, settings=settings(max_examples=5000, stateful_step_count=60, deadline=None)
    )
