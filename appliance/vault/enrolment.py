"""Enrolment: a window that admin opens, in which the person's own press captures good frames.

The window lives as long as admin's connection and its time; captures of several presses add up. The
template is the mean of the normalised embeddings. No capture outlives its window.
"""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from appliance.link.claims import NotACredential
from appliance.link.messages import (
    ClaimKind,
    Guidance,
    Hint,
    OpenEnrolment,
    Probe,
    Progress,
    Refusal,
)
from appliance.link.sockets import Deadline
from appliance.vault.attempt import CLOSING_MARGIN, Decider, take_embedding
from appliance.vault.claims import Vaulted
from appliance.vault.comparison import NotAnEmbedding, Vector, make_template, score
from appliance.vault.credentials import Credential, parse
from appliance.vault.keys import random_bytes, wipe
from appliance.vault.look import LensLook, drop
from appliance.vault.protection import ON_TOKEN, seal
from appliance.vault.store import HandleTaken, LookupTaken, Record, StoreError
from appliance.vault.token import SECRET, Token


@dataclass(repr=False)
class Window:
    """An open enrolment window.

    `report` tells admin of progress. `finished` is set when the window is over: `stored`, with the token that
    is then the only key to the record where it has one; with a refusal; or with neither, when it was closed.
    """

    request: OpenEnrolment
    deadline: Deadline
    report: Callable[[Progress], None]
    captures: list[Vector] = field(default_factory=list)
    credential: Credential | None = None
    finished: threading.Event = field(default_factory=threading.Event)
    stored: bool = False
    token: Token | None = None
    refusal: Refusal | None = None

    @property
    def remaining(self) -> int:
        """Captures that are still needed."""
        return max(0, self.request.captures - len(self.captures))

    def start_anew(self) -> None:
        """Overwrite all captures."""
        for capture in self.captures:
            capture.fill(0)
        self.captures.clear()

    def forget(self) -> None:
        """Overwrite all captures, and the card or number and PIN that was shown."""
        self.start_anew()
        if self.credential is not None:
            self.credential.forget()
            self.credential = None

    def claim(self, presented: bytearray | None, vaulted: Vaulted) -> bool:
        """Take what the person showed to door with this press; False where the window needs another kind.

        It is needed with each press, or the face of one press could be stored for the card of another. A
        window for a token needs nothing; what is shown all the same is overwritten.
        """
        kind = self.request.claim
        shown: Credential | None = None
        if presented:
            # What stands in for garbage in an attempt must never be enrolled: everybody has it.
            with contextlib.suppress(NotACredential):
                shown = parse(presented, vaulted.epochs.index_key)
        if shown is None or shown.kind is not kind:
            if shown is not None:
                shown.forget()
            return kind is ClaimKind.TOKEN
        before, self.credential = self.credential, shown
        if before is not None:
            if (before.lookup, before.value) != (shown.lookup, shown.value):
                # Another card, or another PIN: whose the captures before were, nobody can say.
                self.start_anew()
            before.forget()
        return True


class Windows:
    """The one window that can be open at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._window: Window | None = None

    def open(self, window: Window) -> bool:
        """Open a window; False when another is open."""
        with self._lock:
            if self.current_unlocked() is not None:
                return False
            self._window = window
            return True

    def current(self) -> Window | None:
        """The window that a press would be captured in."""
        with self._lock:
            return self.current_unlocked()

    def current_unlocked(self) -> Window | None:
        """As `current`, for who holds the lock."""
        window = self._window
        return None if window is None or window.deadline.passed or window.finished.is_set() else window

    def complete(self, window: Window, vaulted: Vaulted) -> bool:
        """Store the template of a window whose captures are complete; True when it is durable.

        Under the same lock as `close`: a window that was closed stores nothing any more.
        """
        with self._lock:
            if self.current_unlocked() is not window:
                return False
            try:
                window.token = _store(window, vaulted)
                window.stored = True
            except LookupTaken:
                window.refusal = Refusal.CLAIM_TAKEN
            except HandleTaken:
                window.refusal = Refusal.HANDLE_TAKEN
            except (StoreError, NotAnEmbedding):
                window.refusal = Refusal.STORAGE
            finally:
                window.finished.set()
            return window.stored

    def close(self, window: Window) -> None:
        """End a window, and overwrite what it holds."""
        with self._lock:
            window.finished.set()
            if self._window is window:
                self._window = None
        window.forget()


def capture(
    look: LensLook,
    windows: Windows,
    window: Window,
    decider: Decider,
    vaulted: Vaulted,
    say: Callable[[Guidance], None],
    whole: Deadline,
    presented: bytearray | None = None,
) -> None:
    """Capture for a window until it is complete or the attempt's time is over; the camera is closed then.

    A complete window is stored at once, and then finished. A window for a card, or a number and PIN, takes it
    from `presented`, which is overwritten; a press without it captures nothing.

    Raises:
        DoorGone, LensGone, LinkError: the look ended early; what was captured before stays in the window.
    """
    deadline = Deadline(whole.remaining - CLOSING_MARGIN)
    if not window.claim(presented, vaulted):
        say(Guidance.SHOW_TOKEN)
        look.finish()
        return
    try:
        _fill(look, window, decider, say, deadline)
    finally:
        if window.finished.is_set():
            # Closed meanwhile: what came in that moment goes too.
            window.forget()
    look.finish()
    if window.remaining == 0 and windows.complete(window, vaulted):
        say(Guidance.DONE)


def _fill(
    look: LensLook, window: Window, decider: Decider, say: Callable[[Guidance], None], deadline: Deadline
) -> None:
    """Capture until the window is complete or closed, or the time is over."""
    if window.remaining and not window.finished.is_set():
        say(Guidance.LOOK_HERE)
        look.embed(window.remaining, hints=True)
    while window.remaining and not deadline.passed and not window.finished.is_set():
        message = look.next(deadline.earlier(0.2))
        if isinstance(message, Hint):
            say(message.guidance)
            window.report(Progress(window.remaining, message.guidance))
        elif isinstance(message, Probe):
            try:
                alike = _take(message, window, decider)
            except NotAnEmbedding:
                # Lens sends no more than it was asked for: a rejected capture asks for another.
                look.embed(window.remaining, hints=True)
                continue
            if not alike:
                look.embed(window.remaining, hints=True)
            say(Guidance.CAPTURED)
            window.report(Progress(window.remaining, Guidance.CAPTURED))
        else:
            drop(message)


def _take(probe: Probe, window: Window, decider: Decider) -> bool:
    """Add a probe to the window; a face that is not the one captured before starts the captures anew.

    Raises:
        NotAnEmbedding: the probe's bytes are none.
    """
    embedding = take_embedding(probe, len(decider.mean))
    alike = True
    if window.captures:
        so_far = make_template(window.captures)
        alike = score(so_far, embedding, decider.mean) >= decider.threshold
        so_far.fill(0)
    if not alike:
        window.start_anew()
    window.captures.append(embedding)
    return alike


def _store(window: Window, vaulted: Vaulted) -> Token | None:
    """Seal and store the template of a complete window.

    Returns:
        The token, whose secret only it holds; None where the person has a card, or a number and PIN.

    Raises:
        NotAnEmbedding: the captures are no template.
        HandleTaken, StoreError: not stored; nothing changed.
    """
    handle, kind, credential = window.request.handle, window.request.claim, window.credential
    tier = vaulted.policy.tier_of(kind)
    secret = random_bytes(SECRET) if credential is None else credential.secret()
    kept = False
    template = make_template(window.captures)
    try:
        # The half is sealed for the epoch in which it is stored.
        with vaulted.epochs.lock:
            lookup = None if credential is None else credential.lookup
            # By the latest time that is certain: a clock that is late makes no template live longer.
            expires_at = vaulted.clock.latest + vaulted.policy.lifetime
            binding = vaulted.binding(handle, tier, lookup, window.request.rights, expires_at)
            sealed = seal(template, vaulted.mean, secret, vaulted.epochs.current, binding)
            record = Record(
                handle,
                tier,
                vaulted.pack,
                replace(sealed, body=b"") if tier == ON_TOKEN else sealed,
                lookup=lookup,
                rights=window.request.rights,
                expires_at=expires_at,
            )
            vaulted.keep(record, window.request.replaces)
        if credential is not None:
            return None
        kept = True
        return Token(handle, secret, tier, sealed.body if tier == ON_TOKEN else b"")
    finally:
        if not kept:
            wipe(secret)
        template.fill(0)
        window.forget()
