"""One look, in its order: first the claim, then the face. Knows no socket and no camera.

Until vault says `Embed`, frames go to the QR reader alone: no face is detected and none is embedded, since
that would be biometric processing without a ground. After it, frames are detected, judged, aligned and
embedded, and no code is read any more.

What is overwritten with zeros, as soon as it has served and at the latest in `end`: each frame (the
camera's buffer), boxes and landmarks, each aligned chip, its grey copies and its edges while it is judged,
the input that we make for dlib's network, and each embedding after it was sent (the network's answer is
normalised in place, so there is no other).

What is not ours and may linger until its memory is used again:

- OpenCV's scratch buffers inside resize and warp;
- insightface's: the detector's shrunk frame (`det_img`), the blobs that it makes of that and of an ArcFace
  chip, and SCRFD's scores, boxes and landmarks before overlapping ones are dropped;
- onnxruntime's arena: inputs and activations of the last inference;
- the few numbers that alignment and the gates work out of five landmarks;
- zxing-cpp's binarised copy, and its `bytes` and ours of a code;
- the kernel's V4L2 or libcamera buffers, and the socket's own queue until vault has read it.
"""

import enum
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from appliance.lens.alignment import BadLandmarks
from appliance.lens.camera.interface import Frame
from appliance.lens.code import read_codes
from appliance.lens.detection import check_frame
from appliance.lens.embedding import BadEmbedding
from appliance.lens.quality import Face, Verdict, judge_chip, judge_faces, score, yaw
from appliance.link.framing import Message
from appliance.link.messages import (
    CodeRead,
    Guidance,
    Hint,
    Probe,
)

MAX_CODES = 8
"""Codes passed on in one look; a screen that plays hundreds gets no further."""
CHOICE_TIME = 0.15
"""Seconds over which the best frame is chosen, for each probe after the first: two frames or more."""
ENROLMENT_SPACING = 0.2
"""Seconds between captures of an enrolment at least, so that a template sees more than one moment."""
HINT_SPACING = 0.35
"""Seconds between two hints at least: nobody reads faster."""


class Recogniser(Protocol):
    """Steps 2 to 4: detection, normalisation, numerical representation."""

    def detect(self, frame: Frame) -> Sequence[Face]:
        """The faces in `frame`, largest first."""
        ...

    def align(self, frame: Frame, landmarks: NDArray[np.float32]) -> Frame:
        """The face at `landmarks`, upright and of the embedder's size, in an array of its own.

        Raises:
            BadLandmarks: no face can be laid on them.
        """
        ...

    def embed(self, chip: Frame) -> NDArray[np.float32]:
        """The embedding of an aligned face, of length 1, in an array of its own.

        Raises:
            BadEmbedding: the network's answer has no direction.
        """
        ...


class State(enum.Enum):
    """Where a look stands."""

    WAITING_FOR_CLAIM = "frames go to the QR reader alone"
    EMBEDDING = "frames may become probes"
    ENDED = "nothing is held, and frames are only overwritten"


@dataclass(slots=True)
class Counts:
    """What one look did, in numbers; the journal keeps them."""

    frames: int = 0
    codes: int = 0
    embeddings: int = 0


class Capture:
    """One look: give it frames with `see`; it gives messages for vault to `send`."""

    def __init__(
        self,
        recogniser: Recogniser,
        send: Callable[[Message], None],
        *,
        face_min_px: int,
        interrupted: Callable[[], bool] = lambda: False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """A look that waits for a claim.

        Args:
            recogniser: steps 2 to 4.
            send: passes a message on; when it returns, the message's buffer is overwritten.
            face_min_px: the least width of a face, in pixels of the frame.
            interrupted: asked between the steps; once it says True, the frame goes no further.
            now: a monotonic clock, in seconds.
        """
        self.state = State.WAITING_FOR_CLAIM
        self.counts = Counts()
        self._recogniser = recogniser
        self._send = send
        self._face_min_px = face_min_px
        self._interrupted = interrupted
        self._now = now
        self._codes: set[bytes] = set()
        self._probes_left = 0
        self._hints = False
        self._best: Frame | None = None
        self._best_score = 0.0
        self._choice_opens = 0.0
        self._choice_closes = 0.0
        self._hint_given: Guidance | None = None
        self._hint_at = 0.0

    def embed(self, probes: int, *, hints: bool) -> None:
        """From the next frame on, faces are embedded, for up to `probes` probes; the last call counts.

        With `hints` (an enrolment window) the person is told what to do better, and captures are spaced.
        """
        if self.state is State.ENDED:
            return
        self.state = State.EMBEDDING
        self._codes.clear()
        self._probes_left = probes
        self._hints = hints
        self._drop_best()
        # The first good frame is sent at once: a match is answered at once.
        self._choice_opens = self._choice_closes = self._now()

    def see(self, frame: Frame) -> None:
        """Take one frame through the steps that the state allows, and overwrite it.

        Raises:
            BadFrame: it is not (height, width, 3) uint8, or is empty: such a camera cannot be used.
        """
        try:
            check_frame(frame)
            self.counts.frames += 1
            if self.state is State.WAITING_FOR_CLAIM:
                self._read_codes(frame)
            elif self.state is State.EMBEDDING and self._probes_left:
                self._look_for_face(frame)
        finally:
            if isinstance(frame, np.ndarray):
                frame.fill(0)

    def end(self) -> None:
        """Overwrite what is held; frames that still come are overwritten only."""
        self.state = State.ENDED
        self._probes_left = 0
        self._codes.clear()
        self._drop_best()

    def _read_codes(self, frame: Frame) -> None:
        for code in read_codes(frame):
            if code not in self._codes and len(self._codes) < MAX_CODES:
                self._codes.add(code)
                self.counts.codes += 1
                self._send(CodeRead(code))

    def _look_for_face(self, frame: Frame) -> None:
        now = self._now()
        if now < self._choice_opens:
            return
        verdict = self._examine(frame)
        if self._best is not None and now >= self._choice_closes:
            self._send_best(now)
        elif verdict not in {None, Verdict.GOOD}:
            self._give_hint(verdict, now)

    def _examine(self, frame: Frame) -> Verdict | None:
        """Detection, gates and normalisation; a good face is kept if it is the best so far."""
        faces = self._recogniser.detect(frame)
        try:
            if self._interrupted():
                return None
            verdict = judge_faces(faces, frame, self._face_min_px)
            if verdict is not Verdict.GOOD:
                return verdict
            turned = yaw(faces[0].landmarks)
            chip = self._recogniser.align(frame, faces[0].landmarks)
        except BadLandmarks:
            return Verdict.NO_FACE
        finally:
            for face in faces:
                face.box.fill(0)
                face.landmarks.fill(0)
        verdict, sharpness = judge_chip(chip)
        quality = score(sharpness, turned)
        if verdict is Verdict.GOOD and (self._best is None or quality > self._best_score):
            self._drop_best()
            self._best, self._best_score = chip, quality
        else:
            chip.fill(0)
        return verdict

    def _send_best(self, now: float) -> None:
        chip, self._best = self._best, None
        if chip is None:
            return
        try:
            if self._interrupted():
                return
            self.counts.embeddings += 1
            embedding = self._recogniser.embed(chip)
        except BadEmbedding:
            # A chip that means nothing to the network; a later frame may.
            return
        finally:
            chip.fill(0)
        try:
            # As it lies in memory, which is little-endian on every board that runs this; no copy is made.
            self._send(Probe(embedding.data.cast("B")))
        finally:
            embedding.fill(0)
        self._probes_left -= 1
        self._hint_given = None
        self._choice_opens = now + (ENROLMENT_SPACING if self._hints else 0.0)
        self._choice_closes = self._choice_opens + CHOICE_TIME

    def _give_hint(self, verdict: Verdict, now: float) -> None:
        guidance = verdict.guidance
        if not self._hints or guidance is self._hint_given or now - self._hint_at < HINT_SPACING:
            return
        self._hint_given, self._hint_at = guidance, now
        self._send(Hint(guidance))

    def _drop_best(self) -> None:
        if self._best is not None:
            self._best.fill(0)
            self._best = None
