"""A simulated door with one person enrolled: what the system tests stand before."""

import base64
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from appliance.api_client import ApiClient
from appliance.link.messages import (
    TOKEN,
)
from appliance.qr import png
from appliance.simulation.board import Change
from appliance.simulation.demo import variations
from appliance.simulation.door import Plan, Shown, SimulatedDoor

NAME = "Q. Planted-Name"
BADGE = (26, 0x155AA55)


def eventually(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """The first true value of `condition`; fails when there is none in time."""
    until = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        assert time.monotonic() < until, "it did not come to pass in time"
        time.sleep(0.05)


@dataclass
class House:
    """A simulated door, its API, and the enrolled person's token."""

    door: SimulatedDoor
    api: ApiClient
    portraits: dict[str, Path]
    token: bytes = b""

    @property
    def relay(self) -> int:
        return self.door.settings.door.relay_pin

    def enrol(self) -> bytes:
        """Person, consent, badge and template; the token."""
        person = self.api.call("POST", "/people", {"name": NAME})["id"]
        self.api.call("POST", "/badges", {"person": person, "bits": BADGE[0], "number": f"{BADGE[1]:x}"})
        self.api.call("POST", f"/people/{person}/consents", {"notice_version": "1", "act": "signed-paper"})
        pictures = variations(self.portraits["obama.jpg"], self.door.state)
        self.door.show(Shown(0.3 * number, picture) for number, picture in enumerate(pictures))
        enrolment = self.api.call("POST", "/enrolments", {"person": person})
        eventually(lambda: self.api.call("GET", "/status")["vault"]["enrolment_open"])
        for _ in range(4):
            self.press()
            self.wait_locked()
            state = self.api.call("GET", f"/enrolments/{enrolment['id']}")
            if state["state"] == "done":
                break
        eventually(lambda: self.api.call("GET", f"/enrolments/{enrolment['id']}")["state"] == "done")
        token = self.api.call("POST", f"/enrolments/{enrolment['id']}/token")["token"]
        self.token = base64.b64decode(token)
        assert len(self.token) == TOKEN
        return self.token

    def press(self) -> float:
        return self.door.board.press()

    def badge(self) -> float:
        return self.door.reader.present(*BADGE)

    def show(self, picture: Path | None, *, token: bytes | None = None) -> None:
        """Put a token (else the enrolled person's) before the lens, and then a picture."""
        code = self.door.state / "shown.png"
        code.write_bytes(png(self.token if token is None else token))
        shots = [Shown(0.0, code, scale=0.6), Shown(0.5, picture)]
        self.door.show(shots)

    def wait_attempt(self) -> None:
        eventually(lambda: self.door.board.state(self.door.settings.door.lamp_busy_pin) == 1, 5)

    def wait_locked(self) -> None:
        """Until no attempt runs and the relay is off."""
        door = self.door.settings.door
        board = self.door.board
        time.sleep(0.1)
        eventually(lambda: not board.state(door.lamp_busy_pin) and not board.state(door.relay_pin), 20)

    def opened(self, since: float) -> list[Change]:
        """When the relay was energised."""
        return [change for change in self.door.board.history(self.relay, since=since) if change.state]


@contextlib.contextmanager
def open_house(packs: Path, portraits: dict[str, Path], plan: Plan | None = None) -> Iterator[House]:
    """A running simulated door; nobody is enrolled yet."""
    state = Path(tempfile.mkdtemp(prefix="drempel-test-"))
    plan = plan or Plan(packs=packs, unlock_time=0.5, answer_time=1.5)
    try:
        with SimulatedDoor(state, replace(plan, packs=packs)) as door:
            api = ApiClient(door.settings.socket("admin/api"), {os.geteuid()})
            yield House(door, api, portraits)
    finally:
        shutil.rmtree(state, ignore_errors=True)


def side_by_side(one: Path, other: Path, into: Path) -> Path:
    """Two faces in one picture."""
    left, right = (cv2.resize(cv2.imread(str(path)), (600, 800)) for path in (one, other))
    cv2.imwrite(str(into), np.hstack([left, right]))
    return into
