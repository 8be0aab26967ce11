"""Admin's side of the link: speaks to vault and to door, one command a connection."""

import socket
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

from appliance.errors import DrempelError
from appliance.link.events import AskEvents, DoorEvent, EndOfEvents
from appliance.link.framing import Message, read_message, send_message
from appliance.link.messages import (
    DOOR_TO_ADMIN,
    VAULT_TO_ADMIN,
    AddBadge,
    AskCheck,
    AskDoor,
    AskVault,
    Checked,
    Decommission,
    Done,
    DoorState,
    Enrolled,
    Erase,
    Lease,
    OpenEnrolment,
    Progress,
    Refusal,
    Refused,
    RemoveBadge,
    RotateEpoch,
    TrustClock,
    VaultState,
)
from appliance.link.sockets import Deadline, LinkError, Malformed, connect

_Answer = TypeVar("_Answer", bound=Message)

COMMAND_TIME = 5.0
"""Seconds for a command and its answer; an erasure waits for the disk."""

CHECK_TIME = 50.0
"""Seconds for vault to read all its records, 100,000 at most on the slowest board; below `ANSWER_TIME` of
`appliance.api_client`."""
EPOCH_TIME = 20.0
"""Seconds for vault to change its epoch, or to destroy its keys, in files and in a TPM."""
_AWAY = (
    "vault does not answer: is it running? Where it refused to start, its log says why and what to do "
    "(journalctl -u drempel-vault, or the terminal of `drempel run`)"
)

REASONS = {
    Refusal.UNKNOWN_HANDLE: "vault has no such template: enrol again",
    Refusal.HANDLE_TAKEN: "vault has this template already: start the enrolment anew",
    Refusal.NO_GROUND: "vault was given no legal ground: record the consent first",
    Refusal.WINDOW_BUSY: "another enrolment is open: finish or cancel it first",
    Refusal.WINDOW_EXPIRED: "nobody was captured in time: open the enrolment again, and press the button",
    Refusal.RECOGNITION_OFF: "recognition is off: see [recognition] in the settings",
    Refusal.BADGE_TAKEN: "this badge number is another badge's already: remove that one first",
    Refusal.STORAGE: "the zone could not store it: look at its journal and at the disk",
    Refusal.CLAIM_TAKEN: "this card or number belongs to another template already: use another one",
    Refusal.CLAIM_NOT_SERVED: "this site does not take such a claim: see claims and tier in the settings",
    Refusal.NOT_THE_TIME: "the clock cannot be right: set it first (timedatectl), and call this again",
    Refusal.NOT_AUTHENTIC: "vault's record was altered and never opens: enrol this person anew",
    Refusal.MALFORMED: "the zone did not understand: are all zones of one version?",
}


class ZoneRefused(DrempelError, ValueError):
    """The other zone said no; nothing changed there."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(REASONS[reason])
        self.reason = reason


class _Zone:
    """A zone that listens at `path`, and must run as one of `users`."""

    def __init__(self, path: Path, users: Collection[int]) -> None:
        self._path = path
        self._users = users

    def _ask(
        self,
        command: Message,
        answers: Collection[type[Message]],
        kind: type[_Answer],
        seconds: float = COMMAND_TIME,
    ) -> _Answer:
        deadline = Deadline(seconds)
        with connect(self._path, self._users, deadline) as connection:
            send_message(connection, command, deadline)
            return _expect(read_message(connection, answers, deadline), kind)


class VaultLink(_Zone):
    """Vault, as admin sees it."""

    def state(self) -> VaultState:
        """How vault is.

        Raises:
            LinkError: it is away.
        """
        return self._ask(AskVault(), VAULT_TO_ADMIN, VaultState)

    def erase(self, handle: bytes) -> None:
        """Have a template erased; when this returns, it is.

        Raises:
            LinkError, ZoneRefused: it may still be there; try again.
        """
        self._ask(Erase(handle), VAULT_TO_ADMIN, Done, EPOCH_TIME)

    def vouch(self, handle: bytes, seconds: int) -> None:
        """Vouch for a template's legal ground.

        Raises:
            LinkError, ZoneRefused: vault does not have it.
        """
        self._ask(Lease(handle, seconds), VAULT_TO_ADMIN, Done)

    def check(self) -> Checked:
        """What stands in vault, once it has looked at every record.

        Raises:
            LinkError: it is away.
            ZoneRefused: it cannot.
        """
        return self._ask_at_length(AskCheck(), Checked, CHECK_TIME)

    def trust_clock(self) -> None:
        """Have vault take the wall clock for right.

        Raises:
            LinkError, ZoneRefused: it does not.
        """
        self._ask_at_length(TrustClock(), Done, COMMAND_TIME)

    def rotate(self) -> None:
        """Have vault begin a new epoch; when this returns, the old key is destroyed.

        Raises:
            LinkError, ZoneRefused: it may not be yet; ask again.
        """
        self._ask_at_length(RotateEpoch(), Done, EPOCH_TIME)

    def decommission(self) -> None:
        """Have vault destroy its keys; when this returns, it has.

        Raises:
            LinkError, ZoneRefused: they may still be there; ask again.
        """
        self._ask_at_length(Decommission(), Done, EPOCH_TIME)

    def _ask_at_length(self, command: Message, kind: type[_Answer], seconds: float) -> _Answer:
        """Ask what takes long; who asks waits for it, and is told what to do where vault is away."""
        try:
            return self._ask(command, VAULT_TO_ADMIN, kind, seconds)
        except Malformed:
            raise
        except LinkError as error:
            raise LinkError(_AWAY) from error

    def enrol(
        self, request: OpenEnrolment, report: Callable[[Progress], None], cancelled: Callable[[], bool]
    ) -> bytearray:
        """Keep an enrolment window open until the template is stored; its token, for the caller to overwrite.

        It is empty where the person claims with a card, or a number and PIN.

        Raises:
            LinkError: vault went away; the template is not stored, or is erased by the next clean-up.
            ZoneRefused: the window was refused, or its time passed.
        """
        with connect(self._path, self._users, Deadline(COMMAND_TIME)) as connection:
            send_message(connection, request, Deadline(COMMAND_TIME))
            whole = Deadline(request.seconds + COMMAND_TIME)
            while not whole.passed and not cancelled():
                message = _next(connection, whole.earlier(0.25))
                if isinstance(message, Progress):
                    report(message)
                elif isinstance(message, Done):
                    return bytearray()
                elif message is not None:
                    return bytearray(_expect(message, Enrolled).token)
        raise ZoneRefused(Refusal.WINDOW_EXPIRED)


class DoorLink(_Zone):
    """Door, as admin sees it."""

    def state(self) -> DoorState:
        """How door is.

        Raises:
            LinkError: it is away.
        """
        return self._ask(AskDoor(), DOOR_TO_ADMIN, DoorState)

    def events(self, instance: bytes, after: int, limit: int) -> tuple[list[DoorEvent], EndOfEvents]:
        """What came after event `after` of the run `instance` (8 bytes; zeros for: whatever is kept).

        Raises:
            LinkError: door is away.
        """
        deadline = Deadline(COMMAND_TIME)
        events: list[DoorEvent] = []
        with connect(self._path, self._users, deadline) as connection:
            send_message(connection, AskEvents(instance, after, limit), deadline)
            while True:
                message = read_message(connection, DOOR_TO_ADMIN, deadline)
                if not isinstance(message, DoorEvent):
                    return events, _expect(message, EndOfEvents)
                if len(events) >= limit:
                    raise Malformed("more events than were asked for")
                events.append(message)

    def add_badge(self, badge: bytes, bits: int, number: int) -> None:
        """Let a badge open.

        Raises:
            LinkError, ZoneRefused: it does not.
        """
        self._ask(AddBadge(badge, bits, number.to_bytes(16)), DOOR_TO_ADMIN, Done)

    def remove_badge(self, badge: bytes) -> None:
        """Have a badge open no more.

        Raises:
            LinkError, ZoneRefused: it may still open; try again.
        """
        self._ask(RemoveBadge(badge), DOOR_TO_ADMIN, Done)


def _next(connection: socket.socket, deadline: Deadline) -> Message | None:
    """The next message, or None when the deadline passes before it begins."""
    connection.settimeout(max(deadline.remaining, 0.01))
    try:
        if not connection.recv(1, socket.MSG_PEEK):
            raise LinkError("vault went away during the enrolment: try again")
    except TimeoutError:
        return None
    except ConnectionError as error:
        raise LinkError("vault went away during the enrolment: try again") from error
    return read_message(connection, VAULT_TO_ADMIN, Deadline(COMMAND_TIME))


def _expect(message: Message, kind: type[_Answer]) -> _Answer:
    if isinstance(message, Refused):
        raise ZoneRefused(message.reason)
    if not isinstance(message, kind):
        raise Malformed("an answer to another question")
    return message
