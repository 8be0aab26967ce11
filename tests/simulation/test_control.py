"""The control socket of a simulated door."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from appliance.link.sockets import accept
from appliance.simulation import control as control_module
from appliance.simulation.control import Control, ask
from appliance.simulation.door import SimulatedDoor, SimulationError


class _Board:
    def press(self, seconds: float) -> float:
        return seconds


class _Door:
    def __init__(self) -> None:
        self.board = _Board()


@contextlib.contextmanager
def serve(path: Path) -> Iterator[threading.Event]:
    stop = threading.Event()
    with Control(cast("SimulatedDoor", _Door()), path, stop):
        yield stop


def test_a_command_is_done_and_answered(short_folder: Path) -> None:
    with serve(short_folder / "c") as stop:
        assert ask(short_folder / "c", {"do": "press", "seconds": 0.2}) == {"ok": True, "at": 0.2}
        with pytest.raises(SimulationError, match="kill door, lens, vault or admin"):
            ask(short_folder / "c", {"do": "kill", "zone": "cellar"})
        ask(short_folder / "c", {"do": "stop"})
        assert stop.is_set()


def test_another_user_is_not_heard(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed: list[set[int]] = [{54321}]

    def of_somebody_else(listener: Any, users: set[int]) -> Any:
        assert users == {os.geteuid()}
        return accept(listener, allowed.pop() if allowed else users)

    monkeypatch.setattr(control_module, "accept", of_somebody_else)
    with serve(short_folder / "c"):
        with pytest.raises(SimulationError, match="no simulated door answers"):
            ask(short_folder / "c", {"do": "press"})
        assert ask(short_folder / "c", {"do": "press"})["ok"], "and whoever may is heard afterwards"
