"""The commands' side of the local API: HTTP over the admin zone's Unix socket."""

from pathlib import Path
from typing import Any

import httpx

from appliance.errors import ConfigurationError, DrempelError


class ApiError(DrempelError, RuntimeError):
    """The answer is no, or the admin zone is away."""


class ApiClient:
    """Speaks to the admin zone at the socket `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(path)),
            base_url="http://drempel",
            timeout=30,
            trust_env=False,
        )

    def call(self, method: str, route: str, body: dict[str, Any] | None = None) -> Any:
        """Call a route, and give the decoded answer; None where there is none.

        Raises:
            ConfigurationError: the call is wrong (unknown person, malformed value).
            ApiError: the answer is no, or the admin zone is away.
        """
        try:
            response = self._http.request(method, route, json=body)
        except httpx.TransportError as error:
            raise ApiError(
                f"the admin zone does not answer at {self._path}: is Drempel running, and are you one of "
                "[users] administrators?"
            ) from error
        if response.is_success:
            return response.json() if response.content else None
        try:
            detail = str(response.json()["detail"])
        except (ValueError, KeyError, TypeError):
            detail = f"the admin zone answered {response.status_code}"
        if response.status_code in {404, 422}:
            raise ConfigurationError(detail)
        raise ApiError(detail)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()
