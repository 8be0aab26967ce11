"""The admin zone's HTTP socket: who is heard, and who is hung up on."""

import asyncio
import contextlib
import os
import secrets
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
from appliance.admin import connections, service
from appliance.admin.accounts import Role
from appliance.admin.api import gate
from appliance.admin.api.application import build
from appliance.admin.connections import MOST_CONNECTIONS
from appliance.api_client import ApiClient, ApiError
from appliance.errors import ConfigurationError
from appliance.link.messages import TOKEN
from appliance.link.sockets import listen
from tests.admin.conftest import Office
from tests.admin.scripted_zones import ScriptedZone, completing, staying_open


class Serving:
    """The real server on a Unix socket, in a thread; what its loop complained of is kept."""

    def __init__(self, office: Office, allowed: frozenset[int]) -> None:
        self.path = office.folder / "api.sock"
        self.port = 0
        self.complaints: list[dict[str, Any]] = []
        config = service.configured(build(office.house, office.log), allowed, office.log)
        self._server = uvicorn.Server(config)

    def run(self, *listeners: socket.socket) -> None:
        async def serve() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _loop, what: self.complaints.append(what))
            await self._server.serve(sockets=list(listeners))

        asyncio.run(serve())

    @property
    def started(self) -> bool:
        return self._server.started

    def stop(self) -> None:
        self._server.should_exit = True


@contextmanager
def serving(office: Office, allowed: frozenset[int]) -> Iterator[Serving]:
    server = Serving(office, allowed)
    with listen(server.path) as listener, socket.create_server(("127.0.0.1", 0)) as loopback:
        server.port = loopback.getsockname()[1]
        thread = threading.Thread(target=server.run, args=(listener, loopback))
        thread.start()
        try:
            until = time.monotonic() + 10
            while not server.started and time.monotonic() < until:
                time.sleep(0.01)
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


def test_on_loopback_nobody_is_vouched_for(office: Office, me: frozenset[int]) -> None:
    _, token = office.house.accounts.add("desk", Role.ENROLLER, 1)
    with serving(office, me) as server:
        url = f"http://127.0.0.1:{server.port}"
        assert httpx.get(f"{url}/people").status_code == 401
        headers = {"Authorization": f"Bearer {token}"}
        assert httpx.post(f"{url}/people", json={"name": "Jan"}, headers=headers).status_code == 201
        assert httpx.get(f"{url}/settings", headers=headers).status_code == 403
        answer = httpx.get(f"{url}/people", headers=headers)
        assert [person["name"] for person in answer.json()["items"]] == ["Jan"]
        assert "server" not in answer.headers
    assert server.complaints == []


def test_a_flood_on_loopback_leaves_the_unix_socket_free(office: Office, me: frozenset[int]) -> None:
    with serving(office, me) as server, contextlib.ExitStack() as flood:
        for _ in range(MOST_CONNECTIONS + 20):
            flood.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5))
        time.sleep(0.3)
        assert ApiClient(server.path, me).call("GET", "/people")["items"] == []
        flood.close()
        time.sleep(0.3)
        assert httpx.get(f"http://127.0.0.1:{server.port}/people").status_code == 401
    assert server.complaints == []


@pytest.mark.parametrize("said", [b"", b"GET /people HTT", b"POST /people HTTP/1.1\r\nHost: x\r\n"])
def test_a_caller_who_says_nothing_whole_is_hung_up_on(
    office: Office, me: frozenset[int], monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(connections, "FIRST_WORD", 0.2)
    with serving(office, me) as server, socket.create_connection(("127.0.0.1", server.port)) as caller:
        caller.settimeout(10)
        caller.sendall(said)
        with contextlib.suppress(ConnectionError):
            assert caller.recv(1) == b""
    assert server.complaints == []


def test_a_body_that_does_not_come_is_not_waited_for(
    office: Office, me: frozenset[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "BODY_TIME", 0.2)
    with serving(office, me) as server, socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(server.path))
        caller.settimeout(10)
        caller.sendall(b"POST /people HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{")
        assert caller.recv(100).startswith(b"HTTP/1.1 408")
    assert server.complaints == []


def test_an_enrolment_can_be_followed_over_the_socket(
    office: Office, me: frozenset[int], vault: ScriptedZone
) -> None:
    vault.enrolling = completing(secrets.token_bytes(TOKEN))
    person = office.add("Jan", consent=True)
    with serving(office, me) as server:
        client = ApiClient(server.path, me)
        enrolment = client.call("POST", "/enrolments", {"person": person})
        *_, last = client.events(f"/enrolments/{enrolment['id']}/events")
        assert last["state"] == "done"
        with pytest.raises(ConfigurationError, match="no such enrolment"):
            list(client.events("/enrolments/none/events"))
        assert [each["id"] for each in client.pages("/people")] == [person]


def test_a_server_that_ends_ends_its_streams_too(
    office: Office, me: frozenset[int], vault: ScriptedZone
) -> None:
    vault.enrolling = staying_open
    person = office.add("Jan", consent=True)
    seen: list[dict[str, Any]] = []
    with serving(office, me) as server:
        client = ApiClient(server.path, me)
        enrolment = client.call("POST", "/enrolments", {"person": person})

        def follow() -> None:
            with contextlib.suppress(ApiError):
                seen.extend(client.events(f"/enrolments/{enrolment['id']}/events"))

        follower = threading.Thread(target=follow)
        follower.start()
        time.sleep(0.3)
    follower.join(timeout=10)
    assert not follower.is_alive()
    office.house.enrolments.cancel()


def test_a_port_that_is_taken_keeps_neither_commands_nor_leases_from_working(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert service._loopback(taken.getsockname()[1]) == []
    assert "choose another [api] port" in capsys.readouterr().err
    assert service._loopback(0) == []


def test_strangers_who_hold_connections_give_way_to_who_has_something_to_ask(
    office: Office, me: frozenset[int]
) -> None:
    _, token = office.house.accounts.add("desk", Role.ENROLLER, 1)
    with serving(office, me) as server, contextlib.ExitStack() as flood:
        for _ in range(MOST_CONNECTIONS):
            flood.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5))
        for _ in range(3):
            answer = httpx.get(
                f"http://127.0.0.1:{server.port}/people", headers={"Authorization": f"Bearer {token}"}
            )
            assert answer.status_code == 200
    assert server.complaints == []


def test_slow_calls_with_tokens_leave_the_administrators_theirs(
    office: Office, me: frozenset[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vault that hangs, and an account that asks it for erasures and hangs up at once."""
    _, token = office.house.accounts.add("desk", Role.ENROLLER, 1)
    person = office.add("Jan")
    go = threading.Event()
    monkeypatch.setattr(office.upkeep, "erase_now", lambda _person: go.wait(20))
    head = f"DELETE /people/{person}/template HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    with serving(office, me) as server:
        try:
            for _ in range(60):
                with socket.create_connection(("127.0.0.1", server.port), timeout=5) as caller:
                    caller.sendall(head.encode())
                    time.sleep(0.01)
            assert ApiClient(server.path, me).call("GET", "/people")["items"]
            busy = httpx.get(
                f"http://127.0.0.1:{server.port}/people", headers={"Authorization": f"Bearer {token}"}
            )
            assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
        finally:
            go.set()


@pytest.mark.full
def test_the_servers_own_log_says_nothing_of_what_strangers_send(
    office: Office, me: frozenset[int], capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(office, me) as server:
        for data in (
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            os.urandom(64),
        ) * 5:
            with socket.create_connection(("127.0.0.1", server.port), timeout=5) as caller:
                caller.sendall(data)
                with contextlib.suppress(OSError):
                    caller.recv(1000)
    assert capfd.readouterr().err == ""
