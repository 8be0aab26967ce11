"""The vault process: the decision channel, the guidance channel and admin's commands.

Attempts are served one after the other. What door asks, and admin's commands, are read on threads of their
own: an open enrolment window keeps neither an erasure nor a decision waiting, and nothing a tamper switch.
"""

import contextlib
import queue
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial

from appliance.errors import DrempelError
from appliance.journal import Event, Journal
from appliance.link.decision import Answer, Verb, read_request, write_answer
from appliance.link.messages import (
    HANDLE,
)
from appliance.link.sockets import Deadline, LinkError, Malformed, WrongPeer, accept, listen, user_ids
from appliance.packs.manifest import check_acknowledged, load_manifest
from appliance.process import begin, run_zone, stop_event
from appliance.settings import Settings
from appliance.vault.attempt import Decider, verify
from appliance.vault.claims import Vaulted
from appliance.vault.commands import Commands
from appliance.vault.decommission import destroy_keys
from appliance.vault.enrolment import Windows, capture
from appliance.vault.expiry import due_for_erasure
from appliance.vault.guidance import GuidanceChannel
from appliance.vault.keys import wipe
from appliance.vault.look import LensLook
from appliance.vault.opening import open_vault
from appliance.vault.store import StoreError

LOOK_AT_THE_CLOCK = 60
LOOK_FOR_THE_EXPIRED = 3600
"""Seconds between two looks."""
EPOCH_LASTS = 86_400
"""Seconds after which an epoch is changed, whoever was erased meanwhile: for no longer than that, a copy of
vault.db and its key brings back what waits, counts and rights were."""
MAX_DECISIONS = 4
"""Connections of door at a time: an attempt, the next that waits for it, and room for a tamper switch."""
MAX_COMMANDS = 16
"""Connections of admin at a time; more wait in the socket's queue."""


@dataclass(frozen=True, slots=True)
class Peers:
    """The user ids that may speak, by the zone they belong to."""

    door: Collection[int]
    lens: Collection[int]
    admin: Collection[int]


class VaultService:
    """One vault, from its start to its end."""

    def __init__(self, settings: Settings, journal: Journal) -> None:
        """Open the store and the keys; listen on nothing yet.

        Raises:
            KeyLost, StoreError, ConfigurationError: this vault cannot open anything; badges go on.
        """
        self._settings = settings
        self._journal = journal
        self._peers = Peers(
            user_ids(settings.users.door), user_ids(settings.users.lens), user_ids(settings.users.admin)
        )
        state = settings.zone_state("vault")
        recognition = settings.recognition
        manifest = load_manifest(recognition.pack)
        self._decider: Decider | None = None
        if recognition.enabled:
            check_acknowledged(manifest, recognition.acknowledge)
            self._decider = Decider(manifest.mean, manifest.threshold(recognition.fmr, recognition.probes))
        runtime = settings.paths.runtime / "vault"
        # A zone with a user of its own is a device's, or means to be.
        store, epochs = open_vault(state, recognition.tpm, runtime, device=bool(settings.users.vault))
        self._vaulted = Vaulted.of(store, epochs, manifest, settings)
        self._vaulted.tell_of_weaker_records()
        self._over = threading.Event()
        self._look_at_the_clock = Deadline(0)
        self._look_for_the_expired = Deadline(0)
        self._windows = Windows()
        self._guidance = GuidanceChannel()
        self._commands = Commands(
            self._vaulted,
            self._windows,
            recognition,
            secrets.token_bytes(HANDLE),
            journal,
            destroy=partial(destroy_keys, state, runtime, recognition.tpm),
            end=self._over.set,
        )
        self._command_slots = threading.BoundedSemaphore(MAX_COMMANDS)
        self._decision_slots = threading.BoundedSemaphore(MAX_DECISIONS)
        self._attempts: queue.SimpleQueue[tuple[socket.socket, bytearray]] = queue.SimpleQueue()

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set."""
        settings = self._settings
        channels: tuple[tuple[str, Collection[int], Callable[[socket.socket], None]], ...] = (
            ("vault/decision", self._peers.door, self._decide),
            ("vault/guidance", self._peers.door, self._guidance.attach),
            ("vault/admin", self._peers.admin, self._command),
        )
        threads = []
        for name, allowed, serve in channels:
            listener = listen(settings.socket(name))
            thread = threading.Thread(
                target=self._listen, args=(listener, allowed, serve, stop), name=name, daemon=True
            )
            threads.append(thread)
            thread.start()
        threading.Thread(
            target=self._serve_attempts, args=(stop,), name="vault/attempts", daemon=True
        ).start()
        self._journal.note(Event.STARTED)
        while not stop.is_set() and not self._over.wait(0.25):
            self._keep_house()
        stop.set()
        for thread in threads[1:]:
            thread.join(timeout=1.0)
        if not self._over.is_set():
            self._vaulted.clock.keep()
        self._journal.note(Event.STOPPED)

    def _keep_house(self) -> None:
        """From time to time: keep the time, erase what is over, and let no epoch grow old."""
        if self._look_at_the_clock.passed:
            self._look_at_the_clock = Deadline(LOOK_AT_THE_CLOCK)
            self._vaulted.clock.moment()
        if not self._look_for_the_expired.passed:
            return
        self._look_for_the_expired = Deadline(LOOK_FOR_THE_EXPIRED)
        try:
            over = due_for_erasure(self._vaulted.store, self._vaulted.clock)
            if over:
                self._commands.erase(*over)
                self._journal.note(Event.EXPIRED, records=len(over))
            if self._commands.rotate(if_older_than=EPOCH_LASTS):
                self._journal.note(Event.KEYS_ROTATED)
        except StoreError as error:
            # What is over opens nothing all the same; the next look tries again.
            print(f"drempel vault: the hourly clean-up is not done yet: {error}", file=sys.stderr)

    def _listen(
        self,
        listener: socket.socket,
        allowed: Collection[int],
        serve: Callable[[socket.socket], None],
        stop: threading.Event,
    ) -> None:
        with listener:
            listener.settimeout(0.25)
            while not stop.is_set():
                try:
                    connection = accept(listener, allowed)
                except WrongPeer:
                    self._journal.note(Event.WRONG_PEER)
                except TimeoutError:
                    continue
                except OSError as error:
                    # Out of file descriptors, say: nothing is lost by waiting for better.
                    print(f"drempel vault: {error}", file=sys.stderr)
                    stop.wait(0.25)
                else:
                    serve(connection)

    def _decide(self, connection: socket.socket) -> None:
        """Have a request of door read on a thread of its own: tampering waits for no attempt."""
        if not self._decision_slots.acquire(timeout=5):
            connection.close()
            return
        threading.Thread(target=self._read, args=(connection,), name="vault/request", daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        """Read one request, and hand an attempt on; the slot is free again when it has been served."""
        presented = bytearray()
        handed_on = False
        try:
            with self._caught():
                request = read_request(connection)
                if isinstance(request.claim, bytearray):
                    presented = request.claim
                if request.verb is Verb.TAMPER:
                    self._commands.decommission()
                    write_answer(connection, Answer.NO_MATCH)
                elif request.verb is Verb.ATTEMPT:
                    self._attempts.put((connection, presented))
                    handed_on = True
                else:
                    # Withdrawing at the door needs the durable outbox to admin, and comes with it.
                    raise Malformed("a verb that is not served yet")
        finally:
            if not handed_on:
                self._end_request(connection, presented)

    def _serve_attempts(self, stop: threading.Event) -> None:
        """Serve one attempt after the other.

        All on one thread: what the libraries free of one attempt, the next takes, and little lingers.
        """
        while not stop.is_set():
            try:
                connection, presented = self._attempts.get(timeout=0.25)
            except queue.Empty:
                continue
            try:
                with self._caught():
                    self._attempt(connection, presented)
            finally:
                self._end_request(connection, presented)

    def _end_request(self, connection: socket.socket, presented: bytearray) -> None:
        # What door was shown is overwritten however it ended, also before anybody looked at it.
        wipe(presented)
        connection.close()
        self._decision_slots.release()

    @contextlib.contextmanager
    def _caught(self) -> Iterator[None]:
        """An attempt may fail, and writes nothing then; deciding goes on."""
        try:
            yield
        except Malformed:
            self._journal.note(Event.HOSTILE_MESSAGE)
        except DrempelError as error:
            self._journal.note(Event.FAILED)
            print(f"drempel vault: {error}", file=sys.stderr)
        except Exception as error:  # noqa: BLE001 - see above
            self._journal.note(Event.FAILED)
            print(f"drempel vault: an attempt failed with {type(error).__name__}", file=sys.stderr)

    def _attempt(self, connection: socket.socket, presented: bytearray) -> None:
        """Serve one attempt: `01` is the last act of a match."""
        recognition = self._settings.recognition
        if self._decider is None:
            # Recognition is off: whatever stands before the lens, nothing looks at it.
            write_answer(connection, Answer.NO_MATCH)
            return
        whole = Deadline(recognition.attempt_time)
        window = self._windows.current()
        say = self._guidance.begin()
        matched: bytes | None = None
        with LensLook(self._settings.socket("lens/look"), self._peers.lens, connection, whole) as look:
            if window is not None:
                capture(look, self._windows, window, self._decider, self._vaulted, say, whole, presented)
            else:
                matched = verify(look, self._vaulted, self._decider, recognition, say, whole, presented)
        if matched is None:
            write_answer(connection, Answer.NO_MATCH)
            return
        try:
            # An erasure or the end of a ground that came meanwhile wins: it is looked at once more.
            with self._vaulted.leases.while_current(matched) as current:
                write_answer(connection, Answer.MATCH if current else Answer.NO_MATCH)
        finally:
            # It matched, even if door went away. After the answer: it was charged as a failure, and a crash
            # in between leaves it so.
            self._vaulted.limits.succeeded(matched)

    def _command(self, connection: socket.socket) -> None:
        if not self._command_slots.acquire(timeout=5):
            connection.close()
            return

        def serve() -> None:
            try:
                with connection:
                    self._commands.serve(connection)
            except Malformed:
                self._journal.note(Event.HOSTILE_MESSAGE)
            except LinkError:
                # Admin went away in the middle; what it asked for is either durable or did not happen.
                self._journal.note(Event.FAILED)
            except DrempelError as error:
                # The keys are forgotten, say, and this process is about to end.
                self._journal.note(Event.FAILED)
                print(f"drempel vault: {error}", file=sys.stderr)
            finally:
                self._command_slots.release()

        threading.Thread(target=serve, name="vault/command", daemon=True).start()


def run(settings: Settings) -> int:
    """Be the vault until asked to stop; the exit status of the process, see `run_zone`."""

    def serve() -> int:
        stop = stop_event()
        VaultService(settings, begin(settings, "vault")).run(stop)
        return 0

    return run_zone("vault", serve)
