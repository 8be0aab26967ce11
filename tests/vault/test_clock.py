import itertools
import os
import time
from collections.abc import Callable
from zoneinfo import ZoneInfo

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from appliance.rights import Rights, Window, allows
from appliance.vault.clock import (
    AHEAD_OFF,
    AHEAD_SYNCHRONISED,
    BACK,
    DAY,
    EARLIEST,
    WRITTEN_EVERY,
    Clock,
    NotTheTime,
    Sources,
    kernel_synchronised,
)
from appliance.vault.store import StoreError
from tests.vault.simulated import Appliance, Disk

YEAR = 365 * DAY


@pytest.fixture
def device() -> Appliance:
    device = Appliance()
    device.clock.moment()
    device.clock.keep()
    return device


def test_a_right_clock_is_trusted_day_after_day(device: Appliance) -> None:
    for _ in range(400):
        device.time.pass_by(DAY)
        assert device.clock.moment() == device.true_now
    device.start()
    assert device.clock.moment() == device.true_now


def test_a_clock_that_is_put_back_a_year_is_not_trusted_and_said_so_once(
    device: Appliance, capsys: pytest.CaptureFixture[str]
) -> None:
    latest = device.clock.latest
    device.time.wrong = -YEAR
    for _ in range(3):
        assert device.clock.moment() is None
        device.time.pass_by(60)
    assert device.clock.latest == latest
    (line,) = capsys.readouterr().err.splitlines()
    assert "is before" in line
    assert "set it" in line
    device.time.wrong = 0
    assert device.clock.moment() == device.true_now
    assert "trusted again" in capsys.readouterr().err


def test_a_step_back_of_seconds_is_no_trouble_and_the_time_stands_still_meanwhile(device: Appliance) -> None:
    latest = device.clock.latest
    device.time.wrong = -BACK
    assert device.clock.moment() == latest
    device.time.wrong = -BACK - 1
    assert device.clock.moment() is None


def test_a_clock_that_is_put_back_while_the_device_is_off_is_not_trusted(device: Appliance) -> None:
    device.time.reboot(DAY)
    device.time.wrong = -YEAR
    device.start()
    assert device.clock.moment() is None


def test_a_clock_that_jumps_ten_years_forward_is_not_trusted(
    device: Appliance, capsys: pytest.CaptureFixture[str]
) -> None:
    device.time.wrong = 10 * YEAR
    assert device.clock.moment() is None
    assert "3650 days ahead" in capsys.readouterr().err
    device.start()
    assert device.clock.moment() is None, "a restart makes it no better"
    device.time.reboot(60)
    device.start()
    assert device.clock.moment() is None, "nor does a reboot"
    device.time.synchronised = True
    assert device.clock.moment() is None, "nor a time server's word"


def test_the_kernels_word_is_good_for_four_hundred_days_and_an_administrators_for_any(
    device: Appliance, capsys: pytest.CaptureFixture[str]
) -> None:
    device.time.synchronised = True
    device.time.wrong = AHEAD_SYNCHRONISED + DAY
    for _ in range(3):
        assert device.clock.moment() is None
        device.start()
    assert "drempel trust-clock" in capsys.readouterr().err
    device.time.wrong = AHEAD_SYNCHRONISED - DAY
    assert device.clock.moment() is not None
    device.time.wrong = 10 * YEAR
    assert device.clock.confirm() == device.true_now + 10 * YEAR == device.clock.moment()


@pytest.mark.parametrize("restart", [False, True])
def test_an_administrator_takes_a_wrong_time_back(device: Appliance, restart: bool) -> None:
    end = device.true_now + 100 * DAY
    device.time.wrong, device.time.synchronised = 300 * DAY, True
    assert device.clock.past(end)
    device.time.wrong = 0
    assert device.clock.moment() is None, "the mark is never taken back by itself"
    device.clock.confirm()
    if restart:
        device.time.reboot(5)
        device.start()
    assert device.clock.moment() == device.true_now
    assert not device.clock.past(end)
    assert device.clock.past(device.true_now)


def test_what_cannot_be_kept_is_not_confirmed_and_no_time_of_before_this_program_is(
    device: Appliance,
) -> None:
    device.time.wrong = -10 * DAY
    with device.disk.filled(), pytest.raises(StoreError):
        device.clock.confirm()
    assert device.clock.moment() is None
    device.time.wrong = -YEAR
    with pytest.raises(NotTheTime):
        device.clock.confirm()
    assert device.clock.moment() is None


def test_what_is_proved_is_the_confirmed_time_and_what_passed_since_on_the_devices_own_count(
    device: Appliance,
) -> None:
    begun = device.true_now
    device.time.pass_by(DAY)
    assert device.clock.proved == begun + DAY
    device.time.wrong, device.time.synchronised = 300 * DAY, True
    assert device.clock.moment() is not None
    assert device.clock.proved == begun + DAY, "nobody's word proves anything"
    for _ in range(3):
        device.time.reboot(50 * DAY)
        device.start()
        device.clock.moment()
        device.clock.keep()
        assert begun + DAY - 5 <= device.clock.proved <= begun + DAY + 5
    device.clock.confirm()
    assert device.clock.proved == device.clock.moment()


def test_untrusted_time_says_who_is_refused_and_who_is_not(
    device: Appliance, capsys: pytest.CaptureFixture[str]
) -> None:
    latest = device.clock.latest
    device.time.wrong = -YEAR
    assert device.clock.moment() is None
    zone = ZoneInfo("Europe/Amsterdam")
    all_week = tuple(Window(day, 0, 1440) for day in range(7))
    assert not allows(Rights(hours=all_week), None, zone, latest)
    assert not allows(Rights(valid_until=latest), None, zone, latest)
    assert allows(Rights(valid_until=latest + 1), None, zone, latest)
    assert allows(Rights(), None, zone, latest)
    said = capsys.readouterr().err
    assert "weekly hours" in said
    assert "who ended since 20" in said
    assert "or a validity" not in said


def test_a_device_that_was_off_for_a_month_trusts_its_clock_and_after_a_year_asks_for_a_time_server(
    device: Appliance,
) -> None:
    device.time.reboot(30 * DAY)
    device.start()
    assert device.clock.moment() == device.true_now
    device.clock.keep()
    device.time.reboot(YEAR)
    device.start()
    assert device.clock.moment() is None
    device.time.synchronised = True
    assert device.clock.moment() == device.true_now


def test_the_sixty_days_are_for_the_time_off_only(device: Appliance) -> None:
    device.time.wrong = AHEAD_OFF - DAY
    device.start()
    assert device.clock.moment() is None


@pytest.mark.parametrize("wall", [0.0, EARLIEST - YEAR, EARLIEST + 11 * YEAR])
def test_at_the_very_first_start_a_clock_of_another_decade_is_not_trusted(wall: float) -> None:
    sources = Sources(lambda: wall, lambda: 5.0, lambda: "first", lambda: False)
    assert Clock(Disk(), sources).moment() is None


def test_it_writes_at_most_every_ten_minutes(device: Appliance) -> None:
    device.disk.trace()
    for _ in range(3600):
        device.time.pass_by(1)
        device.clock.moment()
    writes = [each for each in device.disk.statements if each.startswith("INSERT")]
    assert len(writes) == 3600 / WRITTEN_EVERY


def test_a_full_disk_stops_no_clock_and_is_said_once(
    device: Appliance, capsys: pytest.CaptureFixture[str]
) -> None:
    device.disk.full = True
    for _ in range(10):
        device.time.pass_by(WRITTEN_EVERY)
        assert device.clock.moment() == device.true_now
    assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(StoreError):
        device.clock.past(device.true_now)
    device.disk.full = False
    assert device.clock.past(device.true_now)


def test_what_was_said_to_be_past_stays_past_through_a_power_cut_and_a_clock_put_back(
    device: Appliance,
) -> None:
    end = device.true_now + 100
    assert not device.clock.past(end)
    device.time.pass_by(100)
    assert device.clock.past(end)
    device.time.reboot(1)
    device.time.wrong = -200
    device.start()
    assert device.clock.past(end)
    device.time.wrong = -YEAR
    device.start()
    assert device.clock.past(end)


def test_the_age_goes_on_through_restarts_and_counts_no_time_off(device: Appliance) -> None:
    begun = device.clock.age
    device.time.pass_by(1000)
    device.start()
    assert device.clock.age - begun == 1000
    device.clock.keep()
    device.time.reboot(DAY)
    device.start()
    device.time.pass_by(50)
    assert device.clock.age - begun == 1050


def test_this_very_machine_has_a_clock() -> None:
    clock = Clock(Disk())
    assert clock.moment() == pytest.approx(time.time(), abs=2)
    assert clock.since_boot == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=2)
    assert len(clock.boot) == len("00000000-0000-0000-0000-000000000000")
    assert isinstance(kernel_synchronised(), bool)


@pytest.mark.skipif(os.geteuid() != 0, reason="asks the kernel by another way, which takes root")
def test_the_kernel_is_asked_rightly(monkeypatch: pytest.MonkeyPatch) -> None:
    class Libc:
        """What adjtimex(2) would fill in: status is the fifth long's successor."""

        def __init__(self, state: int, status: int) -> None:
            self.state, self.status = state, status

        def adjtimex(self, timex: object) -> int:
            timex[40:44] = self.status.to_bytes(4, "little")  # type: ignore[index]
            return self.state

    def answer(state: int, status: int) -> Callable[..., Libc]:
        return lambda *_args, **_more: Libc(state, status)

    for state, status, expected in [(0, 0x2001, True), (0, 0x40, False), (5, 0, False), (-1, 0, False)]:
        monkeypatch.setattr("appliance.vault.clock.ctypes.CDLL", answer(state, status))
        assert kernel_synchronised() is expected


class Timekeeping(RuleBasedStateMachine):
    """Any sequence of restarts, power cuts, wrong clocks and full disks: what is over stays over."""

    def __init__(self) -> None:
        super().__init__()
        self.device = Appliance()
        self.begun = self.device.time.true
        self.over: set[int] = set()
        self.latest = self.device.clock.latest
        self.moments = self.device.true_now + 1
        self.ages: list[tuple[float, int]] = []
        self.confirmed: tuple[int, float] | None = None

    @rule(days=st.sampled_from([0, 1, 2, 30, 59, 61, 400, 3000]), seconds=st.integers(-1000, 1000))
    def ask(self, days: int, seconds: int) -> None:
        end = self.moments + days * DAY + seconds
        try:
            past = self.device.clock.past(end)
        except StoreError:
            assert self.device.disk.full
            return
        if past:
            self.over.add(end)

    @rule()
    def moment(self) -> None:
        latest, moment = self.device.clock.latest, self.device.clock.moment()
        assert latest >= self.latest, "the latest time went back"
        assert moment is None or moment >= latest
        self.latest = latest

    @rule(seconds=st.sampled_from([1, 60, 599, 601, DAY, 50 * DAY]))
    def pass_by(self, seconds: int) -> None:
        self.device.time.pass_by(seconds)

    @rule()
    def restart(self) -> None:
        self.device.start()
        self.latest = 0
        self.what_was_over_is_over()

    @rule(off=st.floats(1, 500 * DAY))
    def reboot(self, off: float) -> None:
        self.device.time.reboot(off)
        self.device.start()
        self.latest = 0
        self.what_was_over_is_over()

    @rule(
        wrong=st.sampled_from([0, -1, 100, -299, -301, -700, 3600, -DAY, DAY, -YEAR, 59 * DAY, 10 * YEAR]),
        synchronised=st.booleans(),
    )
    def put_the_clock(self, wrong: int, synchronised: bool) -> None:
        self.device.time.wrong, self.device.time.synchronised = wrong, synchronised

    @rule()
    def confirm(self) -> None:
        try:
            self.latest = self.device.clock.confirm()
        except StoreError:
            assert self.device.disk.full
        except NotTheTime:
            assert self.device.true_now + self.device.time.wrong < EARLIEST
        else:
            # What an administrator takes back is over no more, and what is proved begins anew.
            self.over.clear()
            self.confirmed = self.latest, self.device.time.true

    @invariant()
    def what_is_proved_never_runs_ahead_of_the_time_since_it_was_confirmed(self) -> None:
        if self.confirmed is not None:
            moment, true = self.confirmed
            assert self.device.clock.proved <= moment + self.device.time.true - true + 1

    @rule()
    def fill_the_disk(self) -> None:
        self.device.disk.full = True

    @precondition(lambda self: self.device.disk.full)
    @rule()
    def free_the_disk(self) -> None:
        self.device.disk.full = False

    def what_was_over_is_over(self) -> None:
        # Not after every step: asking whether something is over keeps that it is.
        self.device.disk.full = False
        assert all(self.device.clock.past(each) for each in self.over)

    @invariant()
    def the_age_never_runs_faster_than_the_time(self) -> None:
        self.ages.append((self.device.time.true, self.device.clock.age))
        for (true, age), (now, later) in itertools.pairwise(self.ages[-2:]):
            assert later - age <= now - true + 1
        assert self.ages[-1][1] <= self.device.time.true - self.begun


TestTimekeeping = Timekeeping.TestCase
TestTimekeeping.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
