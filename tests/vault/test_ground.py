import threading
import time

import pytest

from appliance.link.messages import (
    MAX_LEASE,
)
from appliance.vault.ground import Leases

HANDLE = b"h" * 16


@pytest.fixture
def leases() -> Leases:
    return Leases()


def test_nothing_is_lawful_until_admin_vouches_for_it(leases: Leases) -> None:
    assert not leases.current(HANDLE)
    leases.grant(HANDLE, 60)
    assert leases.current(HANDLE)
    assert not leases.current(bytes(16))


def test_a_lease_that_nobody_renews_lapses(leases: Leases) -> None:
    leases.grant(HANDLE, 1)
    assert leases.current(HANDLE)
    assert leases.count() == 1
    time.sleep(1.05)
    assert not leases.current(HANDLE)
    assert leases.count() == 0
    leases.grant(HANDLE, 1)
    assert leases.current(HANDLE)


def test_nobody_can_vouch_for_more_than_an_hour(leases: Leases) -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    leases.grant(HANDLE, 1_000_000)
    assert leases._until[HANDLE] - before <= MAX_LEASE + 1


@pytest.mark.parametrize("seconds", [0, -1, -1_000_000])
def test_a_lease_of_no_time_ends_it_at_once(leases: Leases, seconds: int) -> None:
    leases.grant(HANDLE, 60)
    leases.grant(HANDLE, seconds)
    assert not leases.current(HANDLE)


def test_a_shorter_lease_shortens_the_one_before(leases: Leases) -> None:
    leases.grant(HANDLE, 3600)
    leases.grant(HANDLE, 1)
    time.sleep(1.05)
    assert not leases.current(HANDLE)


def test_the_end_of_a_ground_waits_for_a_decision_that_is_being_sent(leases: Leases) -> None:
    leases.grant(HANDLE, 60)
    order: list[str] = []

    def end() -> None:
        leases.end(HANDLE)
        order.append("ended")

    ending = threading.Thread(target=end)
    with leases.while_current(HANDLE) as current:
        assert current
        ending.start()
        time.sleep(0.1)
        order.append("sent")
    ending.join(timeout=2)
    assert order == ["sent", "ended"]
    with leases.while_current(HANDLE) as current:
        assert not current
