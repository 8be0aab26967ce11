"""What admin may ask of vault: enrol, erase, vouch for a ground, and how it is. One command a connection."""

import select
import socket

from appliance.journal import Event, Journal
from appliance.link.framing import Message, read_message, send_message
from appliance.link.messages import (
    ADMIN_TO_VAULT,
    AskVault,
    Done,
    Enrolled,
    Erase,
    Lease,
    OpenEnrolment,
    Progress,
    Refusal,
    Refused,
    VaultState,
)
from appliance.link.sockets import Deadline, LinkError
from appliance.settings import Recognition
from appliance.vault.claims import Vaulted
from appliance.vault.enrolment import Window, Windows
from appliance.vault.keys import wipe
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
    ) -> None:
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

    def _answer(self, connection: socket.socket, command: Message) -> Message | None:
        vaulted = self._vaulted
        match command:
            case OpenEnrolment():
                return self._enrol(connection, command)
            case Erase(handle):
                under_way = self._windows.current()
                if under_way is not None and under_way.request.handle == handle:
                    # An enrolment under way would store the record after its erasure.
                    self._windows.close(under_way)
                # The lease first: from here on no decision can rest on the record.
                with vaulted.leases.held():
                    vaulted.leases.end(handle)
                    existed = vaulted.store.exists(handle)
                    try:
                        vaulted.erase(handle)
                    finally:
                        if existed and not vaulted.store.exists(handle):
                            self._journal.note(Event.ERASED)
                return Done()
            case Lease(handle, seconds):
                # Held, or a lease that was on its way could be granted after the erasure of its record.
                with vaulted.leases.held():
                    if not vaulted.store.exists(handle):
                        return Refused(Refusal.UNKNOWN_HANDLE)
                    vaulted.leases.grant(handle, seconds)
                return Done()
            case AskVault():
                window = self._windows.current() is not None
                return VaultState(
                    self._instance,
                    vaulted.store.count(),
                    vaulted.leases.count(),
                    int(window),
                    int(self._recognition.enabled),
                )
            case _:
                return Refused(Refusal.MALFORMED)

    def _enrol(self, connection: socket.socket, request: OpenEnrolment) -> Message | None:
        """Keep a window open until it is complete, its time is over, or admin hangs up."""
        if not self._recognition.enabled:
            return Refused(Refusal.RECOGNITION_OFF)
        if request.consent == NO_CONSENT or request.lease == 0:
            return Refused(Refusal.NO_GROUND)
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
        if window.token is None:
            return Refused(window.refusal or Refusal.WINDOW_EXPIRED)
        handle = window.request.handle
        code = window.token.encode()
        wipe(window.token.secret)
        try:
            with self._vaulted.leases.held():
                if not self._vaulted.store.exists(handle):
                    return Refused(Refusal.WINDOW_EXPIRED)
                self._vaulted.leases.grant(handle, window.request.lease)
            send_message(connection, Enrolled(code), Deadline(COMMAND_TIME))
            self._journal.note(Event.ENROLLED)
        except LinkError:
            # Nobody has the token, so nobody could ever open the record.
            with self._vaulted.leases.held():
                self._vaulted.leases.end(handle)
                self._vaulted.erase(handle)
            raise
        finally:
            wipe(code)
        return None


def _hung_up(connection: socket.socket) -> bool:
    """Whether admin closed its end, or says something where it has nothing to say."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
