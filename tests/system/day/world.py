"""The door of a mixed day: four real zones that may die at any moment, and what is asked of them and seen.

Nothing here judges; it acts, asks, and reads files while all zones rest.
"""

import contextlib
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2

from appliance.api_client import ApiClient, ApiError
from appliance.errors import ConfigurationError
from appliance.link.framing import read_message, send_message
from appliance.link.messages import DOOR_TO_ADMIN, AskDoor, DoorState
from appliance.link.sockets import Deadline, LinkError, connect
from appliance.process import ZONES, Zone
from appliance.qr import png
from appliance.simulation.board import BoardError
from appliance.simulation.demo import variations
from appliance.simulation.door import Plan, Shown, SimulatedDoor, SimulationError

UNLOCK_TIME = 0.5
ATTEMPT_TIME = 3.5
ANSWER_TIME = 1.5
ATTEMPT_LIMIT = ATTEMPT_TIME + 2.0
"""Seconds after a press in which a match may still open: the attempt, door's grace, and a busy machine."""
STARTING = 0.8
"""Seconds from a kill within which no zone serves again: half a second of waiting, and its start."""
PICTURE_HEIGHT = 480
"""Pixels: what the camera would make of a photograph anyway, so that thousands of scenes are quick to lay."""

Face = Literal["obama", "biden"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a call: an answer, a refusal in words, or neither, where nobody answered."""

    value: Any = None
    refused: str | None = None
    unknown: bool = False

    @property
    def acknowledged(self) -> bool:
        """Whether the answer is yes, read whole."""
        return self.refused is None and not self.unknown


@dataclass
class Held:
    """What the zones hold, read from their files while they rest."""

    people: dict[str, str] = field(default_factory=dict)
    """Name to id."""
    consents: set[str] = field(default_factory=set)
    """Names of people whose consent is current."""
    badges: dict[str, str] = field(default_factory=dict)
    """Label to id, of those that are active."""
    templates: set[str] = field(default_factory=set)
    """Handles in the registry as enrolled, hexadecimal."""
    unfinished: int = 0
    """Rows of the registry that are neither here nor there."""
    vault: set[str] = field(default_factory=set)
    door: set[str] = field(default_factory=set)


class World:
    """One simulated door in a mixed day; its methods may be called from several threads."""

    def __init__(self, state: Path, packs: Path, portraits: dict[str, Path]) -> None:
        """A door that keeps what it holds under `state`, not started."""
        plan = Plan(packs=packs, unlock_time=UNLOCK_TIME, attempt_time=ATTEMPT_TIME, answer_time=ANSWER_TIME)
        self.door = SimulatedDoor(state, plan)
        self.state = state
        self._portraits = portraits
        self._away: list[tuple[float, float]] = []
        self._door_killed: int | None = None
        self._lock = threading.Lock()
        self.kills: Counter[Zone] = Counter()
        self.kill_times: list[tuple[float, Zone]] = []
        self.struck = threading.Event()
        """Set at each kill, for who wants to come right after one."""
        self._trace = threading.Lock()

    @contextlib.contextmanager
    def running(self) -> Iterator["World"]:
        """Start the zones; all of them are stopped afterwards."""
        with self.door:
            settings = self.door.settings
            self.settings = settings
            self.relay = settings.door.relay_pin
            self._busy = settings.door.lamp_busy_pin
            self._api = ApiClient(settings.socket("admin/api"), {os.geteuid()})
            self._lay_pictures()
            self._log = (self.state / "day.log").open("a", encoding="utf-8")
            self._stop = threading.Event()
            watch = threading.Thread(target=self._watch_door, name="door watch", daemon=True)
            watch.start()
            try:
                yield self
            finally:
                self._stop.set()
                watch.join()
                self._log.close()

    def trace(self, text: str) -> None:
        """A line for whoever looks into a day that went wrong."""
        with self._trace:
            self._log.write(f"{time.monotonic():.3f} {text}\n")
            self._log.flush()

    # What people do.

    def ask(self, method: str, route: str, body: dict[str, Any] | None = None) -> Answer:
        """Call the API, and say what came of it."""
        try:
            return Answer(self._api.call(method, route, body))
        except ConfigurationError as error:
            return Answer(refused=str(error))
        except ApiError as error:
            # Nobody answered, or the answer broke off: what was asked may have been done.
            if error.__cause__ is not None:
                return Answer(unknown=True)
            return Answer(refused=str(error))

    def listed(self, route: str) -> list[dict[str, Any]] | None:
        """A whole list, whether it comes at once or in pages; None where nobody answers."""
        items: list[dict[str, Any]] = []
        after: int | None = None
        while True:
            answer = self.ask("GET", route if after is None else f"{route}?after={after}")
            if not answer.acknowledged:
                return None
            if isinstance(answer.value, list):
                return answer.value
            items += answer.value["items"]
            after = answer.value["next"]
            if after is None:
                return items

    def show_enrolment(self, face: Face) -> None:
        """Have a person before the lens who moves a little, to be enrolled."""
        self.door.show(Shown(0.15 * number, path) for number, path in enumerate(self._moving[face]))

    def show(self, face: Face | None, token: bytes | None) -> None:
        """Have a token before the lens, where there is one, and then a face, where there is one."""
        picture = self._still[face] if face else None
        if token is None:
            self.door.show([Shown(0.0, picture)])
            return
        code = self.state / "token.png"
        code.write_bytes(png(token))
        # Shown again to a camera that was too busy to read it the first time.
        self.door.show(
            shown
            for at in (0.0, 0.9, 1.6)
            for shown in (Shown(at, code, scale=0.6), Shown(at + 0.3, picture))
        )

    def press(self) -> float | None:
        """Press the button; when, or None where the door is away."""
        try:
            return self.door.board.press(0.06)
        except BoardError:
            return None

    def attempt_runs(self) -> bool:
        """Whether door says that an attempt runs."""
        return bool(self.door.board.state(self._busy))

    def attempt_began(self, since: float) -> bool:
        """Whether door has said since then that an attempt runs."""
        return any(change.state for change in self.door.board.history(self._busy, since=since))

    def wait_attempt_begun(self) -> None:
        """Until door has taken a press in, if it does at all."""
        deadline = Deadline(0.4)
        while not deadline.passed and not self.attempt_runs():
            time.sleep(0.01)

    def wait_attempt_over(self) -> None:
        """Until no attempt runs and the relay is off; no longer than an attempt may take."""
        board = self.door.board
        deadline = Deadline(ATTEMPT_LIMIT)
        while not deadline.passed and (board.state(self._busy) or board.state(self.relay)):
            time.sleep(0.02)

    # What fate does.

    def kill(self, zone: Zone) -> bool:
        """Kill a zone; False where it is dead already."""
        with self._lock:
            try:
                pid = self.door.pid(zone)
                at = time.monotonic()
                if zone == "door" and self._door_killed is None:
                    self._away.append((at, float("inf")))
                self.door.kill(zone)
            except (SimulationError, ProcessLookupError):
                return False
            if zone == "door":
                self._door_killed = pid
            self.kills[zone] += 1
            self.kill_times.append((at, zone))
            self.struck.set()
            return True

    def away(self, since: float, until: float) -> float | None:
        """When the last absence of door between two times ended (infinite: not yet); None without one."""
        with self._lock:
            ends = [back for gone, back in self._away if gone <= until and back >= since]
        return max(ends, default=None)

    def door_entries(self) -> tuple[int, int] | None:
        """Door's process, and how many badges it says it has opened for; None where it does not say."""
        try:
            pid = self.door.pid("door")
            with connect(self.settings.socket("door/admin"), {os.geteuid()}, Deadline(1)) as connection:
                send_message(connection, AskDoor(), Deadline(1))
                state = read_message(connection, DOOR_TO_ADMIN, Deadline(1))
        except (SimulationError, LinkError):
            return None
        return (pid, state.badge_entries) if isinstance(state, DoorState) else None

    def door_is_away(self) -> bool:
        """Whether door is dead or starting at this moment."""
        now = time.monotonic()
        return self.away(now, now) is not None

    def dead(self, zone: Zone) -> bool:
        """Whether a zone is dead, or was killed so lately that it can hardly serve yet."""
        with self._lock:
            killed = max((at for at, each in self.kill_times if each == zone), default=0.0)
        return time.monotonic() - killed < STARTING or not self.up(zone)

    def wait_alive(self, zones: Iterable[Zone]) -> None:
        """Until none of these zones is dead, for three seconds at most."""
        deadline = Deadline(3.0)
        while not deadline.passed and any(self.dead(zone) for zone in zones):
            time.sleep(0.05)

    def up(self, zone: Zone) -> bool:
        """Whether a zone's process runs."""
        try:
            self.door.pid(zone)
        except SimulationError:
            return False
        return True

    def _watch_door(self) -> None:
        """Notes when a door that was killed serves again: it answers, and its reader is up."""
        while not self._stop.wait(0.02):
            with self._lock:
                killed = self._door_killed
            if killed is None:
                continue
            try:
                pid = self.door.pid("door")
                with connect(self.settings.socket("door/admin"), {os.geteuid()}, Deadline(1)) as connection:
                    send_message(connection, AskDoor(), Deadline(1))
                    state = read_message(connection, DOOR_TO_ADMIN, Deadline(1))
            except (SimulationError, LinkError):
                continue
            with self._lock:
                if pid != self._door_killed and isinstance(state, DoorState) and state.readers_up:
                    self._away[-1] = (self._away[-1][0], time.monotonic())
                    self._door_killed = None

    # What is seen while all zones rest.

    def rest(self, seconds: float = 60.0) -> None:
        """Until all zones serve, and admin's upkeep has nothing left to do.

        Raises:
            SimulationError: it does not come to that.
        """
        self.door.wait_ready()
        deadline = Deadline(seconds)
        while True:
            held = self.held()
            status = self.ask("GET", "/status").value
            vault, door = (status or {}).get("vault"), (status or {}).get("door")
            if (
                vault
                and door
                and not held.unfinished
                and vault["leases"] == len(held.templates)
                and door["readers_up"]
                and not self.door_is_away()
            ):
                return
            if deadline.passed:
                raise SimulationError(
                    f"the zones do not come to rest: {held.unfinished} rows unfinished, "
                    f"{len(held.templates)} templates, status {status}"
                )
            time.sleep(0.25)

    def held(self) -> Held:
        """What the files of the zones say."""
        held = Held()
        with self._open("admin", "registry.db") as db:
            held.people = {name: person for person, name in db.execute("SELECT id, name FROM person")}
            held.consents = {
                name
                for (name,) in db.execute(
                    "SELECT name FROM consent JOIN person ON person.id = consent.person "
                    "WHERE withdrawn_at IS NULL"
                )
            }
            for badge, label, state in db.execute("SELECT id, label, state FROM badge"):
                if state == "active":
                    held.badges[label] = badge.hex()
                else:
                    held.unfinished += 1
            for handle, state in db.execute("SELECT handle, state FROM template"):
                if state == "enrolled":
                    held.templates.add(handle.hex())
                else:
                    held.unfinished += 1
        with self._open("vault", "vault.db") as db:
            held.vault = {handle.hex() for (handle,) in db.execute("SELECT handle FROM record")}
        with self._open("door", "badges.db") as db:
            held.door = {badge.hex() for (badge,) in db.execute("SELECT id FROM badge")}
        return held

    def damage(self) -> list[str]:
        """What SQLite finds damaged in the zones' files."""
        found = []
        for zone, name in (("admin", "registry.db"), ("vault", "vault.db"), ("door", "badges.db")):
            with self._open(zone, name) as db:
                (verdict,) = db.execute("PRAGMA integrity_check").fetchone()
            if verdict != "ok":
                found.append(f"{name}: {verdict}")
        return found

    def leaks(self, words: dict[str, bytes], places: Iterable[str]) -> list[str]:
        """Which of the named byte strings stand in these files and folders under `state`."""
        found = []
        for place in places:
            top = self.state / place
            for path in [top] if top.is_file() else sorted(top.rglob("*")):
                if path.is_file():
                    content = path.read_bytes()
                    found += [
                        f"{name} in {place} ({path.name})" for name, word in words.items() if word in content
                    ]
        return found

    def journals(self) -> dict[Zone, Path]:
        """The journal of each zone."""
        return {zone: self.settings.zone_state(zone) / "journal.jsonl" for zone in ZONES}

    @contextlib.contextmanager
    def _open(self, zone: str, name: str) -> Iterator[sqlite3.Connection]:
        path = self.state / zone / name
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
        try:
            yield db
        finally:
            db.close()

    def _lay_pictures(self) -> None:
        folder = self.state / "pictures"
        folder.mkdir()
        small = {}
        for name, path in self._portraits.items():
            image: Any = cv2.imread(str(path))
            width = round(image.shape[1] * PICTURE_HEIGHT / image.shape[0])
            small[name] = folder / name
            cv2.imwrite(
                str(small[name]), cv2.resize(image, (width, PICTURE_HEIGHT), interpolation=cv2.INTER_AREA)
            )
        self._still: dict[Face, Path] = {"obama": small["obama2.jpg"], "biden": small["biden.jpg"]}
        self._moving: dict[Face, list[Path]] = {}
        faces: tuple[tuple[Face, str], ...] = (("obama", "obama.jpg"), ("biden", "biden.jpg"))
        for face, name in faces:
            moves = folder / face
            moves.mkdir()
            self._moving[face] = variations(small[name], moves)
