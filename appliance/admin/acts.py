"""What an administrator does that more than one zone must do with it: withdrawing, erasing, giving a badge.

Each act is written down in the registry first, asked of the other zone at once, and, where that zone is away,
finished by the upkeep.
"""

import contextlib

from appliance.admin.enrolments import Enrolments
from appliance.admin.registry.consent import withdraw_consent
from appliance.admin.registry.database import Registry, RegistryError
from appliance.admin.registry.holdings import (
    HeldBadge,
    begin_badge,
    complete_badge,
    doom_all_templates,
    doom_badge,
    doom_badges,
    doom_templates,
    finish_making,
    holds_template,
)
from appliance.admin.registry.once import KeyReused, Once
from appliance.admin.registry.people import StillHeld, remove_person
from appliance.admin.upkeep import Upkeep
from appliance.admin.zones import DoorLink, VaultLink, ZoneRefused
from appliance.journal import Event, Journal
from appliance.link.messages import Refusal


class Acts:
    """The acts; `by` is the number of the account that acts, 0 for whom the kernel vouches."""

    def __init__(
        self,
        registry: Registry,
        vault: VaultLink,
        door: DoorLink,
        enrolments: Enrolments,
        upkeep: Upkeep,
        journal: Journal,
    ) -> None:
        self._registry = registry
        self._vault = vault
        self._door = door
        self._enrolments = enrolments
        self._upkeep = upkeep
        self._journal = journal

    def note(self, event: Event, by: int, **details: int) -> None:
        """Write an act down, and who acted, by number."""
        self._journal.note(event, account=by, **details)

    def withdraw(self, person: str, by: int) -> bool:
        """Withdraw the current consent of a person, and erase the template; whether it is erased already."""
        self._enrolments.cancel(person)
        if withdraw_consent(self._registry, person):
            self.note(Event.CONSENT_WITHDRAWN, by)
        return self._erased(person)

    def erase_template(self, person: str, by: int) -> bool:
        """Erase the template of a person, and leave the consent; whether it is erased already."""
        self._enrolments.cancel(person)
        if doom_templates(self._registry, person):
            self.note(Event.ERASED, by)
        return self._erased(person)

    def erase_person(self, person: str, by: int) -> None:
        """Erase a person from every zone, and then from the registry.

        Raises:
            StillHeld: a zone is away, and still holds something.
        """
        self.withdraw(person, by)
        doom_badges(self._registry, person)
        if not (self._upkeep.erase_now(person) and self._upkeep.remove_badges_now(person)):
            raise StillHeld(
                "a zone is away and still holds something of this person: ask again when it is back"
            )
        remove_person(self._registry, person)
        self.note(Event.PERSON_ERASED, by)
        # It is done; where something else reads the file just now, the upkeep empties the log.
        with contextlib.suppress(RegistryError):
            self._registry.empty_log()

    def give_badge(
        self, person: str, bits: int, number: int, label: str, by: int, once: Once | None = None
    ) -> HeldBadge:
        """Let a badge open the door.

        Raises:
            LinkError, ZoneRefused: door does not have it, or will have forgotten it soon.
            KeyReused, NotAgain: see `begin_badge`; or the badge that `once` made has another number.
        """
        badge, fresh = begin_badge(self._registry, person, label, once)
        try:
            # Door is also given a badge that it has: it alone can tell whether this is its number.
            self._door.add_badge(badge.id, bits, number)
            if fresh:
                complete_badge(self._registry, badge.id)
        except ZoneRefused as refusal:
            if not fresh and refusal.reason is Refusal.BADGE_TAKEN:
                raise KeyReused from refusal
            raise
        finally:
            # Where it did not come so far, door may or may not have it: upkeep has it removed.
            if fresh:
                finish_making(self._registry, badge.id)
        if fresh:
            self.note(Event.BADGE_ADDED, by)
        return badge

    def take_badge(self, badge: bytes, by: int) -> bool | None:
        """Let a badge open no more; whether door has done so already. None where there is no such badge."""
        doomed = doom_badge(self._registry, badge)
        if doomed is None:
            return None
        if doomed:
            self.note(Event.BADGE_REMOVED, by)
        return self._upkeep.remove_badge_now(badge)

    def decommission(self, by: int) -> None:
        """Have vault destroy its keys; what it holds is then to be erased as soon as a new vault can say so.

        Raises:
            LinkError, ZoneRefused: vault is away or could not: nothing changed, or ask again.
        """
        self._enrolments.cancel()
        self._vault.decommission()
        self.note(Event.DECOMMISSIONED, by)
        doom_all_templates(self._registry)

    def _erased(self, person: str) -> bool:
        return self._upkeep.erase_now(person) and not holds_template(self._registry, person)
