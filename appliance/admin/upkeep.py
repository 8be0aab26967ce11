"""The upkeep that runs without anyone asking: vouching for grounds, and finishing what a zone missed.

Admin vouches for each template whose consent is current, at most an hour ahead, and again as soon as vault
was restarted. What is to be erased or removed is asked for until the other zone has done it.
"""

import sys
import threading

from appliance.admin.accounts import Accounts
from appliance.admin.registry.database import Registry
from appliance.admin.registry.holdings import (
    badge_removed,
    doom_abandoned,
    doom_template,
    doomed_badges,
    doomed_templates,
    is_lawful,
    lawful_templates,
    template_erased,
)
from appliance.admin.registry.once import forget_old
from appliance.admin.zones import DoorLink, VaultLink, ZoneRefused
from appliance.errors import DrempelError
from appliance.link.messages import (
    MAX_LEASE,
    Refusal,
)
from appliance.link.sockets import Deadline, LinkError

ROUND = 1.0
"""Seconds between two looks at whether there is anything to do."""
RENEWAL = MAX_LEASE / 4
"""Seconds after which all leases are renewed: three renewals may be lost before one lapses."""


SLICE = 100
"""Templates that are vouched for in one go, while an erasure waits: a tenth of a second."""
PATIENCE = 2.0
"""Seconds that an erasure waits for another act with vault; then it is pending, and the caller told so."""
YIELD = 0.002
"""Seconds between two slices, in which who waits comes in."""


class Upkeep:
    """Runs on a thread of its own until stopped."""

    def __init__(self, registry: Registry, vault: VaultLink, door: DoorLink, accounts: Accounts) -> None:
        self._registry = registry
        self._vault = vault
        self._door = door
        self._accounts = accounts
        self._instance = b""
        self._renew_at = Deadline(0)
        # Vouching and erasing never overlap: a lease from an older look at the registry cannot reach vault
        # after the erasure of its record.
        self._alone = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the round that runs."""
        self._stop.set()
        self._thread.join(timeout=10)

    def erase_now(self, person: str | None = None) -> bool:
        """Ask vault to erase what is to be erased, of everyone or one person; True when nothing is left.

        Where another erasure or a slice of vouching takes its time, this one is left to the next round.
        """
        if not self._alone.acquire(timeout=PATIENCE):
            return False
        try:
            left = 0
            for handle in doomed_templates(self._registry, person):
                try:
                    self._vault.erase(handle)
                except LinkError:
                    return False
                except ZoneRefused:
                    # Its disk is full, say; the others may still go.
                    left += 1
                else:
                    template_erased(self._registry, handle)
        finally:
            self._alone.release()
        return left == 0

    def remove_badges_now(self, person: str | None = None) -> bool:
        """Ask door to remove what is to be removed, of everyone or one person; True when nothing is left."""
        left = 0
        for badge in doomed_badges(self._registry, person):
            try:
                self._door.remove_badge(badge)
            except LinkError:
                return False
            except ZoneRefused:
                left += 1
            else:
                badge_removed(self._registry, badge)
        return left == 0

    def remove_badge_now(self, badge: bytes) -> bool:
        """Ask door to remove one badge; whether it has."""
        try:
            self._door.remove_badge(badge)
        except (LinkError, ZoneRefused):
            return False
        badge_removed(self._registry, badge)
        return True

    def vouch_now(self) -> None:
        """Vouch for all that is lawful where vault was restarted or it is time, else for what is new.

        Vault grants a new template its first lease itself; one that is killed between that and the line in
        the registry would otherwise not know the ground of it until the next renewal.

        Raises:
            LinkError: vault is away; the leases run out by themselves.
        """
        instance = self._vault.state().instance
        new = [self._registry.completed.get() for _ in range(self._registry.completed.qsize())]
        if instance == self._instance and not self._renew_at.passed:
            for handle in new:
                with self._alone:
                    if is_lawful(self._registry, handle):
                        self._vouch(handle)
            return
        after: int | None = 0
        while after is not None:
            # A slice at a time, looked up anew: an erasure in between need not wait for the whole site.
            with self._alone:
                lawful = lawful_templates(self._registry, after, SLICE)
                for handle in lawful.items:
                    self._vouch(handle)
            after = lawful.next
            if self._stop.wait(YIELD):
                return
        self._instance = instance
        self._renew_at = Deadline(RENEWAL)

    def _vouch(self, handle: bytes) -> None:
        try:
            self._vault.vouch(handle, MAX_LEASE)
        except ZoneRefused as refusal:
            if refusal.reason is Refusal.UNKNOWN_HANDLE:
                # Vault ended the record by itself: it expired, say, or the database was begun anew. Whoever
                # looks at this person sees then that there is no template.
                doom_template(self._registry, handle)

    def _run(self) -> None:
        # The grounds first, housekeeping last: nothing that fails keeps back what comes after it.
        steps = (
            lambda: doom_abandoned(self._registry),
            self.erase_now,
            self.remove_badges_now,
            self._keep_vouching,
            self._empty_log,
            self._accounts.drop_expired,
            lambda: forget_old(self._registry),
        )
        while not self._stop.wait(ROUND):
            for step in steps:
                try:
                    step()
                except DrempelError as error:
                    print(f"drempel admin: {error}", file=sys.stderr)
                except Exception as error:  # noqa: BLE001 - without the upkeep, every lease would run out
                    print(f"drempel admin: the upkeep failed: {type(error).__name__}", file=sys.stderr)

    def _keep_vouching(self) -> None:
        try:
            self.vouch_now()
        except DrempelError as error:
            # The next round tries again, from the beginning. Where vault is away nothing is said: badges go
            # on, and leases run out.
            self._instance = b""
            if not isinstance(error, LinkError):
                raise

    def _empty_log(self) -> None:
        if self._registry.log_holds_erased:
            self._registry.empty_log()
