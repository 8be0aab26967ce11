"""Accounts: who may call this interface."""

from http import HTTPStatus
from typing import Annotated

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from appliance.admin.accounts import Account, Role
from appliance.admin.api.access import Calling, allows, router
from appliance.admin.api.house import Used
from appliance.admin.api.paging import FIRST, USUAL, After, Limit, Page
from appliance.admin.api.problems import documented
from appliance.admin.api.words import Label, Moment
from appliance.journal import Event

routes = router("/accounts", "accounts")

_SHOWN: JsonDict = {
    "number": 7,
    "id": "3f1c9a20b7d4e866",
    "label": "Front desk",
    "role": "enroller",
    "created_at": "2026-11-25T09:00:00+00:00",
    "expires_at": "2027-02-23T09:00:00+00:00",
    "ended_at": "2027-01-04T12:00:00+00:00",
}


class NewAccount(BaseModel):
    """An account to make: a label to tell it by, its role, and for how many days it counts."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"label": "Front desk", "role": "enroller", "days": 90}]},
    )

    label: Label
    role: Role
    days: Annotated[int, Field(strict=True, ge=1, le=3650)] = 90


class AccountShown(BaseModel):
    """An account, without its token.

    `number` is how the journal knows it; `ended_at` is null while it counts.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_SHOWN]}, from_attributes=True)

    number: int
    id: str
    label: str
    role: Role
    created_at: Moment
    expires_at: Moment
    ended_at: Moment | None


class AccountWithToken(AccountShown):
    """A new account with its token, this once: send it as `Authorization: Bearer ...`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{**_SHOWN, "token": "drempel_Q2h3aHlub3R0aGlzaXNubydyZWFsdG9rZW4tYXRhbGw"}]
        },
        from_attributes=True,
    )

    token: str


@routes.get("")
@allows(Role.ADMINISTRATOR, Role.AUDITOR)
def list_(house: Used, after: After = FIRST, limit: Limit = USUAL) -> Page[AccountShown]:
    """All accounts, also those that ended: what the journal says of a number stays to be read."""
    found = house.accounts.page(after, limit)
    return Page(items=[_shown(account) for account in found.items], next=found.next)


@routes.post("", status_code=201)
@allows(Role.ADMINISTRATOR)
def add(house: Used, caller: Calling, new: NewAccount, response: Response) -> AccountWithToken:
    """Make an account. Its token is shown this once; lost means revoked, and a new account made."""
    account, token = house.accounts.add(new.label, new.role, new.days)
    house.acts.note(Event.ACCOUNT_ADDED, caller.account, subject=account.number)
    response.headers["Cache-Control"] = "no-store"
    return AccountWithToken(**_shown(account).model_dump(), token=token)


@routes.delete(
    "/{account_id}", status_code=204, responses=documented(HTTPStatus.NOT_FOUND, "There is no such account.")
)
@allows(Role.ADMINISTRATOR)
def revoke(house: Used, caller: Calling, account_id: str) -> None:
    """End an account at once."""
    ended = house.accounts.revoke(account_id)
    house.acts.note(Event.ACCOUNT_REVOKED, caller.account, subject=ended.number)


def _shown(account: Account) -> AccountShown:
    return AccountShown.model_validate(account)
