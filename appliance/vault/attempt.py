"""One attempt (design §3): a claim, one template, at most three probes, one bit.

Every refusal is given at the same time after the claim was read, and with the same guidance, whatever its
reason; only a match is answered at once.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

from appliance.link.messages import (
    CodeRead,
    Guidance,
    Probe,
)
from appliance.link.sockets import Deadline, LinkError
from appliance.settings import Recognition
from appliance.vault.claims import Claimed, Vaulted, read_credential, read_token
from appliance.vault.comparison import NotAnEmbedding, Vector, read_embedding
from appliance.vault.credentials import Credential
from appliance.vault.keys import wipe
from appliance.vault.look import LensGone, LensLook, drop, wait_until
from appliance.vault.store import StoreError
from appliance.vault.token import Token

CLOSING_MARGIN = 0.75
"""Seconds before the answer at which the camera begins to close, for every refusal alike.

It holds the frame that lens is working on, which takes longer for an opened claim, and the closing itself.
"""
COMPARING_MARGIN = 0.02
"""Seconds before that at which the last probe may come, so that comparing it delays no closing."""
LATE_STEP = 0.5
"""Seconds: an answer that comes late all the same comes at a whole number of these after its time."""


@dataclass(slots=True)
class _Tried:
    """What came of an opened claim: its handle, and how many faces were compared with it."""

    handle: bytes = b""
    compared: int = 0


@dataclass(frozen=True, slots=True)
class Decider:
    """What decides: the pack's mean embedding (d,), and the score that the site's FMR asks for."""

    mean: Vector
    threshold: float

    def matches(self, claimed: Claimed, probe: Probe) -> bool:
        """Compare one probe with the one template; the probe is overwritten.

        Raises:
            NotAnEmbedding: the probe's bytes are none.
        """
        embedding = take_embedding(probe, len(self.mean))
        try:
            return claimed.record.score(embedding, self.mean) >= self.threshold
        finally:
            embedding.fill(0)


def take_embedding(probe: Probe, dimension: int) -> Vector:
    """The embedding of a probe, and the probe's own bytes overwritten.

    Raises:
        NotAnEmbedding: the probe's bytes are none.
    """
    try:
        return read_embedding(probe.embedding, dimension)
    finally:
        if isinstance(probe.embedding, bytearray):
            wipe(probe.embedding)


def verify(
    look: LensLook,
    vaulted: Vaulted,
    decider: Decider,
    settings: Recognition,
    say: Callable[[Guidance], None],
    whole: Deadline,
    presented: bytearray | None = None,
) -> bytes | None:
    """Verify the person before the lens. When this returns, the camera is closed.

    The claim is what door was shown (`presented`, overwritten here), or else a token held up to the camera.
    It must come while there is still `answer_time` left, so that every refusal takes just that.

    Returns:
        The handle of the claim that matched; None for every kind of refusal, at its fixed time.

    Raises:
        DoorGone: nobody waits for the answer.
        LensGone, LinkError: lens failed before a token was read; the attempt ends without a match.
    """
    claim: Token | Credential | None
    if presented:
        claim = read_credential(presented, vaulted.epochs.index_key)
    else:
        say(Guidance.SHOW_TOKEN)
        claim = _wait_for_token(look, Deadline(whole.remaining - settings.answer_time))
    if claim is None:
        look.finish()
        say(Guidance.USE_BADGE)
        return None
    # From here a refusal takes the same time and says the same, whatever its reason.
    answer_at = Deadline(settings.answer_time)
    closing_at = Deadline(settings.answer_time - CLOSING_MARGIN)
    compare_until = Deadline(settings.answer_time - CLOSING_MARGIN - COMPARING_MARGIN)
    say(Guidance.LOOK_HERE)
    handle: bytes | None = None
    tried = _Tried()
    try:
        try:
            if _verify_claim(look, vaulted, decider, claim, settings.probes, compare_until, tried):
                handle = tried.handle
            else:
                look.pause(closing_at)
            look.finish()
        except (LensGone, LinkError) as error:
            print(f"drempel vault: {error}", file=sys.stderr)
            handle = None
        if handle is None:
            _sleep_until(answer_at)
            say(Guidance.USE_BADGE)
    finally:
        if tried.handle and not tried.compared:
            # No face came to be compared, so it was no attempt at this claim. Last, so that nothing of it can
            # be seen in the time of the answer.
            _refund(vaulted, tried.handle)
    return handle


def _verify_claim(
    look: LensLook,
    vaulted: Vaulted,
    decider: Decider,
    claim: Token | Credential,
    probes: int,
    until: Deadline,
    tried: _Tried,
) -> bool:
    """Whether a claim opens, and one of at most `probes` probes matches; `tried` is filled in.

    Raises:
        DoorGone, LensGone, LinkError: see `LensLook`.
    """
    try:
        claimed = vaulted.open(claim)
    except (StoreError, MemoryError) as error:
        # A refusal like every other, at its time, the camera's lamp included: what failed is for the log.
        print(f"drempel vault: {error or 'no memory for the brake'}", file=sys.stderr)
        return False
    if claimed is None:
        return False
    tried.handle = claimed.handle
    return _compare(look, claimed, decider, probes, until, tried)


def _refund(vaulted: Vaulted, handle: bytes) -> None:
    """Take back what was charged, now that nothing of it can be seen in the time of the answer."""
    try:
        vaulted.limits.refund(handle)
    except StoreError as error:
        # The charge stands, which errs on the side of a wait.
        print(f"drempel vault: {error}", file=sys.stderr)


def _sleep_until(answer_at: Deadline) -> None:
    """Sleep until the answer is due; where that is past, until the next whole step after it."""
    late = answer_at.overdue
    wait_until(answer_at if late <= 0 else Deadline(LATE_STEP - late % LATE_STEP))


def _wait_for_token(look: LensLook, deadline: Deadline) -> Token | None:
    while not deadline.passed:
        message = look.next(deadline)
        if isinstance(message, CodeRead):
            token = read_token(bytearray(message.code))
            if isinstance(message.code, bytearray):
                wipe(message.code)
            if token is not None:
                return token
    return None


def _compare(
    look: LensLook, claimed: Claimed, decider: Decider, probes: int, deadline: Deadline, tried: _Tried
) -> bool:
    """Whether one of at most `probes` probes matches; the template is overwritten in any case."""
    try:
        look.embed(probes, hints=False)
        while tried.compared < probes and not deadline.passed:
            message = look.next(deadline)
            if not isinstance(message, Probe):
                drop(message)
                continue
            tried.compared += 1
            try:
                if decider.matches(claimed, message):
                    return True
            except NotAnEmbedding:
                # A lens that sends nonsense gets no further word in this attempt.
                return False
        return False
    finally:
        claimed.forget()
