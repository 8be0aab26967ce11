"""How the zones are. A zone that is away is said to be, and is no error."""

from pydantic import BaseModel, ConfigDict
from pydantic.config import JsonDict

from appliance.admin.accounts import Caller
from appliance.admin.api.access import EVERYONE, Calling, allows, router
from appliance.admin.api.door import DOOR_EXAMPLE, DoorStatus, door_status
from appliance.admin.api.house import House, Used
from appliance.errors import DrempelError

routes = router("/status", "status")

_VAULT: JsonDict = {"records": 24, "leases": 23, "enrolment_open": False, "recognition": True}


class VaultStatus(BaseModel):
    """Vault; `leases` counts the templates with a current legal ground."""

    model_config = ConfigDict(json_schema_extra={"examples": [_VAULT]})

    records: int
    leases: int
    enrolment_open: bool
    recognition: bool


class Status(BaseModel):
    """The site; null for a zone that is away."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"site": "Front door", "door": DOOR_EXAMPLE, "vault": _VAULT}]}
    )

    site: str
    door: DoorStatus | None
    vault: VaultStatus | None


@routes.get("")
@allows(*EVERYONE)
def get(house: Used, caller: Calling) -> Status:
    """How the zones are."""
    return Status(site=house.settings.site.name, door=_door(house, caller), vault=_vault(house))


def _door(house: House, caller: Caller) -> DoorStatus | None:
    try:
        return door_status(house.door.state(), caller)
    except DrempelError:
        return None


def _vault(house: House) -> VaultStatus | None:
    try:
        state = house.vault.state()
    except DrempelError:
        return None
    return VaultStatus(
        records=state.records,
        leases=state.leases,
        enrolment_open=bool(state.window),
        recognition=bool(state.recognition),
    )
