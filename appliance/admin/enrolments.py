"""Enrolments that are under way: a window in vault each, watched on a thread, its token given out once."""

import enum
import secrets
import threading
from dataclasses import dataclass, field

from appliance.admin.registry.consent import current_consent
from appliance.admin.registry.database import Registry
from appliance.admin.registry.holdings import begin_template, complete_template, doom_template, finish_making
from appliance.admin.registry.once import Once
from appliance.admin.zones import VaultLink, ZoneRefused
from appliance.errors import DrempelError
from appliance.journal import Event, Journal
from appliance.link.messages import (
    MAX_LEASE,
    Guidance,
    OpenEnrolment,
    Progress,
)
from appliance.link.sockets import LinkError

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
        self._made: dict[Once, str] = {}

    def begin(self, person: str, seconds: int, once: Once | None = None) -> Enrolment:
        """Open a window of `seconds` for a person whose consent is on record.

        A call with the same `once` gets the enrolment of the first. That is remembered in memory alone, as
        windows are: a restart of this process has closed them.

        Raises:
            ConsentError: it is not.
        """
        with self._beginning:
            if once is not None and (made := self._made.get(once)) in self._all:
                return self._all[made]
            enrolment = self._begin(person, seconds)
            if once is not None:
                self._made[once] = enrolment.id
        return enrolment

    def _begin(self, person: str, seconds: int) -> Enrolment:
        consent = current_consent(self._registry, person)
        handle = begin_template(self._registry, person, consent.id)
        enrolment = Enrolment(secrets.token_hex(8), person, handle, self._captures)
        request = OpenEnrolment(handle, consent.id, MAX_LEASE, self._captures, seconds)
        with self._lock:
            self._all[enrolment.id] = enrolment
            for old in [key for key, value in self._all.items() if value.state is not EnrolmentState.OPEN][
                : max(0, len(self._all) - KEPT)
            ]:
                del self._all[old]
            self._made = {once: made for once, made in self._made.items() if made in self._all}
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
            token, found.token = found.token, None
        if token is None:
            raise NoToken("the token is not there: it is given out once, after the last capture")
        return token

    def cancel_one(self, enrolment: str) -> None:
        """Close a window; a template whose token nobody has taken is erased with it.

        Raises:
            UnknownEnrolment: there is none with this id.
        """
        found = self.find(enrolment)
        found.cancelled.set()
        with self._lock:
            token, found.token = found.token, None
        if token is not None:
            token[:] = bytes(len(token))
            doom_template(self._registry, found.handle)

    def cancel(self, person: str | None = None) -> None:
        """Close the windows of a person, or, when this process ends, of everyone."""
        with self._lock:
            for enrolment in self._all.values():
                if person in {None, enrolment.person}:
                    enrolment.cancelled.set()

    def _watch(self, enrolment: Enrolment, request: OpenEnrolment) -> None:
        def report(progress: Progress) -> None:
            enrolment.remaining = progress.remaining
            enrolment.guidance = progress.guidance

        try:
            token = self._vault.enrol(request, report, enrolment.cancelled.is_set)
            if complete_template(self._registry, enrolment.handle):
                enrolment.token = token
                enrolment.remaining = 0
                enrolment.state = EnrolmentState.DONE
                self._journal.note(Event.ENROLLED)
            else:
                token[:] = bytes(len(token))
                enrolment.problem = "the consent was withdrawn meanwhile: the template is erased"
        except (LinkError, ZoneRefused) as error:
            enrolment.problem = str(error)
        except DrempelError:
            enrolment.problem = "the registry could not be written: free some space, and enrol again"
        finally:
            if enrolment.state is not EnrolmentState.DONE:
                enrolment.state = EnrolmentState.FAILED
            # Whatever vault may hold under a handle that is still pending, upkeep has erased.
            finish_making(self._registry, enrolment.handle)
