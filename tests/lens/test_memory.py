import ctypes

import numpy as np
import pytest

from appliance.lens import memory
from appliance.lens.memory import settle


def test_what_is_held_stays_as_it_is() -> None:
    held = np.random.default_rng(1).integers(0, 256, 16 << 20, np.uint8)
    before = held.copy()
    settle()
    settle()
    np.testing.assert_array_equal(held, before)


def test_only_memory_of_its_own_is_touched_and_in_whole_large_pages() -> None:
    held = np.ones(16 << 20, np.uint8)
    ranges = list(memory._large_ranges())
    assert all(start % memory._HUGE == end % memory._HUGE == 0 < end - start for start, end in ranges)
    middle = held.ctypes.data + held.size // 2
    assert any(start <= middle < end for start, end in ranges)


def test_a_system_that_can_do_neither_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class OtherLibrary:
        class madvise:  # noqa: N801 - the name in the C library
            argtypes: object = None

            def __new__(cls, *_: object) -> int:  # type: ignore[misc]
                return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda _: OtherLibrary)
    settle()
