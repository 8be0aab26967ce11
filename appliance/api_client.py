"""The commands' side of the local API: HTTP over the admin zone's Unix socket, to that zone alone."""

import contextlib
import http.client
import json
from collections.abc import Collection, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from appliance.errors import ConfigurationError, DrempelError
from appliance.link.sockets import Deadline, LinkError, connect

ANSWER_TIME = 60.0
"""Seconds for an answer; an erasure asks two other zones."""


class ApiError(DrempelError, RuntimeError):
    """The answer is no, or the admin zone is away."""


class _Connection(http.client.HTTPConnection):
    """HTTP to a Unix socket behind which one of `users` must be: names and numbers go to nobody else."""

    def __init__(self, path: Path, users: Collection[int]) -> None:
        super().__init__("drempel")
        self._path = path
        self._users = users

    def connect(self) -> None:
        """Connect, and see who is there."""
        self.sock = connect(self._path, self._users, Deadline(5.0))
        self.sock.settimeout(ANSWER_TIME)


class ApiClient:
    """Speaks to the admin zone."""

    def __init__(self, path: Path, users: Collection[int]) -> None:
        """A client; each call is a connection of its own.

        Args:
            path: the API's socket.
            users: the user ids that the admin zone may have.
        """
        self._path = path
        self._users = users

    def call(self, method: str, route: str, body: dict[str, Any] | None = None) -> Any:
        """Call a route, and give the decoded answer; None where there is none.

        Raises:
            ConfigurationError: the call is wrong (unknown person, malformed value).
            ApiError: the answer is no, or the admin zone is away.
        """
        with self._sent(method, route, body) as response:
            content = response.read()
            return json.loads(content) if content else None

    def pages(
        self, route: str, body: dict[str, Any] | None = None, query: dict[str, str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """The items of a list, page after page.

        Args:
            route: of the list, without a query.
            body: what a search is for; without it the list is fetched with GET.
            query: what else stands in the query.

        Raises:
            ConfigurationError, ApiError: as `call`.
        """
        after: int | None = 0
        while after is not None:
            asked = urlencode({**(query or {}), "after": after, "limit": 200})
            page = self.call("POST" if body else "GET", f"{route}?{asked}", body)
            yield from page["items"]
            after = page["next"]

    def events(self, route: str) -> Iterator[dict[str, Any]]:
        """The data of server-sent events, one after the other, until the stream ends.

        Raises:
            ConfigurationError, ApiError: as `call`.
        """
        with self._sent("GET", route, None) as response:
            for line in response:
                field, _, value = line.decode().partition(":")
                if field == "data":
                    yield json.loads(value)

    @contextlib.contextmanager
    def _sent(
        self, method: str, route: str, body: dict[str, Any] | None
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a call; the answer, where it is a yes, for as long as it is read."""
        connection = _Connection(self._path, self._users)
        headers = {}
        if body is not None:
            headers = {"Content-Type": "application/json"}
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, route, data, headers)
            response = connection.getresponse()
            if response.status >= HTTPStatus.BAD_REQUEST:
                raise _refusal(response)
            yield response
        except (OSError, LinkError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, DrempelError) and not isinstance(error, LinkError):
                raise
            raise ApiError(
                f"the admin zone does not answer at {self._path}: is Drempel running, and are you one of "
                "[users] administrators?"
            ) from error
        finally:
            connection.close()


def _refusal(response: http.client.HTTPResponse) -> DrempelError:
    """What a no of the admin zone is to a command."""
    try:
        text = str(json.loads(response.read())["detail"])
    except (ValueError, KeyError, TypeError):
        text = f"the admin zone answered {response.status}"
    if response.status in {HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY}:
        return ConfigurationError(text)
    return ApiError(text)
