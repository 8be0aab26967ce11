"""The vault: whether all that it holds is authentic, and the end of its keys."""

import enum
from http import HTTPStatus
from typing import Annotated

from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, Field

from appliance.admin.accounts import Role
from appliance.admin.api.access import Calling, allows, router
from appliance.admin.api.house import Used
from appliance.admin.api.problems import documented
from appliance.journal import Event

routes = router("", "vault")

_REFUSED = documented(HTTPStatus.CONFLICT, "Vault cannot: its disk is full, say. Nothing changed.")


class Records(BaseModel):
    """How many records of each tier."""

    tier1: int
    tier2: int
    tier3: int


class Database(enum.StrEnum):
    """How vault's database file is, as a file."""

    SOUND = "sound"
    DAMAGED = "damaged"


class Check(BaseModel):
    """What stands in vault, without anyone's name or handle.

    `unreadable` counts records that are not authentic: they never open. `epoch` counts erasures and changes
    of key. `ok` is true where nothing is unreadable and the database is sound.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "ok": True,
                    "records": {"tier1": 0, "tier2": 24, "tier3": 0},
                    "unreadable": 0,
                    "epoch": 7,
                    "database": "sound",
                }
            ]
        }
    )

    ok: bool
    records: Records
    unreadable: int
    epoch: int
    database: Database


class Rotating(enum.StrEnum):
    """How it stands: there is no halfway."""

    ROTATED = "rotated"


class Rotation(BaseModel):
    """The epoch key is a new one, and the old one destroyed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"state": "rotated"}]})

    state: Rotating


class Confirmation(BaseModel):
    """That it is meant: the site's name, exactly as the settings have it."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"site": "the name of this very site"}]}
    )

    site: Annotated[str, Field(min_length=1, max_length=60)]


class Decommissioning(enum.StrEnum):
    """How it stands: there is no halfway."""

    DECOMMISSIONED = "decommissioned"


class Decommissioned(BaseModel):
    """The keys are destroyed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"state": "decommissioned"}]})

    state: Decommissioning


@routes.get("/vault/check", responses=_REFUSED)
@allows(Role.ADMINISTRATOR, Role.AUDITOR)
def check(house: Used) -> Check:
    """See whether every record in vault is authentic. With 100,000 records it takes up to a minute."""
    found = house.vault.check()
    sound = bool(found.sound)
    return Check(
        ok=sound and not found.unreadable,
        records=Records(tier1=found.tier1, tier2=found.tier2, tier3=found.tier3),
        unreadable=found.unreadable,
        epoch=found.epoch,
        database=Database.SOUND if sound else Database.DAMAGED,
    )


@routes.post("/vault/rotation", responses=_REFUSED)
@allows(Role.ADMINISTRATOR)
def rotate(house: Used, caller: Calling) -> Rotation:
    """Change the epoch key, as each erasure does: no copy of vault's database from before opens any more."""
    house.vault.rotate()
    house.acts.note(Event.KEYS_ROTATED, caller.account)
    return Rotation(state=Rotating.ROTATED)


class Trust(enum.StrEnum):
    """How the clock stands."""

    TRUSTED = "trusted"


class TrustedClock(BaseModel):
    """Vault takes the wall clock for right."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"state": "trusted"}]})

    state: Trust


@routes.post(
    "/vault/clock", responses=documented(HTTPStatus.CONFLICT, "The clock is before this program: set it.")
)
@allows(Role.ADMINISTRATOR)
def trust_clock(house: Used, caller: Calling) -> TrustedClock:
    """Say that the wall clock is right, forward or back, after you looked: vault goes by it from now on."""
    house.vault.trust_clock()
    house.acts.note(Event.CLOCK_TRUSTED, caller.account)
    return TrustedClock(state=Trust.TRUSTED)


@routes.post(
    "/decommission",
    responses=documented(
        HTTPStatus.CONFLICT, "The name is not this site's, or vault refuses: nothing changed."
    ),
)
@allows(Role.ADMINISTRATOR)
def decommission(house: Used, caller: Calling, meant: Confirmation) -> Decommissioned:
    """Destroy vault's keys, for good. No template of this device can be opened any more; badges go on."""
    if meant.site != house.settings.site.name:
        raise HTTPException(409, "this is not the site's name as [site] name has it: nothing was destroyed")
    house.acts.decommission(caller.account)
    return Decommissioned(state=Decommissioning.DECOMMISSIONED)
