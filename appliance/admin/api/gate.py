"""The gate before all routes: who calls is found out first, and a stranger's call is not read.

On the Unix socket the kernel has vouched for an administrator (`admin.service` notes it in the connection's
state); everywhere else, and wherever a token is sent, the token decides. A body has a limit, and a fault that
nobody foresaw becomes a problem document that tells nothing of what was sent.
"""

import asyncio
import sys
import traceback
from http import HTTPStatus
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from appliance.admin.accounts import VOUCHED, Accounts, Caller
from appliance.admin.api.problems import problem
from appliance.journal import Event, Journal

MAX_BODY = 64 * 1024
"""Bytes of a call's body; the longest that any route needs has a few hundred."""
MOST_CALLS = 12
"""Calls with a token that are served at a time, whether or not their callers still wait. Each may hold one of
forty threads while a zone is slow; the administrators of the device keep the others."""
BODY_TIME = 10.0
"""Seconds in which a body must have come."""
VOUCHED_PEER = "vouched_peer"
"""Key of a connection's state: the kernel says that an administrator is at the other end."""


_REFUSALS = {
    HTTPStatus.INTERNAL_SERVER_ERROR: "admin made an error: see its log",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: f"a call has at most {MAX_BODY} bytes: send less",
    HTTPStatus.REQUEST_TIMEOUT: f"the body did not come within {BODY_TIME:g} s: send it at once",
}


class _Unreadable(Exception):
    """The body is too large, or does not come."""


class _Call:
    """One call: how much of it was read, and whether its answer has begun."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._length = 0
        self._whole = False
        self._until = asyncio.get_running_loop().time() + BODY_TIME
        self.refusal: HTTPStatus | None = None
        self.answered = False

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()  # until the caller hangs up
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError as error:
            self.refusal = HTTPStatus.REQUEST_TIMEOUT
            raise _Unreadable from error
        self._whole = not message.get("more_body", False)
        self._length += len(message.get("body", b""))
        if self._length > MAX_BODY:
            self.refusal = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            raise _Unreadable
        return message

    async def send(self, message: Message) -> None:
        if self.refusal and not self.answered:
            return  # the framework takes our exception for a body that it cannot read
        self.answered = True
        await self._send(message)


class Gate:
    """An ASGI application around another."""

    def __init__(self, app: ASGIApp, accounts: Accounts, journal: Journal) -> None:
        self._app = app
        self._accounts = accounts
        self._journal = journal
        self._calls_with_token = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call."""
        caller = self._find(scope)
        if caller is None:
            self._journal.note(Event.WRONG_TOKEN)
            answer = problem(
                HTTPStatus.UNAUTHORIZED,
                "send a token that counts: make one with `drempel accounts add`",
                # And good-bye, so that a stranger holds no connection.
                {"WWW-Authenticate": 'Bearer realm="drempel"', "Connection": "close"},
            )
            await answer(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        if caller == VOUCHED:
            await self._serve(scope, _Call(receive, send))
            return
        if self._calls_with_token >= MOST_CALLS:
            detail = "too many calls at a time: try again in a second"
            await problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": "1"})(scope, receive, send)
            return
        self._calls_with_token += 1
        try:
            await self._serve(scope, _Call(receive, send))
        finally:
            self._calls_with_token -= 1

    async def _serve(self, scope: Scope, call: _Call) -> None:
        try:
            await self._app(scope, call.receive, call.send)
        except _Unreadable:
            pass  # answered below
        except Exception as error:  # noqa: BLE001 - a fault in one call must neither end the zone nor tell of it
            self._note_fault(error)
            call.refusal = HTTPStatus.INTERNAL_SERVER_ERROR
        # Outside of the handler: no exception from here on drags what the fault said along.
        if call.refusal is not None:
            await self._end(call, call.refusal, scope)

    async def _end(self, call: _Call, status: HTTPStatus, scope: Scope) -> None:
        if call.answered:
            # Half an answer is gone already: the connection is torn, so that nobody takes it for whole.
            raise ConnectionAbortedError("a call failed in the midst of its answer")
        call.refusal = None
        await problem(status, _REFUSALS[status])(scope, call.receive, call.send)

    def _note_fault(self, error: Exception) -> None:
        # Where it happened, not what it said: a library's message may quote a name.
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        print(f"drempel admin: a call failed: {type(error).__name__} at {where}", file=sys.stderr)
        self._journal.note(Event.FAILED)

    def _find(self, scope: Scope) -> Caller | None:
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        if not sent:
            return VOUCHED if scope.get("state", {}).get(VOUCHED_PEER) else None
        kind, _, token = sent[0].decode("latin-1").partition(" ")
        return self._accounts.find(token.strip()) if len(sent) == 1 and kind.lower() == "bearer" else None
