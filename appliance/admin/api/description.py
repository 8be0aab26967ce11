"""The interface described: OpenAPI, as served at `/openapi.json` and kept in `docs/openapi.json`."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi

from appliance.admin.api.access import EVERYONE, allows, router
from appliance.admin.api.problems import Problem

TITLE = "Drempel"
VERSION = "1"
"""Of this interface; what breaks callers makes it 2."""
DESCRIPTION = """The local API of one door.

It listens on a Unix socket, where the kernel vouches for the administrators of the device, and, where
`[api] port` is set, on loopback, where each call sends `Authorization: Bearer` with the token of an account.
`x-roles` says which roles may call a route.

No route returns a template, an embedding or an image. Errors are problem details (RFC 9457). Lists come in
pages. A call that makes something takes an `Idempotency-Key`, so that it may be made again after a broken
connection."""

routes = router("", "description")


@routes.get("/openapi.json", include_in_schema=False)
@allows(*EVERYONE)
def description(request: Request) -> dict[str, Any]:
    """This description."""
    described: dict[str, Any] = request.app.state.description
    return described


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of an application whose routes all have a role rule."""
    document = get_openapi(
        title=TITLE,
        version=VERSION,
        description=DESCRIPTION,
        routes=app.routes,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    components = document.setdefault("components", {})
    components["schemas"]["Problem"] = Problem.model_json_schema()
    components["securitySchemes"] = {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "Of an account. On the Unix socket an administrator of the device needs none.",
        }
    }
    document["security"] = [{"token": []}]
    return document
