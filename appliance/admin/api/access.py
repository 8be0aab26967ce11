"""Who may call a route. Without a rule there is no route: `RuledRoute` refuses to be made."""

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute

from appliance.admin.accounts import Caller, Role
from appliance.admin.api.problems import documented, problem

_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])
_RULE = "__drempel_roles__"

EVERYONE = tuple(Role)
"""Whoever has an account."""


_OF_BODIES = {
    **documented(HTTPStatus.BAD_REQUEST, "This is no body that can be read."),
    **documented(HTTPStatus.REQUEST_TIMEOUT, "The body did not come."),
    **documented(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "More was sent than any call needs."),
}


class RouteWithoutRule(TypeError):
    """A route that does not say which roles may call it."""


def allows(*roles: Role) -> Callable[[_Endpoint], _Endpoint]:
    """Say which roles may call a route; put directly above its function."""

    def mark(endpoint: _Endpoint) -> _Endpoint:
        setattr(endpoint, _RULE, frozenset(roles))
        return endpoint

    return mark


class RuledRoute(APIRoute):
    """A route that looks at the caller's role before it reads anything of the call."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        roles: frozenset[Role] = getattr(endpoint, _RULE, frozenset())
        if not roles:
            raise RouteWithoutRule(f"{path} has no role rule: add @allows(...) above {endpoint.__name__}")
        self.roles = roles
        names = [role.value for role in Role if role in roles]
        options["responses"] = {
            **documented(HTTPStatus.UNAUTHORIZED, "No token, or one that counts no more."),
            **documented(HTTPStatus.FORBIDDEN, "The account's role may not do this."),
            **documented(HTTPStatus.UNPROCESSABLE_ENTITY, "Something in the call is wrong; it says where."),
            **documented(HTTPStatus.SERVICE_UNAVAILABLE, "A zone is away, or its disk is full: try again."),
            **(_OF_BODIES if "POST" in (options.get("methods") or ()) else {}),
            **(options.get("responses") or {}),
        }
        options["summary"] = (endpoint.__doc__ or endpoint.__name__).split(".")[0].strip()
        options["openapi_extra"] = {"x-roles": names, **(options.get("openapi_extra") or {})}
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, behind the rule."""
        serve = super().get_route_handler()

        async def ruled(request: Request) -> Response:
            if _caller(request).role not in self.roles:
                needed = " or ".join(role.value for role in Role if role in self.roles)
                return problem(HTTPStatus.FORBIDDEN, f"this needs an account with the role {needed}")
            return await serve(request)

        return ruled


def router(prefix: str, tag: str) -> APIRouter:
    """A router for one resource, all of whose routes have a rule."""
    return APIRouter(
        prefix=prefix,
        tags=[tag],
        route_class=RuledRoute,
        generate_unique_id_function=lambda route: f"{tag}_{route.name}",
    )


def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


Calling = Annotated[Caller, Depends(_caller)]
"""A route's parameter that gives it who calls; `gate` has found that out."""
