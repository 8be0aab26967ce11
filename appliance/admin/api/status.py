"""How the zones are. A zone that is away is said to be, and is no error."""

from fastapi import APIRouter
from pydantic import BaseModel

from appliance.admin.api.house import Used
from appliance.errors import DrempelError

router = APIRouter(prefix="/status", tags=["status"])


class DoorStatus(BaseModel):
    """Door; entries are counted since its start, without identity."""

    mode: str
    readers: int
    readers_up: int
    recognition: bool
    badges: int
    badge_entries: int
    face_entries: int


class VaultStatus(BaseModel):
    """Vault; `leases` counts the templates with a current legal ground."""

    records: int
    leases: int
    enrolment_open: bool
    recognition: bool


class Status(BaseModel):
    """The site; null for a zone that is away."""

    site: str
    door: DoorStatus | None
    vault: VaultStatus | None


@router.get("")
def status(house: Used) -> Status:
    """How the zones are."""
    return Status(site=house.site, door=_door(house), vault=_vault(house))


def _door(house: Used) -> DoorStatus | None:
    try:
        state = house.door.state()
    except DrempelError:
        return None
    return DoorStatus(
        mode=state.mode.name.lower(),
        readers=state.readers,
        readers_up=state.readers_up,
        recognition=bool(state.recognition),
        badges=state.badges,
        badge_entries=state.badge_entries,
        face_entries=state.face_entries,
    )


def _vault(house: Used) -> VaultStatus | None:
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
