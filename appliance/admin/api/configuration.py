"""The settings in force, to read. They are changed in their file alone, by who may write it."""

from pydantic import BaseModel

from appliance.admin.accounts import Role
from appliance.admin.api.access import allows, router
from appliance.admin.api.house import Used
from appliance.settings import Api, Camera, Door, OsdpReader, Paths, Recognition, Site, Users

routes = router("/settings", "settings")


class SettingsInForce(BaseModel):
    """What admin read at its start. No secret is among it: keys lie in files of their own."""

    site: Site
    paths: Paths
    users: Users
    api: Api
    door: Door
    badge_readers: list[OsdpReader]
    camera: Camera
    recognition: Recognition


@routes.get("")
@allows(Role.ADMINISTRATOR, Role.AUDITOR)
def get(house: Used) -> SettingsInForce:
    """The settings that admin runs with."""
    return SettingsInForce(**{name: getattr(house.settings, name) for name in SettingsInForce.model_fields})
