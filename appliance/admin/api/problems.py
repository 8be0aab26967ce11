"""Errors as RFC 9457 problem details: what went wrong, and what to do next."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from appliance.admin.accounts import UnknownAccount
from appliance.admin.enrolments import NoToken, UnknownEnrolment
from appliance.admin.registry.consent import ConsentError
from appliance.admin.registry.database import RegistryError
from appliance.admin.registry.once import KeyReused, NotAgain
from appliance.admin.registry.people import StillHeld, UnknownPerson
from appliance.admin.zones import ZoneRefused
from appliance.errors import DrempelError
from appliance.link.messages import Refusal
from appliance.link.sockets import LinkError

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """What went wrong (RFC 9457); `detail` says what to do next, and repeats nothing of what was sent."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "no person has this id: see `drempel people list`",
                }
            ]
        }
    )

    type: str
    title: str
    status: int
    detail: str


_STATUS: tuple[tuple[type[DrempelError], HTTPStatus], ...] = (
    (UnknownPerson, HTTPStatus.NOT_FOUND),
    (UnknownEnrolment, HTTPStatus.NOT_FOUND),
    (UnknownAccount, HTTPStatus.NOT_FOUND),
    (NoToken, HTTPStatus.NOT_FOUND),
    (ConsentError, HTTPStatus.CONFLICT),
    (StillHeld, HTTPStatus.CONFLICT),
    (NotAgain, HTTPStatus.CONFLICT),
    (KeyReused, HTTPStatus.UNPROCESSABLE_ENTITY),
    (LinkError, HTTPStatus.SERVICE_UNAVAILABLE),
    (RegistryError, HTTPStatus.SERVICE_UNAVAILABLE),
    (DrempelError, HTTPStatus.INTERNAL_SERVER_ERROR),
)


def problem(status: HTTPStatus, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """A problem document."""
    body = Problem(type="about:blank", title=status.phrase, status=status.value, detail=detail)
    return JSONResponse(body.model_dump(), status.value, headers, media_type=MEDIA_TYPE)


def documented(status: HTTPStatus, description: str) -> dict[int | str, dict[str, Any]]:
    """How a route says that it may answer with a problem."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {status.value: {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}}


def _rule(error: dict[str, Any]) -> str:
    """The rule that was broken, in words."""
    if error["type"] == "string_pattern_mismatch":
        return "not written as the description (/openapi.json) says"
    return str(error["msg"]).removeprefix("Value error, ")


def install(app: FastAPI) -> None:
    """Let every error of ours, and of the framework, leave as a problem document."""

    @app.exception_handler(DrempelError)
    def ours(_request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, ZoneRefused):
            troubled = error.reason in {Refusal.STORAGE, Refusal.MALFORMED}
            return problem(HTTPStatus.SERVICE_UNAVAILABLE if troubled else HTTPStatus.CONFLICT, str(error))
        status = next(status for kind, status in _STATUS if isinstance(error, kind))
        return problem(status, str(error))

    @app.exception_handler(RequestValidationError)
    def malformed(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - as registered
        # Places and rules only: what was sent may hold a name.
        problems = error.errors()
        if any(each["loc"] == ("body",) and each["type"] != "value_error" for each in problems):
            return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "send a JSON object, as application/json")
        places = "; ".join(f"{'.'.join(map(str, e['loc'][1:])) or 'the body'}: {_rule(e)}" for e in problems)
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, places)

    @app.exception_handler(HTTPException)
    def framework(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101 - as registered
        return problem(HTTPStatus(error.status_code), str(error.detail), dict(error.headers or {}))
