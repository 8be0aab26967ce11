"""What admin may ask of vault: enrol, erase, vouch for a ground, and how it is. One command a connection."""

import select
import socket
from collections.abc import Callable

from appliance.journal import Event, Journal
from appliance.link.framing import Message, read_message, send_message
from appliance.link.messages import (
    ADMIN_TO_VAULT,
    AskCheck,
    AskVault,
    Checked,
    Decommission,
    Done,
    Enrolled,
    Erase,
    Lease,
    OpenEnrolment,
    Progress,
    Refusal,
    Refused,
    RotateEpoch,
    SetRights,
    TrustClock,
    VaultState,
)
from appliance.link.sockets import Deadline, LinkError
from appliance.rights import BadRights, Rights
from appliance.settings import Recognition
from appliance.vault.check import check
from appliance.vault.claims import Vaulted
from appliance.vault.clock import NotTheTime
from appliance.vault.enrolment import Window, Windows
from appliance.vault.erasing import rotate_if_older
from appliance.vault.keys import wipe
from appliance.vault.protection import NotAuthentic
from appliance.vault.store import StoreError

COMMAND_TIME = 2.0
"""Seconds within which a command must be read, and an answer be taken."""
NO_CONSENT = bytes(16)
"""The consent id that says that there is none."""


class Commands:
    """Serves admin's commands; safe to use from several threads."""

    def __init__(
        self,
        vaulted: Vaulted,
        windows: Windows,
        recognition: Recognition,
        instance: bytes,
        journal: Journal,
        destroy: Callable[[], None],
        end: Callable[[], None],
    ) -> None:
        """Serve for this vault.

        Args:
            vaulted: what opens records.
            windows: the enrolment window, where one is open.
            recognition: the settings.
            instance: 16 random bytes of this start.
            journal: of this vault.
            destroy: destroys every key on the disk; raises OSError.
            end: ends this process.
        """
        self._destroy = destroy
        self._end = end
        self._vaulted = vaulted
        self._windows = windows
        self._recognition = recognition
        self._instance = instance
        self._journal = journal

    def serve(self, connection: socket.socket) -> None:
        """Read one command, and answer it.

        Raises:
            LinkError: torn, late or malformed, or admin went away.
        """
        command = read_message(connection, ADMIN_TO_VAULT, Deadline(COMMAND_TIME))
        try:
            answer = self._answer(connection, command)
        except StoreError:
            answer = Refused(Refusal.STORAGE)
        if answer is not None:
            send_message(connection, answer, Deadline(COMMAND_TIME))

    def erase(self, *handles: bytes) -> None:
        """Erase records; no decision rests on them from here on.

        Raises:
            StoreError: not all are erased for good; ask again.
        """
        vaulted = self._vaulted
        # The leases first: an attempt that is under way finds them ended, or waits.
        with vaulted.leases.held():
            for handle in handles:
                vaulted.leases.end(handle)
            for _ in range(vaulted.erase(*handles)):
                self._journal.note(Event.ERASED)

    def rotate(self, if_older_than: int = 0) -> bool:
        """Begin a new epoch; whether one was begun.

        Args:
            if_older_than: seconds of the device's life since this did so last; 0 for now.

        Raises:
            StoreError: not begun, or the old key may still be there; ask again.
        """
        vaulted = self._vaulted
        age = vaulted.clock.age
        with vaulted.leases.held():
            return rotate_if_older(vaulted.epochs, vaulted.store, age, if_older_than)

    def _trust_clock(self) -> Message:
        try:
            self._vaulted.clock.confirm()
        except NotTheTime:
            return Refused(Refusal.NOT_THE_TIME)
        self._journal.note(Event.CLOCK_TRUSTED)
        return Done()

    def decommission(self) -> None:
        """Destroy all keys, and end this process; no template here opens ever again.

        Raises:
            StoreError: a key may still be there; ask again.
        """
        under_way = self._windows.current()
        if under_way is not None:
            self._windows.close(under_way)
        with self._vaulted.leases.held(), self._vaulted.epochs.lock:
            self._vaulted.leases.end_all()
            self._vaulted.epochs.forget()
            try:
                self._destroy()
            except OSError as error:
                raise StoreError(f"a key may still be there: {error.strerror or error}; ask again") from error
            finally:
                try:
                    self._journal.note(Event.DECOMMISSIONED)
                finally:
                    # A vault without keys must seal nothing any more, even where its journal is full.
                    self._end()

    def _answer(self, connection: socket.socket, command: Message) -> Message | None:
        match command:
            case OpenEnrolment():
                return self._enrol(connection, command)
            case Erase(handle):
                under_way = self._windows.current()
                if under_way is not None and under_way.request.handle == handle:
                    # An enrolment under way would store the record after its erasure.
                    self._windows.close(under_way)
                self.erase(handle)
                return Done()
            case Lease(handle, seconds):
                return self._vouch(handle, seconds)
            case SetRights(handle, rights):
                return self._set_rights(handle, rights)
            case _:
                return self._answer_as_a_whole(command)

    def _answer_as_a_whole(self, command: Message) -> Message:
        """Answer a command that is about all records."""
        vaulted = self._vaulted
        match command:
            case AskVault():
                return VaultState(
                    self._instance,
                    vaulted.store.count(),
                    vaulted.leases.count(),
                    int(self._windows.current() is not None),
                    int(self._recognition.enabled),
                )
            case AskCheck():
                found = check(vaulted.store, vaulted.epochs)
                by_tier = (found.tiers[1], found.tiers[2], found.tiers[3])
                return Checked(*by_tier, found.unreadable, found.epoch, int(found.database_sound))
            case RotateEpoch():
                self.rotate()
                self._journal.note(Event.KEYS_ROTATED)
                return Done()
            case TrustClock():
                return self._trust_clock()
            case Decommission():
                self.decommission()
                return Done()
            case _:
                return Refused(Refusal.MALFORMED)

    def _vouch(self, handle: bytes, seconds: int) -> Message:
        # Held, or a lease that was on its way could be granted after the erasure of its record.
        with self._vaulted.leases.held():
            if not self._vaulted.store.exists(handle):
                return Refused(Refusal.UNKNOWN_HANDLE)
            self._vaulted.leases.grant(handle, seconds)
        return Done()

    def _set_rights(self, handle: bytes, rights: bytes) -> Message:
        try:
            Rights.decode(rights)
        except BadRights:
            return Refused(Refusal.MALFORMED)
        try:
            found = self._vaulted.set_rights(handle, rights)
        except NotAuthentic:
            return Refused(Refusal.NOT_AUTHENTIC)
        return Done() if found else Refused(Refusal.UNKNOWN_HANDLE)

    def _enrol(self, connection: socket.socket, request: OpenEnrolment) -> Message | None:
        """Keep a window open until it is complete, its time is over, or admin hangs up."""
        if not self._recognition.enabled:
            return Refused(Refusal.RECOGNITION_OFF)
        if request.consent == NO_CONSENT or request.lease == 0:
            return Refused(Refusal.NO_GROUND)
        policy = self._vaulted.policy
        if request.claim not in policy.kinds or policy.tier_of(request.claim) > policy.tier:
            return Refused(Refusal.CLAIM_NOT_SERVED)
        if self._vaulted.store.exists(request.handle):
            return Refused(Refusal.HANDLE_TAKEN)

        def report(progress: Progress) -> None:
            try:
                send_message(connection, progress, Deadline(0.2))
            except LinkError:
                # Admin hung up: the watch below closes the window.
                window.finished.set()

        window = Window(request, Deadline(request.seconds), report)
        if not self._windows.open(window):
            return Refused(Refusal.WINDOW_BUSY)
        self._journal.note(Event.WINDOW_OPENED)
        try:
            while not window.finished.wait(0.1) and not window.deadline.passed:
                if _hung_up(connection):
                    break
        finally:
            # Closed first: after this, either a token is there or none will ever be.
            self._windows.close(window)
            self._journal.note(Event.WINDOW_CLOSED)
        return self._outcome(connection, window)

    def _outcome(self, connection: socket.socket, window: Window) -> Message | None:
        if not window.stored:
            return Refused(window.refusal or Refusal.WINDOW_EXPIRED)
        handle = window.request.handle
        code = bytearray()
        if window.token is not None:
            code = window.token.encode()
            wipe(window.token.secret)
        try:
            with self._vaulted.leases.held():
                if not self._vaulted.store.exists(handle):
                    return Refused(Refusal.WINDOW_EXPIRED)
                self._vaulted.leases.grant(handle, window.request.lease)
            send_message(connection, Enrolled(code) if code else Done(), Deadline(COMMAND_TIME))
            self._journal.note(Event.ENROLLED)
        except LinkError:
            # Nobody has the token, so nobody could ever open the record; or admin does not know of it.
            self.erase(handle)
            raise
        finally:
            wipe(code)
        return None


def _hung_up(connection: socket.socket) -> bool:
    """Whether admin closed its end, or says something where it has nothing to say."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
