import asyncio
import json
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from appliance.door import office as office_module
from appliance.door.badges import Badges
from appliance.door.controller import Controller
from appliance.door.office import Office
from appliance.door.record import Record
from appliance.journal import Journal
from appliance.link.framing import Message, read_message
from appliance.link.messages import (
    DOOR_TO_ADMIN,
    AddBadge,
    AskDoor,
    Done,
    DoorMode,
    DoorState,
    Refusal,
    Refused,
    RemoveBadge,
)
from appliance.link.sockets import Deadline, Torn, listen

STATE = DoorState(DoorMode.LOCKED, 1, 1, 0, 0, 0, 0)


class Standing:
    """What the office needs of a controller."""

    def __init__(self) -> None:
        self.asked = 0

    def state(self) -> DoorState:
        self.asked += 1
        return STATE


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="drempel-"))
    yield made
    shutil.rmtree(made)


@asynccontextmanager
async def opened(
    folder: Path, *, admin: int | None = None, standing: Standing | None = None
) -> AsyncIterator[Badges]:
    badges = Badges(folder)
    record = Record(Journal(folder / "journal.jsonl"))
    allowed = frozenset({os.geteuid() if admin is None else admin})
    office = Office(cast("Controller", standing or Standing()), badges, record, allowed)
    listener = listen(folder / "admin.sock")
    await office.open(listener)
    try:
        yield badges
    finally:
        office.close()
        await asyncio.sleep(0.05)
        listener.close()
        badges.close()
        record.close()


def call(folder: Path, *requests: bytes) -> list[Message]:
    """Blocking, as admin is: each request's answer, a connection each."""
    answers = []
    for request in requests:
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(folder / "admin.sock"))
            caller.sendall(request)
            answers.append(read_message(caller, DOOR_TO_ADMIN, Deadline(5)))
    return answers


def add(badge: bytes, number: int) -> bytes:
    return AddBadge(badge, 26, number.to_bytes(16)).encode()


def test_badges_are_added_and_removed(folder: Path) -> None:
    async def play() -> None:
        async with opened(folder) as badges:
            badge, other = secrets.token_bytes(16), secrets.token_bytes(16)
            requests = [add(badge, 7), add(badge, 7), add(other, 7), AskDoor().encode()]
            answers = await asyncio.to_thread(call, folder, *requests)
            assert answers == [Done(), Done(), Refused(Refusal.BADGE_TAKEN), STATE]
            assert badges.opens(26, 7)
            removal = RemoveBadge(badge).encode()
            assert await asyncio.to_thread(call, folder, removal, removal) == [Done(), Done()]
            assert not badges.opens(26, 7)

    asyncio.run(play())


def test_storage_that_fails_is_an_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        async with opened(folder) as badges:
            badges._write.execute("DROP TABLE badge")
            answers = await asyncio.to_thread(call, folder, add(secrets.token_bytes(16), 7))
            assert answers == [Refused(Refusal.STORAGE)]

    monkeypatch.setattr(office_module, "REQUEST_TIME", 5.0)
    asyncio.run(play())


@pytest.mark.parametrize("noise", [b"\xff\x00\x00", b"\x41\x00\x01\x00", b"\x43\x00\x01\x00", b"\x41" * 400])
def test_what_is_no_request_ends_the_connection_and_is_written_down(folder: Path, noise: bytes) -> None:
    async def play() -> None:
        async with opened(folder):
            with pytest.raises((Torn, BrokenPipeError, ConnectionResetError)):
                await asyncio.to_thread(call, folder, noise)
            assert await asyncio.to_thread(call, folder, AskDoor().encode()) == [STATE]

    asyncio.run(play())
    assert (folder / "journal.jsonl").read_text().count("hostile message") == 1


def test_another_user_is_not_heard(folder: Path) -> None:
    async def play() -> None:
        async with opened(folder, admin=54321):
            with pytest.raises((Torn, BrokenPipeError, ConnectionResetError)):
                await asyncio.to_thread(call, folder, AskDoor().encode())

    asyncio.run(play())
    assert "wrong peer" in (folder / "journal.jsonl").read_text()


def test_a_slow_caller_is_let_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(office_module, "REQUEST_TIME", 0.3)

    def drip() -> float:
        began = time.monotonic()
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(folder / "admin.sock"))
            for byte in add(secrets.token_bytes(16), 1):
                try:
                    caller.sendall(bytes([byte]))
                except OSError:
                    break
                time.sleep(0.1)
        return time.monotonic() - began

    async def play() -> None:
        async with opened(folder):
            assert await asyncio.to_thread(drip) < 2

    asyncio.run(play())


def test_eight_silent_callers_are_the_most_and_they_pass(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(office_module, "REQUEST_TIME", 0.5)

    def sit(enough: Callable[[], None]) -> None:
        callers = []
        for _ in range(office_module.MAX_CALLERS):
            caller = socket.socket(socket.AF_UNIX)
            caller.connect(str(folder / "admin.sock"))
            callers.append(caller)
        time.sleep(0.1)
        enough()
        time.sleep(1)
        for caller in callers:
            caller.close()

    def ninth() -> None:
        with pytest.raises((Torn, BrokenPipeError, ConnectionResetError)):
            call(folder, AskDoor().encode())

    async def play() -> None:
        async with opened(folder):
            await asyncio.to_thread(sit, ninth)
            assert await asyncio.to_thread(call, folder, AskDoor().encode()) == [STATE]

    asyncio.run(play())


def test_a_flood_of_requests_is_one_answer_and_the_end(folder: Path) -> None:
    standing = Standing()

    def flood() -> bytes:
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(10)
            caller.connect(str(folder / "admin.sock"))
            try:
                while True:
                    caller.sendall(AskDoor().encode() * 10_000)
            except ConnectionError:
                pass  # hung up on
            answer = b""
            try:
                while part := caller.recv(4096):
                    answer += part
            except ConnectionError:
                pass  # with our bytes unread
            return answer

    async def play() -> None:
        async with opened(folder, standing=standing):
            assert await asyncio.to_thread(flood) == STATE.encode()
            assert standing.asked == 1

    asyncio.run(play())


def test_a_flood_of_wrong_callers_is_one_line_with_their_number(folder: Path) -> None:
    async def play() -> None:
        async with opened(folder, admin=54321):
            for _ in range(20):
                with pytest.raises((Torn, BrokenPipeError, ConnectionResetError)):
                    await asyncio.to_thread(call, folder, AskDoor().encode())

    asyncio.run(play())
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    assert [(line["event"], line["details"]) for line in lines] == [
        ("wrong peer", {"count": 1}),
        ("wrong peer", {"count": 19}),  # at the end
    ]
