"""Enrolment: a window that admin opens, in which the person's own press captures good frames.

The window lives as long as admin's connection and its time; captures of several presses add up. The
template is the mean of the normalised embeddings. No capture outlives its window.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from appliance.link.messages import (
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
from appliance.vault.keys import wipe
from appliance.vault.look import LensLook, drop
from appliance.vault.protection import SHARED, seal
from appliance.vault.store import HandleTaken, Record, StoreError
from appliance.vault.token import Token


@dataclass
class Window:
    """An open enrolment window.

    `report` tells admin of progress. `finished` is set when the window is over: by its token, which is then
    the only key to the stored record, or by a refusal, or by neither when it was closed.
    """

    request: OpenEnrolment
    deadline: Deadline
    report: Callable[[Progress], None]
    captures: list[Vector] = field(default_factory=list)
    finished: threading.Event = field(default_factory=threading.Event)
    token: Token | None = None
    refusal: Refusal | None = None

    @property
    def remaining(self) -> int:
        """Captures that are still needed."""
        return max(0, self.request.captures - len(self.captures))

    def forget(self) -> None:
        """Overwrite all captures."""
        for capture in self.captures:
            capture.fill(0)
        self.captures.clear()


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

    def complete(self, window: Window, vaulted: Vaulted, mean: Vector) -> bool:
        """Store the template of a window whose captures are complete; True when it is durable.

        Under the same lock as `close`: a window that was closed stores nothing any more.
        """
        with self._lock:
            if self.current_unlocked() is not window:
                return False
            try:
                window.token = _store(window, vaulted, mean)
            except HandleTaken:
                window.refusal = Refusal.HANDLE_TAKEN
            except (StoreError, NotAnEmbedding):
                window.refusal = Refusal.STORAGE
            finally:
                window.finished.set()
            return window.token is not None

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
) -> None:
    """Capture for a window until it is complete or the attempt's time is over; the camera is closed then.

    A complete window is stored at once, and then finished.

    Raises:
        DoorGone, LensGone, LinkError: the look ended early; what was captured before stays in the window.
    """
    deadline = Deadline(whole.remaining - CLOSING_MARGIN)
    if window.remaining:
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
    if window.finished.is_set():
        # Closed meanwhile: what came in that moment goes too.
        window.forget()
    look.finish()
    if window.remaining == 0 and windows.complete(window, vaulted, decider.mean):
        say(Guidance.DONE)


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
        window.forget()
    window.captures.append(embedding)
    return alike


def _store(window: Window, vaulted: Vaulted, mean: Vector) -> Token:
    """Seal and store the template of a complete window, and give the token, whose secret only it holds.

    Raises:
        NotAnEmbedding: the captures are no template.
        HandleTaken, StoreError: not stored; nothing changed.
    """
    handle = window.request.handle
    token = Token.create(handle)
    template = make_template(window.captures)
    try:
        sealed = seal(template, mean, token.secret, vaulted.epoch_key, vaulted.binding(handle))
        vaulted.store.add(Record(handle, SHARED, vaulted.pack, sealed))
    except BaseException:
        wipe(token.secret)
        raise
    finally:
        template.fill(0)
        window.forget()
    return token
