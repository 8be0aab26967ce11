"""The told story: a day at a door, on the simulation, with real pictures of real people.

Out of the box the door knows badges only. Someone consents, is enrolled, and enters by face; another person
with the same token does not; a badge opens whatever fails; and an erased face opens no more.
"""

import base64
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from appliance.api_client import ApiClient, ApiError
from appliance.errors import ConfigurationError
from appliance.lens.camera.pictures import BadPicture, read_picture_file
from appliance.process import Zone
from appliance.qr import png
from appliance.simulation.board import BoardError, Change
from appliance.simulation.door import Plan, Shown, SimulatedDoor, SimulationError

Seen = Literal["open", "shut"]
PICTURES = ("obama.jpg", "obama2.jpg", "biden.jpg")
BADGE = (26, 0x2A4C6E)
"""The bits and the number of the badge in the story."""
TOKEN_SHOWN = 0.8
"""Seconds that the person holds the token up before looking at the lens."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One scene of the story: what was expected of the door, and what was seen; `ms` from act to relay."""

    name: str
    expected: Seen
    seen: Seen
    ms: float | None

    @property
    def ok(self) -> bool:
        """Whether the door did what the story says."""
        return self.expected == self.seen


@dataclass(frozen=True, slots=True)
class Moment:
    """A line of the timeline: seconds since the story began, who or what, and what happened."""

    at: float
    who: str
    what: str


class Story:
    """Tells the story on a simulated door, and keeps its scenes and its timeline."""

    def __init__(
        self, door: SimulatedDoor, pictures: dict[str, Path], tell: Callable[[Moment], None]
    ) -> None:
        """A story that has not begun.

        Args:
            door: started with recognition off, as out of the box.
            pictures: `obama.jpg`, `obama2.jpg` and `biden.jpg`.
            tell: called with each moment as it happens.
        """
        self._door = door
        self._pictures = pictures
        self._tell_moment = tell
        self._began = time.monotonic()
        self._folder = door.state / "demo"
        self._folder.mkdir(exist_ok=True)
        self._token = self._folder / "token.png"
        self._person = ""
        self._acted = 0.0
        self.scenes: list[Scene] = []
        self.moments: list[Moment] = []

    def run(self) -> bool:
        """Tell it all; whether every scene ended as it should.

        Raises:
            DrempelError: the simulation broke down, which is no scene of the story.
        """
        api = ApiClient(self._door.settings.socket("admin/api"), {os.geteuid()})
        self._out_of_the_box(api)
        self._enrolled(api)
        self._two_faces()
        self._badge_always(api)
        self._erased(api)
        return all(scene.ok for scene in self.scenes)

    @property
    def pins(self) -> list[tuple[str, list[Change]]]:
        """The recorded states of relay and lamps, by name."""
        door = self._door.settings.door
        named = (
            ("relay", door.relay_pin),
            ("lamp: ready", door.lamp_ready_pin),
            ("lamp: camera open", door.lamp_busy_pin),
            ("lamp: use your badge", door.lamp_refused_pin),
        )
        return [(name, self._door.board.history(pin)) for name, pin in named]

    @property
    def began(self) -> float:
        """When the story began, on the monotonic clock that the pins are recorded by, in seconds."""
        return self._began

    def _out_of_the_box(self, api: ApiClient) -> None:
        self._tell("door", "out of the box: badges only, no face is ever processed")
        self._person = api.call("POST", "/people", {"name": "Barack"})["id"]
        bits, number = BADGE
        api.call("POST", "/badges", {"person": self._person, "bits": bits, "number": f"{number:x}"})
        self._tell("administrator", "adds Barack, and his badge")
        self._scene("a press, recognition off", "shut", self._press, wait=1.5)
        self._scene("a badge", "open", self._badge)
        self._door.write_settings(replace(self._door.plan, recognition=True))
        self._door.restart()
        self._tell("administrator", "switches recognition on: controller, DPIA and legal ground are named")

    def _enrolled(self, api: ApiClient) -> None:
        try:
            api.call("POST", "/enrolments", {"person": self._person})
        except ApiError as refusal:
            self._tell("admin", f"refuses to enrol: {refusal}")
        else:
            raise SimulationError("an enrolment without consent was begun: that must never be")
        api.call(
            "POST", f"/people/{self._person}/consents", {"notice_version": "2026-1", "act": "signed-paper"}
        )
        self._tell("Barack", "reads the notice, and signs his consent")
        enrolment = api.call("POST", "/enrolments", {"person": self._person, "seconds": 120})
        self._door.show(
            Shown(0.4 * number, picture)
            for number, picture in enumerate(variations(self._pictures["obama.jpg"], self._folder))
        )
        self._tell("administrator", "opens an enrolment window")
        self._scene("a press in the enrolment window", "shut", self._press, wait=self._answer_time)
        for _ in range(3):
            state = _finished(api, enrolment["id"])
            if state["state"] != "open":
                break
            self._tell("vault", f"{state['remaining']} good frames to go: Barack presses again")
            self._press()
            self._wait_idle()
        else:
            raise SimulationError("the enrolment did not end after three presses")
        if state["state"] != "done":
            raise SimulationError(f"the enrolment failed: {state['problem']}")
        token = base64.b64decode(api.call("POST", f"/enrolments/{enrolment['id']}/token")["token"])
        self._token.write_bytes(png(token))
        self._tell("admin", "hands out the token, once: half of the key, which the device has forgotten")

    def _two_faces(self) -> None:
        self._present("obama2.jpg")
        self._scene("Barack's token, Barack's face", "open", self._press)
        self._wait_idle()
        self._present("biden.jpg")
        self._scene("Barack's token, another face", "shut", self._press, wait=self._answer_time)
        refused = self._door.settings.door.lamp_refused_pin
        lit = any(change.state for change in self._door.board.history(refused, since=self._acted))
        self._tell("door", "points to the badge reader" if lit else "does NOT point to the badge reader")
        self._scene("a badge, right after", "open", self._badge)
        self._wait_idle()

    def _badge_always(self, api: ApiClient) -> None:
        killed: tuple[Zone, ...] = ("lens", "vault")
        for zone in killed:
            self._door.kill(zone, hold=True)
        self._tell("fate", "lens and vault are killed")
        status = api.call("GET", "/status")
        self._tell("admin", f"sees that vault is {'away' if status['vault'] is None else 'there'}")
        self._scene("a badge, lens and vault dead", "open", self._badge)
        for zone in killed:
            self._door.revive(zone)
        self._tell("fate", "lens and vault are back")
        self._wait_idle()

    def _erased(self, api: ApiClient) -> None:
        # The lease that a restart forgot is renewed by admin within a round or two.
        _until(lambda: api.call("GET", "/status")["vault"]["leases"] == 1, "vault has no current lease")
        self._present("obama2.jpg")
        self._scene("Barack's token and face, all zones back", "open", self._press)
        self._wait_idle()
        state = api.call("DELETE", f"/people/{self._person}/consents")["state"]
        self._tell("Barack", f"withdraws his consent: the template is {state}")
        self._scene("Barack's token and face, withdrawn", "shut", self._press, wait=self._answer_time)
        self._scene("Barack's badge, as ever", "open", self._badge)

    @property
    def _answer_time(self) -> float:
        return self._door.settings.recognition.attempt_time + 2.0

    def _present(self, picture: str) -> None:
        self._door.show(
            [
                Shown(0.0, None),
                Shown(0.3, self._token, scale=0.6),
                Shown(0.3 + TOKEN_SHOWN, self._pictures[picture]),
            ]
        )

    def _press(self) -> float:
        self._tell("person", "presses the button")
        return self._door.board.press()

    def _badge(self) -> float:
        self._tell("person", "holds up the badge")
        return self._door.reader.present(*BADGE)

    def _scene(self, name: str, expected: Seen, act: Callable[[], float], wait: float = 12.0) -> None:
        """Act, and watch the relay until it moves, or the attempt is over, or `wait` seconds have passed."""
        self._acted = acted = act()
        relay = self._door.settings.door.relay_pin
        ms: float | None = None
        seen: Seen = "shut"
        change: Change | None = None
        try:
            change = self._door.board.wait_for(relay, 1, wait if expected == "open" else 0.6, since=acted)
        except BoardError:
            if expected == "shut":
                change = self._after_the_attempt(relay, acted)
        if change is not None:
            seen, ms = "open", round((change.at - acted) * 1000, 1)
        scene = Scene(name, expected, seen, ms)
        self.scenes.append(scene)
        took = f" after {ms:.0f} ms" if ms is not None else ""
        self._tell("door", f"{seen}{took}{'' if scene.ok else f', BUT SHOULD BE {expected}'}: {name}")
        self._wait_idle()

    def _after_the_attempt(self, relay: int, acted: float) -> Change | None:
        """The relay's first move since `acted`, looked at when the attempt that runs is over."""
        self._wait_idle()
        return next((change for change in self._door.board.history(relay, since=acted) if change.state), None)

    def _wait_idle(self) -> None:
        """Until the door is locked and waits for the next person.

        Raises:
            SimulationError: it does not come to rest.
        """
        door = self._door.settings.door
        board = self._door.board

        def at_rest() -> bool:
            # The relay moves before the lamps do: at rest is what both say, and say again.
            return board.state(door.lamp_ready_pin) == 1 and board.state(door.relay_pin) == 0

        def at_rest_for_a_moment() -> bool:
            if not at_rest():
                return False
            time.sleep(0.05)
            return at_rest()

        _until(at_rest_for_a_moment, "the door does not come to rest")

    def _tell(self, who: str, what: str) -> None:
        moment = Moment(round(time.monotonic() - self._began, 3), who, what)
        self.moments.append(moment)
        self._tell_moment(moment)


def variations(picture: Path, folder: Path, count: int = 8) -> list[Path]:
    """`count` variations of a photograph, as a person before a lens varies: size, tilt, place and light.

    Raises:
        ConfigurationError: the file is no picture.
    """
    try:
        image = read_picture_file(picture)
    except BadPicture as error:
        raise ConfigurationError(f"{picture}: {error}; give a JPEG or PNG of one face") from error
    height, width = image.shape[:2]
    paths = []
    for number in range(count):
        share = number / max(1, count - 1) - 0.5
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), 8 * share, 1.0 + 0.1 * share)
        turn[:, 2] += (0.02 * width * share, 0.01 * height * share)
        varied = cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
        varied = np.clip(varied.astype(np.float32) * (1 + 0.2 * share), 0, 255).astype(np.uint8)
        path = folder / f"variation-{number}.png"
        cv2.imwrite(str(path), varied)
        paths.append(path)
    return paths


def as_json(story: Story) -> dict[str, Any]:
    """The shape that others build on (design §8)."""
    return {
        "ok": all(scene.ok for scene in story.scenes),
        "scenes": [asdict(scene) for scene in story.scenes],
        "timeline": [asdict(moment) for moment in story.moments],
    }


def plan(packs: Path) -> Plan:
    """The door of the story: recognition off at first."""
    return Plan(packs=packs, recognition=False)


def _finished(api: ApiClient, enrolment: str, seconds: float = 3.0) -> dict[str, Any]:
    """The state of an enrolment, given a moment to be no longer open."""
    until = time.monotonic() + seconds
    while True:
        state: dict[str, Any] = api.call("GET", f"/enrolments/{enrolment}")
        if state["state"] != "open" or time.monotonic() > until:
            return state
        time.sleep(0.1)


def _until(condition: Callable[[], bool], problem: str, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise SimulationError(problem)
        time.sleep(0.1)
