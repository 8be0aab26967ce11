"""The admin zone's HTTP socket: who is heard, and who is hung up on."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from appliance import journal
from appliance.admin.api.application import build
from appliance.admin.service import checked_protocol
from appliance.api_client import ApiClient, ApiError
from appliance.errors import ConfigurationError
from appliance.link.sockets import listen
from tests.admin.conftest import Office


class Serving:
    """The real server on a Unix socket, in a thread; what its loop complained of is kept."""

    def __init__(self, office: Office, allowed: frozenset[int]) -> None:
        self.path = office.folder / "api.sock"
        self.complaints: list[dict[str, Any]] = []
        config = uvicorn.Config(
            build(office.house),
            http=checked_protocol(allowed, office.house.journal),
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)

    def run(self, listener: socket.socket) -> None:
        async def serve() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _loop, what: self.complaints.append(what))
            await self._server.serve(sockets=[listener])

        asyncio.run(serve())

    def stop(self) -> None:
        self._server.should_exit = True


@contextmanager
def serving(office: Office, allowed: frozenset[int]) -> Iterator[Serving]:
    server = Serving(office, allowed)
    with listen(server.path) as listener:
        thread = threading.Thread(target=server.run, args=(listener,))
        thread.start()
        try:
            time.sleep(0.3)
            yield server
        finally:
            server.stop()
            thread.join(timeout=10)


def test_an_administrator_is_answered(office: Office, me: frozenset[int]) -> None:
    with serving(office, me) as server:
        client = ApiClient(server.path, me)
        person = client.call("POST", "/people", {"name": "Jan"})
        assert client.call("GET", "/people")["items"] == [person]
        assert client.call("DELETE", f"/people/{person['id']}") is None
        with pytest.raises(ConfigurationError, match="no person has this id"):
            client.call("GET", "/people/nobody")
    assert server.complaints == []


def test_a_user_who_is_no_administrator_is_hung_up_on_without_a_byte(
    office: Office, me: frozenset[int]
) -> None:
    with serving(office, frozenset({54321})) as server:
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect(str(server.path))
                caller.settimeout(5)
                try:
                    caller.sendall(b"GET /people HTTP/1.1\r\nHost: x\r\n\r\n")
                    heard = caller.recv(1)
                except ConnectionError:
                    heard = b""
                assert heard == b""
        client = ApiClient(server.path, me)
        with pytest.raises(ApiError, match=r"are you one of \[users\] administrators"):
            client.call("POST", "/people", {"name": "Jan"})
    assert server.complaints == [], "hanging up must not break the server's own bookkeeping"
    assert office.http.get("/people").json()["items"] == []
    # What strangers bring about as often as they like is one line a minute, with their number.
    assert office.journal().count('"event":"wrong peer"') == 1
    journal.verify(office.folder / "journal.jsonl")


def test_hostile_http_gets_no_further_than_an_error(office: Office, me: frozenset[int]) -> None:
    with serving(office, me) as server:
        for data in (
            os.urandom(500),
            b"GET / HTTP/9.9\r\n\r\n",
            b"POST /people HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        ):
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect(str(server.path))
                caller.settimeout(5)
                caller.sendall(data)
                caller.shutdown(socket.SHUT_WR)
                answer = b""
                while part := caller.recv(4096):
                    answer += part
                assert b" 200 " not in answer
                assert b"Traceback" not in answer
        transport = httpx.HTTPTransport(uds=str(server.path))
        with httpx.Client(transport=transport, base_url="http://drempel") as client:
            assert client.get("/people").status_code == 200


def test_commands_say_when_the_admin_zone_is_away(tmp_path: Path, me: frozenset[int]) -> None:
    client = ApiClient(tmp_path / "nowhere.sock", me)
    with pytest.raises(ApiError, match="is Drempel running"):
        client.call("GET", "/people")
