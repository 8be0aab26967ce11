from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from appliance.evaluation.guessing_simulation import SimulatedTime
from appliance.rights import RIGHTS, Rights, Window
from appliance.vault.clock import DAY
from appliance.vault.expiry import due_for_erasure, ends, expired
from appliance.vault.store import StoreError
from tests.vault.faces import at, enrol, face, vault_in
from tests.vault.simulated import Appliance

YEAR = 365 * DAY


@pytest.fixture
def device() -> Appliance:
    device = Appliance()
    device.clock.moment()
    return device


def add(device: Appliance, name: bytes, expires_at: int | None, rights: bytes | None = None) -> bytes:
    handle = name.ljust(16)
    with device.disk.transaction() as db:
        db.execute(
            "INSERT OR REPLACE INTO record VALUES (?, ?, ?, coalesce("
            "(SELECT over_since FROM record WHERE handle = ?), NULL))",
            (handle, rights, expires_at, handle),
        )
    return handle


def test_the_earlier_end_counts() -> None:
    assert ends(None, None) is None
    assert ends(None, Rights(hours=(Window(0, 0, 1),))) is None
    assert ends(5, None) == 5
    assert ends(5, Rights(valid_until=3)) == 3
    assert ends(2, Rights(valid_until=3)) == 2


def test_a_record_is_refused_from_its_second_on_and_given_for_erasing_a_day_later(device: Appliance) -> None:
    end = device.true_now + 1000
    record = add(device, b"expires", end)
    visitor = add(device, b"visitor", None, Rights(valid_until=end).encode())
    add(device, b"stays", end + YEAR)
    add(device, b"for ever", None)
    assert due_for_erasure(device.disk, device.clock) == []
    device.time.pass_by(999)
    assert not expired(end, None, device.clock)
    device.time.pass_by(1)
    assert expired(end, None, device.clock)
    for _ in range(24):
        assert due_for_erasure(device.disk, device.clock) == []
        device.time.pass_by(3600)
    assert sorted(due_for_erasure(device.disk, device.clock)) == sorted([record, visitor])
    assert sorted(due_for_erasure(device.disk, device.clock)) == sorted([record, visitor]), (
        "until they are erased"
    )


def test_a_wrong_clock_costs_nobody_a_template(device: Appliance) -> None:
    add(device, b"expires", device.true_now + 30 * DAY)
    device.clock.keep()
    # Off overnight, it wakes up fifty days ahead, is trusted, and is put right within the day.
    device.time.reboot(3600)
    device.time.wrong = 50 * DAY
    device.start()
    for _ in range(20):
        assert due_for_erasure(device.disk, device.clock) == []
        device.time.pass_by(3600)
    device.time.wrong = 0
    for _ in range(24 * 29):
        device.time.pass_by(3600)
        assert due_for_erasure(device.disk, device.clock) == []


def test_a_clock_that_jumps_ten_years_erases_nothing_and_one_put_back_a_year_revives_nobody(
    device: Appliance,
) -> None:
    end = device.true_now + 30 * DAY
    add(device, b"expires", end)
    device.time.wrong = 10 * YEAR
    for _ in range(100):
        device.time.pass_by(3600)
        assert due_for_erasure(device.disk, device.clock) == []
        assert not expired(end, None, device.clock)
    device.time.wrong = 0
    device.time.pass_by(30 * DAY)
    assert expired(end, None, device.clock)
    device.time.wrong = -YEAR
    device.start()
    assert expired(end, None, device.clock)


def hours(device: Appliance, count: int) -> list[bytes]:
    """What is given for erasing in so many hours, asked each time."""
    found = []
    for _ in range(count):
        found += due_for_erasure(device.disk, device.clock)
        device.time.pass_by(3600)
    return found


def test_one_wrong_time_of_a_time_server_erases_nobody(device: Appliance) -> None:
    end = device.true_now + 365 * DAY
    record = add(device, b"expires", end)
    device.time.synchronised = True
    for wrong in (10 * YEAR, 399 * DAY):
        device.time.wrong = wrong
        due_for_erasure(device.disk, device.clock)
        device.time.wrong = 0
        assert hours(device, 24 * 40) == [], "it is put right, and the time is untrusted at worst"
    assert device.clock.moment() is None
    device.clock.confirm()
    assert device.clock.moment() == device.true_now
    assert not expired(end, None, device.clock)
    assert device.disk.all("SELECT over_since FROM record") == [(None,)]
    device.time.pass_by(end - device.true_now)
    assert hours(device, 24) == []
    assert due_for_erasure(device.disk, device.clock) == [record]


def test_a_wrong_time_that_is_believed_leaves_thirty_days_to_put_it_right(device: Appliance) -> None:
    record = add(device, b"expires", device.true_now + 365 * DAY)
    device.time.wrong, device.time.synchronised = 399 * DAY, True
    assert hours(device, 24 * 30) == []
    device.start()
    assert hours(device, 1) == [record]
    device.clock.confirm()
    assert hours(device, 24) == [], "an administrator who looked: a day from there"
    assert hours(device, 1) == [record]


def test_a_clock_that_creeps_ahead_at_each_boot_leaves_thirty_days_as_well(device: Appliance) -> None:
    end = device.true_now + 730 * DAY
    record = add(device, b"expires", end)
    device.clock.keep()
    for boots in range(1, 14):
        device.time.reboot(60)
        device.time.wrong = boots * 59.9 * DAY
        device.start()
        assert device.clock.moment() is not None
        assert hours(device, 24) == []
    assert expired(end, None, device.clock)
    assert hours(device, 24 * 27) == []
    device.time.wrong = 0
    device.clock.confirm()
    assert hours(device, 24 * 60) == []
    assert not expired(end, None, device.clock)
    assert device.disk.all("SELECT handle, over_since FROM record") == [(record, None)]


def test_vaults_own_store_takes_notes_of_what_is_over_and_clears_them(tmp_path: Path) -> None:
    now = SimulatedTime()
    with vault_in(tmp_path) as begun:
        vaulted = at(begun, now)
        token = enrol(vaulted, face(1))
        moment = vaulted.clock.moment()
        assert moment is not None
        with vaulted.store.transaction() as db:
            db.execute("UPDATE record SET expires_at = ?", (moment + 100 * DAY,))
        now.wrong, now.synchronised = 200 * DAY, True
        assert due_for_erasure(vaulted.store, vaulted.clock) == []
        now.pass_by(2 * DAY)
        assert due_for_erasure(vaulted.store, vaulted.clock) == []
        with vaulted.store.transaction() as db:
            assert db.execute("SELECT over_since IS NULL FROM record").fetchone() == (0,)
        now.wrong = 0
        vaulted.clock.confirm()
        with vaulted.store.transaction() as db:
            assert db.execute("SELECT over_since IS NULL FROM record").fetchone() == (1,)
        now.pass_by(98 * DAY)
        assert due_for_erasure(vaulted.store, vaulted.clock) == []
        now.pass_by(DAY)
        assert due_for_erasure(vaulted.store, vaulted.clock) == [token.handle]


def test_a_device_that_is_off_every_night_erases_all_the_same(device: Appliance) -> None:
    record = add(device, b"expires", device.true_now + 100 * DAY)
    days = 0
    while not hours(device, 12):
        days += 1
        device.clock.keep()
        device.time.reboot(12 * 3600)
        device.start()
    assert due_for_erasure(device.disk, device.clock) == [record]
    assert 155 <= days <= 165, "sixty nights and days, since half of them count"


def test_a_longer_validity_begins_the_day_anew(device: Appliance) -> None:
    record = add(device, b"visitor", device.true_now)
    assert due_for_erasure(device.disk, device.clock) == []
    device.time.pass_by(20 * 3600)
    add(device, b"visitor", device.true_now + 3600)
    assert due_for_erasure(device.disk, device.clock) == []
    assert device.disk.all("SELECT over_since FROM record") == [(None,)]
    device.time.pass_by(10 * 3600)
    assert due_for_erasure(device.disk, device.clock) == []
    device.time.pass_by(DAY)
    assert due_for_erasure(device.disk, device.clock) == [record]


def test_damaged_rights_erase_nobody_and_stop_nothing(
    device: Appliance, capsys: pytest.CaptureFixture[str]
) -> None:
    add(device, b"damaged", None, b"\xff" * RIGHTS)
    record = add(device, b"expires", device.true_now)
    due_for_erasure(device.disk, device.clock)
    device.time.pass_by(DAY)
    assert due_for_erasure(device.disk, device.clock) == [record]
    assert "damaged" in capsys.readouterr().err


def test_a_full_disk_notes_nothing_and_says_so(device: Appliance) -> None:
    add(device, b"expires", device.true_now)
    device.disk.full = True
    with pytest.raises(StoreError):
        due_for_erasure(device.disk, device.clock)
    device.disk.full = False
    assert device.disk.all("SELECT over_since FROM record") == [(None,)]


class Ending(RuleBasedStateMachine):
    """Nobody who was refused as expired comes back, and nobody is erased within a day of being so."""

    def __init__(self) -> None:
        super().__init__()
        self.device = Appliance()
        self.device.clock.moment()
        self.device.clock.keep()
        now = self.device.true_now
        self.end = {add(self.device, bytes([n]), now + n * 20 * DAY): now + n * 20 * DAY for n in range(1, 5)}
        self.refused: set[bytes] = set()
        self.noted: dict[bytes, float] = {}

    @rule(n=st.integers(0, 3))
    def attempt(self, n: int) -> None:
        handle, end = list(self.end.items())[n]
        try:
            if expired(end, None, self.device.clock):
                self.refused.add(handle)
        except StoreError:
            assert self.device.disk.full

    @rule()
    def upkeep(self) -> None:
        moment = self.device.clock.moment()
        try:
            found = due_for_erasure(self.device.disk, self.device.clock)
        except StoreError:
            assert self.device.disk.full
            return
        for handle in found:
            over_for = self.device.time.true - self.noted[handle]
            assert over_for >= DAY, "erased within a day"
            if self.end[handle] > self.device.true_now + 1:
                assert over_for >= 30 * DAY, "a wrong clock erased somebody within thirty days"
        if moment is not None:
            for handle, end in self.end.items():
                if end <= moment:
                    self.noted.setdefault(handle, self.device.time.true)
                    self.refused.add(handle)

    @rule(seconds=st.sampled_from([60, 3600, 8 * 3600, DAY, 20 * DAY]))
    def pass_by(self, seconds: int) -> None:
        self.device.time.pass_by(seconds)

    @rule(off=st.sampled_from([0.0, 10.0, 3.0 * DAY, 80.0 * DAY]))
    def restart(self, off: float) -> None:
        if off:
            self.device.time.reboot(off)
        self.device.start()
        self.nobody_comes_back()

    @rule(
        wrong=st.sampled_from([0, -200, -600, -DAY, DAY // 2, 40 * DAY, 390 * DAY, -YEAR, 10 * YEAR]),
        synchronised=st.booleans(),
    )
    def put_the_clock(self, wrong: int, synchronised: bool) -> None:
        self.device.time.wrong, self.device.time.synchronised = wrong, synchronised

    @precondition(lambda self: self.device.time.wrong == 0)
    @rule()
    def confirm(self) -> None:
        try:
            self.device.clock.confirm()
        except StoreError:
            assert self.device.disk.full
            return
        # Who was refused by a wrong clock is back; and each day begins anew.
        self.refused = {each for each in self.refused if self.end[each] <= self.device.true_now}
        self.noted.clear()

    @rule()
    def fill_the_disk(self) -> None:
        self.device.disk.full = True

    @precondition(lambda self: self.device.disk.full)
    @rule()
    def free_the_disk(self) -> None:
        self.device.disk.full = False

    def nobody_comes_back(self) -> None:
        # Not after every step: asking whether something is over keeps that it is.
        self.device.disk.full = False
        assert all(expired(self.end[each], None, self.device.clock) for each in self.refused)


TestEnding = Ending.TestCase
TestEnding.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
