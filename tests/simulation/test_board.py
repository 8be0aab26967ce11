import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import gpiozero
import pytest

from appliance.simulation.board import Board, BoardError, WiredFactory

LINE, BUTTON = 22, 17


@pytest.fixture
def board() -> Iterator[Board]:
    folder = Path(tempfile.mkdtemp(prefix="drempel-"))
    made = Board(folder / "board", button_pin=BUTTON)
    yield made
    made.close()
    shutil.rmtree(folder)


@pytest.fixture
def factory(board: Board) -> Iterator[WiredFactory]:
    made = WiredFactory(board.path)
    yield made
    made.close()


def test_the_board_sees_what_a_line_does_and_when(board: Board, factory: WiredFactory) -> None:
    began = time.monotonic()
    line = gpiozero.LED(LINE, pin_factory=factory)
    line.on()
    up = board.wait_for(LINE, 1, 5)
    line.off()
    down = board.wait_for(LINE, 0, 5)
    line.close()
    released = board.wait_for(LINE, 0, 5, since=down.at + 1e-9)
    assert began <= up.at <= down.at <= released.at <= time.monotonic()
    assert [(change.state, change.released) for change in board.history(LINE)] == [
        (0, False),
        (1, False),
        (0, False),
        (0, True),
    ]


def test_an_output_that_starts_at_the_wrong_level_is_seen(board: Board, factory: WiredFactory) -> None:
    line = gpiozero.DigitalOutputDevice(LINE, initial_value=True, pin_factory=factory)
    board.wait_for(LINE, 1, 5)
    assert 1 in [change.state for change in board.history(LINE)]
    line.close()


def test_a_line_that_is_given_back_while_high_falls(board: Board, factory: WiredFactory) -> None:
    line = gpiozero.LED(LINE, pin_factory=factory)
    line.on()
    line.close()
    until = time.monotonic() + 5
    while not any(change.released for change in board.history(LINE)):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert board.state(LINE) == 0


def test_a_press_on_the_board_is_a_press_in_the_door(board: Board, factory: WiredFactory) -> None:
    button = gpiozero.Button(BUTTON, pin_factory=factory)
    pressed, let_go = threading.Event(), threading.Event()
    button.when_pressed = pressed.set
    button.when_released = let_go.set
    board.press(0.05)
    assert pressed.wait(5)
    assert let_go.wait(5)
    button.close()


def test_a_press_without_a_door_is_said(board: Board) -> None:
    with pytest.raises(BoardError, match="no door"):
        board.press(0.01)


def test_waiting_in_vain_ends(board: Board) -> None:
    with pytest.raises(BoardError, match="pin 22"):
        board.wait_for(LINE, 1, 0.05)


def test_a_killed_process_lets_every_line_fall(board: Board) -> None:
    code = (
        "import sys, time, gpiozero\n"
        "from pathlib import Path\n"
        "from appliance.simulation.board import use_board\n"
        "use_board(Path(sys.argv[1]))\n"
        "line = gpiozero.LED(22)\n"
        "line.on()\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(board.path)])
    board.wait_for(LINE, 1, 20)
    assert board.connected
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    fallen = board.wait_for(LINE, 0, 5)
    assert fallen.released
    assert board.state(LINE) == 0


def test_one_door_after_another_may_come(board: Board) -> None:
    for _ in range(3):
        factory = WiredFactory(board.path)
        line = gpiozero.LED(LINE, pin_factory=factory)
        began = time.monotonic()
        line.on()
        board.wait_for(LINE, 1, 5, since=began)
        line.close()
        factory.close()
    assert sum(change.state for change in board.history(LINE)) == 3


def test_a_wall_that_is_gone_does_not_stop_the_door() -> None:
    folder = Path(tempfile.mkdtemp(prefix="drempel-"))
    board = Board(folder / "board")
    factory = WiredFactory(board.path)
    line = gpiozero.LED(LINE, pin_factory=factory)
    board.wait_for(LINE, 0, 5, since=0.0)
    board.close()
    line.on()
    line.off()
    line.close()
    factory.close()
    shutil.rmtree(folder)
