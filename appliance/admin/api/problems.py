"""Errors as RFC 9457 problem details: what went wrong, and what to do next."""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from appliance.admin.enrolments import NoToken, UnknownEnrolment
from appliance.admin.registry.consent import ConsentError
from appliance.admin.registry.people import StillHeld, UnknownPerson
from appliance.admin.zones import ZoneRefused
from appliance.errors import DrempelError
from appliance.link.sockets import LinkError

_STATUS: tuple[tuple[type[DrempelError], HTTPStatus], ...] = (
    (UnknownPerson, HTTPStatus.NOT_FOUND),
    (UnknownEnrolment, HTTPStatus.NOT_FOUND),
    (NoToken, HTTPStatus.NOT_FOUND),
    (ConsentError, HTTPStatus.CONFLICT),
    (StillHeld, HTTPStatus.CONFLICT),
    (ZoneRefused, HTTPStatus.CONFLICT),
    (LinkError, HTTPStatus.SERVICE_UNAVAILABLE),
    (DrempelError, HTTPStatus.INTERNAL_SERVER_ERROR),
)


def problem(status: HTTPStatus, detail: str) -> JSONResponse:
    """A problem document."""
    body = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
    return JSONResponse(body, status.value, media_type="application/problem+json")


def install(app: FastAPI) -> None:
    """Let every error of ours, and of the framework, leave as a problem document."""

    @app.exception_handler(DrempelError)
    def ours(_request: Request, error: Exception) -> JSONResponse:
        status = next(status for kind, status in _STATUS if isinstance(error, kind))
        return problem(status, str(error))

    @app.exception_handler(RequestValidationError)
    def malformed(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - as registered
        # Places and rules only: what was sent may hold a name.
        places = "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, places)

    @app.exception_handler(HTTPException)
    def framework(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101 - as registered
        return problem(HTTPStatus(error.status_code), str(error.detail))
