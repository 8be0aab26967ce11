"""All routes together, and what stands before them; run as a module, it prints their description."""

import json

from fastapi import FastAPI

from appliance.admin.api import (
    accounts,
    badges,
    configuration,
    description,
    door,
    enrolments,
    people,
    status,
    vault,
)
from appliance.admin.api.access import RouteWithoutRule, RuledRoute
from appliance.admin.api.gate import Gate
from appliance.admin.api.house import House
from appliance.admin.api.problems import install
from appliance.journal import Journal

RESOURCES = (people, enrolments, badges, door, vault, status, configuration, accounts, description)


def build(house: House, journal: Journal) -> FastAPI:
    """The application."""
    app = _routes()
    app.state.house = house
    install(app)
    app.add_middleware(Gate, accounts=house.accounts, journal=journal)
    return app


def openapi() -> str:
    """The description of all routes as JSON, as it is kept in `docs/openapi.json`."""
    return json.dumps(_routes().state.description, indent=2) + "\n"


def _routes() -> FastAPI:
    # The framework's own pages would be routes without a role rule.
    app = FastAPI(
        title=description.TITLE, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    for resource in RESOURCES:
        if not all(isinstance(route, RuledRoute) for route in resource.routes.routes):
            raise RouteWithoutRule(f"{resource.__name__}: make its router with `access.router`")
        app.include_router(resource.routes)
    app.state.description = description.describe(app)
    return app


if __name__ == "__main__":
    print(openapi(), end="")
