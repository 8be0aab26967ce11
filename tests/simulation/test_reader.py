import secrets
import time
from pathlib import Path

import pytest

from appliance.simulation.reader import ReaderError, SimulatedReader


def test_a_reader_without_a_door_says_that_nobody_took_the_card() -> None:
    reader = SimulatedReader(secrets.token_bytes(16))
    try:
        assert not reader.online
        with pytest.raises(ReaderError, match="nobody took"):
            reader.present(26, 1, timeout=0.1)
        with pytest.raises(ReaderError, match="right key"):
            reader.wait_online(0.1)
    finally:
        reader.stop()


def test_the_next_reader_is_found_in_the_same_place(tmp_path: Path) -> None:
    link = tmp_path / "tty"
    first = SimulatedReader(secrets.token_bytes(16), link=link)
    before = link.resolve()
    second = SimulatedReader(secrets.token_bytes(16), link=link)
    assert first.device == second.device == link
    assert link.resolve() != before
    first.stop()
    second.stop()


def test_an_unplugged_reader_leaves_nothing_open() -> None:
    before = set(Path("/proc/self/fd").iterdir())
    reader = SimulatedReader(secrets.token_bytes(16))
    reader.stop()
    reader.stop()
    assert not reader.online
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_a_reader_that_the_machine_let_stand_still_says_so() -> None:
    reader = SimulatedReader(secrets.token_bytes(16))
    try:
        time.sleep(0.1)
        began = time.monotonic()
        with reader._using:
            time.sleep(0.3)
        time.sleep(0.1)
        assert reader.stalled(began, began + 0.3)
        assert not reader.stalled(began - 10, began - 9)
    finally:
        reader.stop()
