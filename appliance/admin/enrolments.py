"""Enrolments that are under way: a window in vault each, watched on a thread, its token given out once."""

import enum
import secrets
import threading
from dataclasses import dataclass, field

from appliance.admin.registry.consent import current_consent
from appliance.admin.registry.database import Registry
from appliance.admin.registry.holdings import (
    begin_template,
    complete_template,
    doom_template,
    enrolled_template,
    finish_making,
)
from appliance.admin.registry.once import KeyReused, NotAgain, Once
from appliance.admin.zones import VaultLink, ZoneRefused
from appliance.errors import DrempelError
from appliance.journal import Event, Journal
from appliance.link.messages import (
    HANDLE,
    MAX_LEASE,
    ClaimKind,
    Guidance,
    OpenEnrolment,
    Progress,
    Refusal,
)
from appliance.link.sockets import LinkError
from appliance.rights import ALWAYS

TOKEN_TIME = 600.0
"""Seconds that a token waits to be taken; then it is overwritten, and its template erased: nobody has it."""
MOST_KEYS = 1024
"""Idempotency keys that are remembered."""
KEPT = 32
"""Enrolments that are remembered; the oldest finished one gives way."""


class UnknownEnrolment(DrempelError, LookupError):
    """There is no such enrolment."""


class NoToken(DrempelError, LookupError):
    """The token is not there yet, or was given out already."""


class EnrolmentState(enum.StrEnum):
    """How an enrolment stands."""

    OPEN = "open"
    """The person may press the button."""
    DONE = "done"
    """The template is stored, and the token waits to be given out, or was."""
    FAILED = "failed"
    """It is over, and nothing was stored."""


@dataclass
class Enrolment:
    """One enrolment: how many captures remain, the last guidance, and why it failed where it did."""

    id: str
    person: str
    handle: bytes
    remaining: int
    state: EnrolmentState = EnrolmentState.OPEN
    guidance: Guidance | None = None
    problem: str | None = None
    token: bytearray | None = field(default=None, repr=False)
    cancelled: threading.Event = field(default_factory=threading.Event)
    token_gone: threading.Event = field(default_factory=threading.Event)


class Enrolments:
    """All enrolments of this process."""

    def __init__(self, registry: Registry, vault: VaultLink, journal: Journal, captures: int) -> None:
        self._registry = registry
        self._vault = vault
        self._journal = journal
        self._captures = captures
        self._lock = threading.Lock()
        self._beginning = threading.Lock()
        self._all: dict[str, Enrolment] = {}
        self._made: dict[Once, tuple[str, tuple[str, int, ClaimKind]]] = {}

    def begin(
        self, person: str, seconds: int, once: Once | None = None, claim: ClaimKind = ClaimKind.TOKEN
    ) -> Enrolment:
        """Open a window of `seconds` for a person with a consent on record, who will claim with `claim`.

        A call with the same `once` gets the enrolment of the first. That is remembered in memory alone, as
        windows are: a restart of this process has closed them.

        Raises:
            ConsentError: it is not.
            KeyReused: `once` was used for another person or another time.
        """
        with self._beginning:
            if once is not None and once in self._made:
                made, asked = self._made[once]
                if asked != (person, seconds, claim):
                    raise KeyReused
                if made not in self._all:
                    raise NotAgain("that enrolment is over: use a new Idempotency-Key to open another")
                return self._all[made]
            enrolment = self._begin(person, seconds, claim)
            if once is not None:
                self._made[once] = (enrolment.id, (person, seconds, claim))
                if len(self._made) > MOST_KEYS:
                    del self._made[next(iter(self._made))]
        return enrolment

    def _begin(self, person: str, seconds: int, claim: ClaimKind) -> Enrolment:
        with self._lock:
            if any(each.state is EnrolmentState.OPEN for each in self._all.values()):
                # Vault has one window; a second would only fail there, on a thread of its own.
                raise ZoneRefused(Refusal.WINDOW_BUSY)
            over = [each for each in self._all.values() if each.state is not EnrolmentState.OPEN]
            forgotten = over[: max(0, len(self._all) - KEPT + 1)]
        for old in forgotten:
            self._end(old)
        consent = current_consent(self._registry, person)
        replaces = enrolled_template(self._registry, person) or bytes(HANDLE)
        handle = begin_template(self._registry, person, consent.id)
        enrolment = Enrolment(secrets.token_hex(8), person, handle, self._captures)
        request = OpenEnrolment(
            handle, consent.id, MAX_LEASE, self._captures, seconds, claim, ALWAYS, replaces
        )
        with self._lock:
            for old in forgotten:
                del self._all[old.id]
            self._all[enrolment.id] = enrolment
        threading.Thread(target=self._watch, args=(enrolment, request), name="enrolment", daemon=True).start()
        return enrolment

    def find(self, enrolment: str) -> Enrolment:
        """One enrolment.

        Raises:
            UnknownEnrolment: there is none with this id.
        """
        with self._lock:
            found = self._all.get(enrolment)
        if found is None:
            raise UnknownEnrolment("no such enrolment: it is over, or admin was restarted; open a new one")
        return found

    def take_token(self, enrolment: str) -> bytearray:
        """The token, this once, in a buffer that the caller overwrites.

        Raises:
            UnknownEnrolment, NoToken: there is nothing to give out.
        """
        found = self.find(enrolment)
        with self._lock:
            token = None
            if not found.cancelled.is_set():
                token, found.token = found.token, None
        if token is None:
            raise NoToken("the token is not there: it is given out once, after the last capture")
        found.token_gone.set()
        return token

    def cancel_one(self, enrolment: str) -> None:
        """Close a window; a template whose token nobody has taken is erased with it.

        Raises:
            UnknownEnrolment: there is none with this id.
        """
        self._end(self.find(enrolment))

    def cancel(self, person: str | None = None) -> None:
        """Close the windows of a person, or, when this process ends, of everyone."""
        with self._lock:
            concerned = [each for each in self._all.values() if person in {None, each.person}]
        for enrolment in concerned:
            self._end(enrolment)

    def _end(self, enrolment: Enrolment) -> None:
        """Close a window, and overwrite the token that waits; a template without a token is of no use."""
        with self._lock:
            # Under the lock: a token that comes afterwards finds the enrolment cancelled.
            enrolment.cancelled.set()
            waits = enrolment.token is not None
        if waits:
            # Written down first: where the disk refuses, the same call may be made again.
            doom_template(self._registry, enrolment.handle)
        with self._lock:
            token, enrolment.token = enrolment.token, None
        if token is not None:
            token[:] = bytes(len(token))
        enrolment.token_gone.set()

    def _watch(self, enrolment: Enrolment, request: OpenEnrolment) -> None:
        def report(progress: Progress) -> None:
            enrolment.remaining = progress.remaining
            enrolment.guidance = progress.guidance

        try:
            token = self._vault.enrol(request, report, enrolment.cancelled.is_set)
            if self._keep(enrolment, token):
                self._journal.note(Event.ENROLLED)
            else:
                token[:] = bytes(len(token))
                enrolment.problem = "cancelled, or the consent was withdrawn: the template is erased"
        except (LinkError, ZoneRefused) as error:
            enrolment.problem = str(error)
        except DrempelError:
            enrolment.problem = "the registry could not be written: free some space, and enrol again"
        finally:
            if enrolment.state is not EnrolmentState.DONE:
                enrolment.state = EnrolmentState.FAILED
            # Whatever vault may hold under a handle that is still pending, upkeep has erased.
            finish_making(self._registry, enrolment.handle)
        if enrolment.state is EnrolmentState.DONE and not enrolment.token_gone.wait(TOKEN_TIME):
            self._end(enrolment)

    def _keep(self, enrolment: Enrolment, token: bytearray) -> bool:
        """Complete the enrolment, and let its token wait to be taken.

        False where it was cancelled, or its consent withdrawn, meanwhile: then its template is still pending
        in the registry, and the upkeep has it erased. Under the lock: a cancelling comes before or after.
        """
        with self._lock:
            if enrolment.cancelled.is_set() or not complete_template(self._registry, enrolment.handle):
                return False
            if token:
                enrolment.token = token
            else:
                # A card, or a number and PIN: the person has it already.
                enrolment.token_gone.set()
            enrolment.remaining = 0
            enrolment.state = EnrolmentState.DONE
        return True
