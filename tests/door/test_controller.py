import asyncio
import json
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import gpiozero
import pytest
from gpiozero.pins.mock import MockFactory

from appliance import journal as journal_module
from appliance.door import controller as controller_module
from appliance.door import record as record_module
from appliance.door.badges import Badges
from appliance.door.controller import Controller, Reason
from appliance.door.pins import Pins, RelayError
from appliance.door.record import Record
from appliance.journal import Event, Journal, JournalError, verify
from appliance.link.messages import (
    DoorMode,
    Guidance,
    Guide,
    Look,
)
from appliance.settings import Door, Paths, Recognition, Settings, Users

BADGE = (26, 0x2ABCDE1)
STRANGE = (26, 0x1234567)
ATTEMPT_TIME = 2.0
Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class SomeReader:
    """A badge reader of which only the state matters here."""

    name = "outside"

    def __init__(self) -> None:
        self.up = True

    def start(self, on_card: Callable[[int, int], None], on_state: Callable[[bool], None]) -> None:
        """Nothing is read."""

    def stop(self) -> None:
        """Nothing was begun."""


class Vault:
    """Vault's two sockets, with answers that a test chooses."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.asked: list[bytes] = []
        self.answers: list[Speak] = []
        self.guidance: Speak | None = None
        self._servers: list[asyncio.Server] = []
        self._speaking: set[asyncio.Task[None] | None] = set()

    async def open(self) -> None:
        folder = self._settings.paths.runtime / "vault"
        folder.mkdir(parents=True)
        for name, serve in (("decision", self._decide), ("guidance", self._guide)):
            path = self._settings.socket(f"vault/{name}")
            self._servers.append(await asyncio.start_unix_server(serve, path))

    def close(self) -> None:
        for server in self._servers:
            server.close()

    async def leave(self) -> None:
        self.close()
        for task in self._speaking:
            if task is not None:
                task.cancel()
        await asyncio.sleep(0.02)

    async def _decide(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._speaking.add(asyncio.current_task())
        try:
            self.asked.append(await reader.read())
            await self.answers.pop(0)(reader, writer)
            writer.close()
        except asyncio.CancelledError:
            writer.transport.abort()

    async def _guide(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._speaking.add(asyncio.current_task())
        try:
            if self.guidance is not None:
                await self.guidance(reader, writer)
            await reader.read()
        except (asyncio.CancelledError, ConnectionError):
            pass  # the test is over, or door has hung up
        finally:
            writer.transport.abort()


def saying(data: bytes, after: float = 0.0) -> Speak:
    async def speak(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(after)
        writer.write(data)

    return speak


def aborting() -> Speak:
    async def speak(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    return speak


class Scene:
    """A door on mock pins, its vault, and what became of them."""

    def __init__(self, folder: Path, wall: MockFactory, **recognition: Any) -> None:
        self.wall = wall
        self.folder = folder
        self.settings = Settings(
            paths=Paths(state=folder / "state", runtime=folder / "run"),
            users=Users(door="", lens="", vault="", admin=""),
            door=Door(unlock_time=0.5, unlock_limit=2.0),
            recognition=Recognition(attempt_time=ATTEMPT_TIME, answer_time=1.0, **recognition),
        )
        self.vault = Vault(self.settings)
        self.reader = SomeReader()

    @asynccontextmanager
    async def played(self, journal: Journal | None = None) -> AsyncIterator[Controller]:
        loop = asyncio.get_running_loop()
        await self.vault.open()
        self.badges = Badges(self.folder)
        self.badges.add(secrets.token_bytes(16), *BADGE)
        self.record = Record(journal or Journal(self.folder / "journal.jsonl"))

        def released() -> None:
            loop.call_soon_threadsafe(door.relay_released)

        self.pins = Pins(
            self.settings.door,
            on_press=lambda: None,
            on_release=released,
        )
        door = Controller(
            self.settings, self.pins, self.badges, self.record, [self.reader], frozenset({os.geteuid()})
        )
        try:
            yield door
        finally:
            door.stop()
            self.pins.close()
            self.badges.close()
            self.record.close()
            await self.vault.leave()

    @property
    def relay_states(self) -> list[int]:
        return [int(state.state) for state in self.wall.pin(self.settings.door.relay_pin).states]

    def lamp(self, name: str) -> bool:
        return bool(getattr(self.pins, name).value)


ON = {
    "enabled": True,
    "controller": "Bakkerij De Ooievaar",
    "dpia": "2026-03",
    "legal_ground": "consent",
}


@pytest.fixture
def make_scene() -> Iterator[Callable[..., Scene]]:
    folder = Path(tempfile.mkdtemp(prefix="drempel-"))
    wall = MockFactory()
    gpiozero.Device.pin_factory = wall

    def make(**recognition: Any) -> Scene:
        scene = Scene(folder, wall, **recognition)
        if recognition:
            # A `Settings` with recognition on must name a reader; this one has a reader of the test's own.
            enabled = scene.settings.recognition.model_copy(update=ON)
            scene.settings = scene.settings.model_copy(update={"recognition": enabled})
            scene.vault = Vault(scene.settings)
        return scene

    yield make
    wall.reset()
    gpiozero.Device.pin_factory = None
    shutil.rmtree(folder)


@pytest.fixture
def scene(make_scene: Callable[..., Scene]) -> Scene:
    return make_scene(acknowledge=["edge"])


async def settle(door: Controller, *, mode: DoorMode = DoorMode.LOCKED, seconds: float = 6.0) -> None:
    async with asyncio.timeout(seconds):
        while door.mode is not mode:  # noqa: ASYNC110 - the door's mode is what people see of it
            await asyncio.sleep(0.01)


def test_a_match_opens_the_door(scene: Scene) -> None:
    async def play() -> None:
        async with scene.played() as door:
            scene.vault.answers = [saying(b"\x01")]
            door.press()
            assert scene.lamp("busy")
            await settle(door, mode=DoorMode.UNLOCKED)
            assert scene.relay_states == [0, 1]
            assert not scene.lamp("busy")
            await settle(door)
            assert scene.relay_states == [0, 1, 0]
            assert door.entries == {Reason.FACE: 1, Reason.BADGE: 0}
            assert scene.lamp("ready")

    asyncio.run(play())
    assert scene.vault.asked == [b"\x01"]


@pytest.mark.parametrize(
    "answer",
    [
        saying(b"\x00"),
        saying(b"\x02"),
        saying(b"\xff"),
        saying(b""),
        saying(b"\x01\x01"),
        saying(b"\x01\x00"),
        saying(b"\x00\x01"),
        saying(b"\x01" * 4096),
        aborting(),
    ],
    ids=["00", "02", "ff", "nothing", "0101", "0100", "0001", "flood", "torn"],
)
def test_anything_but_one_lone_01_leaves_the_door_shut(scene: Scene, answer: Speak) -> None:
    async def play() -> None:
        async with scene.played() as door:
            scene.vault.answers = [answer]
            door.press()
            await settle(door)
            assert scene.lamp("refused")
            assert not scene.lamp("ready")
            assert scene.relay_states == [0]

    asyncio.run(play())


@pytest.mark.parametrize("answer", [saying(b"\x01", after=60), saying(b"\x01", after=ATTEMPT_TIME + 1.2)])
def test_an_answer_after_the_deadline_leaves_the_door_shut(scene: Scene, answer: Speak) -> None:
    async def play() -> None:
        async with scene.played() as door:
            scene.vault.answers = [answer]
            began = time.monotonic()
            door.press()
            await settle(door)
            assert time.monotonic() - began >= ATTEMPT_TIME + 0.9
            await asyncio.sleep(0.4)
            assert scene.relay_states == [0]

    asyncio.run(play())


def test_a_match_that_is_never_finished_leaves_the_door_shut(scene: Scene) -> None:
    async def hold(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x01")
        await asyncio.sleep(60)

    async def play() -> None:
        async with scene.played() as door:
            scene.vault.answers = [hold]
            door.press()
            await settle(door)
            assert scene.relay_states == [0]

    asyncio.run(play())


def test_a_press_without_a_vault_points_to_the_badge(scene: Scene) -> None:
    async def play() -> None:
        async with scene.played() as door:
            scene.vault.close()
            door.press()
            await settle(door)
            assert scene.lamp("refused")
            door.card(*BADGE)
            assert scene.relay_states == [0, 1]

    asyncio.run(play())


def test_a_second_press_during_an_attempt_is_ignored(scene: Scene) -> None:
    async def play() -> None:
        async with scene.played() as door:
            scene.vault.answers = [saying(b"\x00", after=0.3)]
            door.press()
            await asyncio.sleep(0.1)
            door.press()
            await settle(door)
            assert len(scene.vault.asked) == 1

    asyncio.run(play())


def test_a_press_while_unlocked_is_ignored(scene: Scene) -> None:
    async def play() -> None:
        async with scene.played() as door:
            door.card(*BADGE)
            door.press()
            assert door.mode is DoorMode.UNLOCKED
            await settle(door)
            assert scene.vault.asked == []

    asyncio.run(play())


def test_a_badge_opens_at_once_during_an_attempt_and_ends_it(scene: Scene) -> None:
    async def play() -> None:
        async with scene.played() as door:
            scene.vault.answers = [saying(b"\x01", after=0.3)]
            door.press()
            await asyncio.sleep(0.1)
            door.card(*BADGE)
            assert scene.relay_states == [0, 1]
            assert door.mode is DoorMode.UNLOCKED
            await settle(door)
            await asyncio.sleep(0.3)
            assert scene.relay_states == [0, 1, 0]
            assert door.entries == {Reason.FACE: 0, Reason.BADGE: 1}

    asyncio.run(play())


def test_a_late_match_cannot_open_after_a_new_press(scene: Scene) -> None:
    async def play() -> None:
        async with scene.played() as door:
            scene.vault.answers = [saying(b"\x01", after=0.9), saying(b"\x00", after=1.2)]
            door.press()
            await asyncio.sleep(0.1)
            door.card(*BADGE)  # ends the first attempt
            await settle(door)
            door.press()
            await asyncio.sleep(0.6)  # in which the first attempt's match arrives
            assert door.mode is DoorMode.ATTEMPT
            await settle(door)
            assert scene.relay_states == [0, 1, 0]
            assert len(scene.vault.asked) == 2

    asyncio.run(play())


def test_a_strange_card_during_an_attempt_does_not_end_it(scene: Scene) -> None:
    async def play() -> None:
        async with scene.played() as door:
            scene.vault.answers = [saying(b"\x01", after=0.3)]
            door.press()
            door.card(*STRANGE)
            assert scene.lamp("refused")
            await settle(door, mode=DoorMode.UNLOCKED)

    asyncio.run(play())


def test_a_strange_card_opens_nothing(scene: Scene) -> None:
    async def play() -> None:
        async with scene.played() as door:
            door.card(*STRANGE)
            assert scene.lamp("refused")
            assert scene.relay_states == [0]

    asyncio.run(play())


def test_the_refused_lamp_goes_out_by_itself(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller_module, "REFUSED_TIME", 0.1)

    async def play() -> None:
        async with scene.played() as door:
            door.card(*STRANGE)
            await asyncio.sleep(0.3)
            assert not scene.lamp("refused")
            assert scene.lamp("ready")

    asyncio.run(play())


def test_a_badge_again_while_unlocked_keeps_the_door_open_but_not_beyond_the_limit(scene: Scene) -> None:
    async def play() -> None:
        async with scene.played() as door:
            began = time.monotonic()
            while len(scene.relay_states) < 3 and time.monotonic() - began < 5:
                door.card(*BADGE)
                await asyncio.sleep(0.05)
            assert 1.9 < scene.wall.pin(scene.settings.door.relay_pin).states[2].timestamp < 3.0

    asyncio.run(play())


def test_with_recognition_off_a_press_points_to_the_badge(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene()

    async def play() -> None:
        async with scene.played() as door:
            door.press()
            assert door.mode is DoorMode.LOCKED
            assert scene.lamp("refused")
            await asyncio.sleep(0.1)
            assert scene.vault.asked == []
            assert door.state().recognition == 0
            door.card(*BADGE)
            assert scene.relay_states == [0, 1]

    asyncio.run(play())


def test_without_any_badge_reader_for_long_faces_do_not_open_either(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller_module, "READERS_GRACE", 0.1)

    async def play() -> None:
        async with scene.played() as door:
            scene.reader.up = False
            door.reader_changed(1, up=False)
            assert door.recognition
            await asyncio.sleep(0.2)
            door.press()
            assert door.mode is DoorMode.LOCKED
            assert scene.lamp("refused")
            scene.reader.up = True
            door.reader_changed(1, up=True)
            assert door.recognition

    asyncio.run(play())


def test_guidance_is_shown_and_changes_nothing_else(scene: Scene) -> None:
    async def guide(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(Guide(Guidance.SHOW_TOKEN).encode())
        await asyncio.sleep(0.1)
        writer.write(Guide(Guidance.DONE).encode())

    async def play() -> None:
        async with scene.played() as door:
            scene.vault.guidance = guide
            scene.vault.answers = [saying(b"\x00", after=0.4)]
            door.press()
            shown = []
            for _ in range(2):
                await asyncio.sleep(0.08)
                shown.append(door.guidance)
            assert shown == [Guidance.SHOW_TOKEN, Guidance.DONE]
            await settle(door)
            assert door.guidance is None
            assert scene.relay_states == [0]

    asyncio.run(play())


@pytest.mark.parametrize("noise", [Look().encode(), b"\x1a\x00", b"\x1a\x00\x01\xff", b"\x01" * 64])
def test_hostile_guidance_costs_the_guidance_and_not_the_attempt(scene: Scene, noise: bytes) -> None:
    async def guide(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(noise)

    async def play() -> None:
        async with scene.played() as door:
            scene.vault.guidance = guide
            scene.vault.answers = [saying(b"\x01", after=0.2)]
            door.press()
            await settle(door, mode=DoorMode.UNLOCKED)
            assert door.guidance is None

    asyncio.run(play())


def test_stopping_in_an_attempt_locks_and_no_match_opens_any_more(scene: Scene) -> None:
    async def play() -> None:
        async with scene.played() as door:
            scene.vault.answers = [saying(b"\x01", after=0.1)]
            door.press()
            await asyncio.sleep(0.05)
            door.stop()
            await asyncio.sleep(0.3)
            door.card(*BADGE)
            door.press()
            assert scene.relay_states == [0]

    asyncio.run(play())


def test_a_relay_that_may_not_be_energised_is_a_fault_of_the_door(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        faults: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: faults.append(context["exception"])
        )
        async with scene.played() as door:
            monkeypatch.setattr(scene.pins.relay._timer, "is_alive", lambda: False)
            scene.vault.answers = [saying(b"\x01")]
            door.press()
            await asyncio.sleep(0.2)
            assert [type(fault) for fault in faults] == [RelayError]
            assert scene.relay_states == [0]
            monkeypatch.undo()

    asyncio.run(play())


def test_unreadable_badges_open_for_nobody(scene: Scene) -> None:
    async def play() -> None:
        async with scene.played() as door:
            scene.badges._read.execute("PRAGMA query_only = OFF")
            scene.badges._write.execute("DROP TABLE badge")
            door.card(*BADGE)
            assert scene.relay_states == [0]
            assert scene.lamp("refused")

    asyncio.run(play())


def test_a_full_disk_is_counted_and_the_door_opens(scene: Scene) -> None:
    async def play() -> None:
        journal = Journal(scene.folder / "journal.jsonl")
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, journal._file)
        os.close(full)
        async with scene.played(journal) as door:
            door.card(*BADGE)
            assert scene.relay_states == [0, 1]
            await settle(door)
        assert scene.record.lost == 2

    asyncio.run(play())


def test_a_hanging_disk_does_not_keep_anybody_waiting(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        journal = Journal(scene.folder / "journal.jsonl")
        monkeypatch.setattr(journal, "write", lambda *_, **__: time.sleep(1))
        async with scene.played(journal) as door:
            for _ in range(700):
                door.card(*STRANGE)
            began = time.monotonic()
            door.card(*BADGE)
            assert time.monotonic() - began < 0.5
            assert scene.relay_states == [0, 1]
            assert scene.record.lost > 0

    asyncio.run(play())


def test_the_journal_tells_what_happened_and_not_to_whom(scene: Scene) -> None:
    async def play() -> None:
        async with scene.played() as door:
            scene.vault.answers = [saying(b"\x01")]
            door.press()
            await settle(door, mode=DoorMode.UNLOCKED)
            await settle(door)
            door.card(*BADGE)
            door.card(*STRANGE)

    asyncio.run(play())
    path = scene.folder / "journal.jsonl"
    verify(path)
    text = path.read_text()
    for event in ("pressed", "attempt ended", "unlocked", "locked", "badge refused"):
        assert f'"{event}"' in text
    assert '"reason":"face"' in text
    assert '"reason":"badge"' in text
    assert str(BADGE[1]) not in text
    assert str(STRANGE[1]) not in text


def guiding(*words: Guidance) -> Speak:
    async def guide(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for word in words:
            writer.write(Guide(word).encode())

    return guide


def outcomes(scene: Scene) -> list[str]:
    lines = [json.loads(line) for line in (scene.folder / "journal.jsonl").read_text().splitlines()]
    return [line["details"]["outcome"] for line in lines if line["event"] == "attempt ended"]


@pytest.mark.parametrize("last", [Guidance.CAPTURED, Guidance.DONE])
def test_a_press_in_an_enrolment_window_opens_nothing_and_is_no_refusal(scene: Scene, last: Guidance) -> None:
    async def play() -> None:
        async with scene.played() as door:
            scene.vault.guidance = guiding(Guidance.LOOK_HERE, last)
            scene.vault.answers = [saying(b"\x00", after=0.5)]
            door.press()
            await settle(door)
            assert not scene.lamp("refused")
            assert not scene.lamp("busy")
            assert scene.lamp("ready")
            assert scene.relay_states == [0]

    asyncio.run(play())
    assert outcomes(scene) == ["captured"]


@pytest.mark.parametrize("words", [(Guidance.USE_BADGE,), (Guidance.CAPTURED, Guidance.USE_BADGE)])
def test_an_attempt_that_ends_with_the_badge_as_guidance_is_refused(
    scene: Scene, words: tuple[Guidance, ...]
) -> None:
    async def play() -> None:
        async with scene.played() as door:
            scene.vault.guidance = guiding(*words)
            scene.vault.answers = [saying(b"\x00", after=0.5)]
            door.press()
            await settle(door)
            assert scene.lamp("refused")
            assert scene.relay_states == [0]

    asyncio.run(play())
    assert outcomes(scene) == ["no_match"]


def test_what_a_person_captured_before_does_not_colour_the_next_attempt(scene: Scene) -> None:
    async def play() -> None:
        async with scene.played() as door:
            scene.vault.guidance = guiding(Guidance.CAPTURED)
            scene.vault.answers = [saying(b"\x00", after=0.5), saying(b"\x00", after=0.5)]
            door.press()
            await settle(door)
            scene.vault.guidance = None
            door.press()
            await settle(door)
            assert scene.lamp("refused")

    asyncio.run(play())
    assert outcomes(scene) == ["captured", "no_match"]


def test_a_badge_opens_at_once_while_vault_floods_guidance(scene: Scene) -> None:
    async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(Guide(Guidance.SHOW_TOKEN).encode() * 20_000)
            await writer.drain()

    async def play() -> None:
        async with scene.played() as door:
            loop = asyncio.get_running_loop()
            shown: list[Guidance] = []
            before: list[int] = []

            def card() -> None:
                before.append(len(shown))
                door.card(*BADGE)

            def guide(guidance: Guidance) -> None:
                if not shown:
                    loop.call_soon(card)
                shown.append(guidance)

            door._guide = guide  # type: ignore[method-assign]
            scene.vault.guidance = flood
            scene.vault.answers = [saying(b"\x00", after=1)]
            door.press()
            await settle(door, mode=DoorMode.UNLOCKED)
            assert before == [1]
            assert scene.relay_states == [0, 1]

    asyncio.run(play())


def written(scene: Scene) -> list[tuple[str, dict[str, Any]]]:
    lines = [json.loads(line) for line in (scene.folder / "journal.jsonl").read_text().splitlines()]
    return [(line["event"], line.get("details", {})) for line in lines]


def test_lines_that_were_lost_are_told_as_soon_as_the_disk_takes_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(scene.folder / "journal.jsonl", sync=False)
    write, full = journal.write, threading.Event()
    tried = threading.Semaphore(0)
    full.set()

    def writing(event: Event, /, **details: Any) -> None:
        tried.release()
        if full.is_set():
            raise JournalError("the disk is full")
        write(event, **details)

    monkeypatch.setattr(journal, "write", writing)
    record = Record(journal)
    for _ in range(3):
        record.write(Event.UNLOCKED, reason=Reason.BADGE)
    for _ in range(5):  # three lines, and two tries to tell of what was lost
        assert tried.acquire(timeout=10)
    deadline = time.monotonic() + 10
    while record.lost < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    full.clear()
    record.write(Event.LOCKED)
    record.close()
    assert written(scene) == [("lines lost", {"count": 3}), ("locked", {})]
    assert record.lost == 3


def test_lines_that_were_lost_are_told_even_where_nothing_follows(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_module, "LOST_RETRY", 0.05)
    journal = Journal(scene.folder / "journal.jsonl", sync=False)
    write, failures = journal.write, [1]

    def writing(event: Event, /, **details: Any) -> None:
        if failures:
            failures.pop()
            raise JournalError("the disk is full")
        write(event, **details)

    monkeypatch.setattr(journal, "write", writing)
    record = Record(journal)
    record.write(Event.LOCKED)
    deadline = time.monotonic() + 10
    while not written(scene) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert written(scene) == [("lines lost", {"count": 1})]
    record.close()


def test_strangers_displace_nothing_of_the_door(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "STRANGERS_TIME", 0.0)  # as if each were a minute after the other
    journal = Journal(scene.folder / "journal.jsonl", sync=False)
    write, hangs = journal.write, threading.Event()

    def writing(event: Event, /, **details: Any) -> None:
        hangs.wait(30)
        write(event, **details)

    monkeypatch.setattr(journal, "write", writing)
    record = Record(journal)
    for _ in range(2000):
        record.write(Event.HOSTILE_MESSAGE)
    own = record_module.QUEUE_LENGTH - record_module.STRANGERS_LENGTH
    for _ in range(own):
        record.write(Event.LOCKED)
    hangs.set()
    record.close(20)
    events = [event for event, _ in written(scene)]
    assert events.count("locked") == own
    assert events.count("hostile message") <= record_module.STRANGERS_LENGTH + 1
    told = sum(details["count"] for event, details in written(scene) if event == "lines lost")
    assert told == record.lost == 2000 - events.count("hostile message")
