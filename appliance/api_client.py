"""The commands' side of the local API: HTTP over the admin zone's Unix socket, to that zone alone."""

import http.client
import json
from collections.abc import Collection
from http import HTTPStatus
from pathlib import Path
from typing import Any

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
        connection = _Connection(self._path, self._users)
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, route, data, {"Content-Type": "application/json"} if data else {})
            response = connection.getresponse()
            content = response.read()
            answer = json.loads(content) if content else None
        except (OSError, LinkError, http.client.HTTPException, ValueError) as error:
            raise ApiError(
                f"the admin zone does not answer at {self._path}: is Drempel running, and are you one of "
                "[users] administrators?"
            ) from error
        finally:
            connection.close()
        if response.status < HTTPStatus.BAD_REQUEST:
            return answer
        detail = answer.get("detail") if isinstance(answer, dict) else None
        text = str(detail or f"the admin zone answered {response.status}")
        if response.status in {HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY}:
            raise ConfigurationError(text)
        raise ApiError(text)
