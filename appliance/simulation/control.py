"""The control socket of a simulated door: press, badge, and put pictures before the lens.

One line of JSON in, one line of JSON out, as often as one likes: `{"do": "press"}`. Only the user who runs
the simulation is heard.
"""

import contextlib
import json
import os
import socket
import threading
from pathlib import Path
from typing import Any, Self

from appliance.errors import DrempelError
from appliance.link.sockets import WrongPeer, accept, listen
from appliance.process import ZONES
from appliance.simulation.door import Shown, SimulatedDoor, SimulationError

MAX_LINE = 65536
"""Bytes of a command."""


class Control:
    """Serves the control socket of one simulated door; a context manager that closes it."""

    def __init__(self, door: SimulatedDoor, path: Path, stop: threading.Event) -> None:
        self._door = door
        self._stop = stop
        self._listener = listen(path)
        self._thread = threading.Thread(target=self._listen, name="control", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """It serves already."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Hear nobody any more."""
        with contextlib.suppress(OSError):
            # Closing alone would leave `accept` waiting.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=5)
        self._listener.close()

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                connection = accept(self._listener, {os.geteuid()})
            except WrongPeer:
                continue
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), name="control", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rwb") as stream:
            while line := stream.readline(MAX_LINE):
                try:
                    answer = self.do(json.loads(line))
                except (DrempelError, OSError, ValueError, KeyError, TypeError) as error:
                    answer = {"ok": False, "problem": str(error) or type(error).__name__}
                stream.write(json.dumps(answer).encode() + b"\n")
                stream.flush()

    def do(self, command: dict[str, Any]) -> dict[str, Any]:
        """Do one command, and give what there is to say about it.

        Raises:
            SimulationError, ValueError, KeyError: it cannot be done.
        """
        door = self._door
        match command["do"]:
            case "press":
                return {"ok": True, "at": door.board.press(float(command.get("seconds", 0.1)))}
            case "badge":
                at = door.reader.present(int(command["bits"]), int(command["number"], 16))
                return {"ok": True, "at": at}
            case "show":
                door.show(_shots(command["pictures"]))
            case "kill":
                if command["zone"] not in ZONES:
                    raise SimulationError("kill door, lens, vault or admin")
                door.kill(command["zone"])
            case "pins":
                pins = door.settings.door
                return {
                    "ok": True,
                    "relay": door.board.state(pins.relay_pin),
                    "ready": door.board.state(pins.lamp_ready_pin),
                    "busy": door.board.state(pins.lamp_busy_pin),
                    "refused": door.board.state(pins.lamp_refused_pin),
                }
            case "stop":
                self._stop.set()
            case _:
                raise SimulationError("one of press, badge, show, kill, pins, stop")
        return {"ok": True}


def ask(path: Path, command: dict[str, Any]) -> dict[str, Any]:
    """Send one command to the control socket at `path`, and give its answer.

    Raises:
        SimulationError: nobody listens there, or the answer is no.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(30)
            connection.connect(str(path))
            connection.sendall(json.dumps(command).encode() + b"\n")
            with connection.makefile("rb") as stream:
                answer: dict[str, Any] = json.loads(stream.readline(MAX_LINE))
    except (OSError, ValueError) as error:
        raise SimulationError(
            f"no simulated door answers at {path}: start `drempel run --simulate`"
        ) from error
    if not answer.get("ok"):
        raise SimulationError(str(answer.get("problem", "no")))
    return answer


def _shots(pictures: list[dict[str, Any]]) -> list[Shown]:
    shots: list[Shown] = []
    for picture in pictures:
        path = picture.get("picture")
        if path is not None and not Path(path).is_file():
            raise SimulationError(f"there is no picture {path}")
        shots.append(
            Shown(
                float(picture.get("at", len(shots) * 1.5)),
                Path(path) if path else None,
                float(picture.get("blur", 0)),
                float(picture.get("scale", 1)),
            )
        )
    return shots or [Shown(0.0, None)]
