"""The lens process: one socket, on which vault alone asks for one look at a time.

The models are loaded and warm before the first press; the camera is opened by a `Look` and by nothing
else. However a look ends (finished, hung up, torn, out of time, an error, a stop), the camera is closed
and the buffers are overwritten before anything is said about it.

The main thread only watches: it takes SIGTERM, and it ends the process when a look outlives its limit,
since a camera driver that hangs in the kernel is freed by nothing less. systemd starts it again.

With recognition switched off the process stays up, so that its unit is not restarted for ever. It loads
no model and has no camera: every look is answered by `LensFailed(CAMERA_ABSENT)`.
"""

import contextlib
import os
import select
import socket
import sys
import threading
import traceback
from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from appliance import process
from appliance.journal import Event, Journal
from appliance.lens.alignment import align
from appliance.lens.camera import Camera, CameraAbsent, CameraBroke, Frame, open_camera
from appliance.lens.capture import Capture, Recogniser
from appliance.lens.detection import BadFrame, DetectedFace, FaceDetector
from appliance.lens.embedding import FaceEmbedder
from appliance.link.framing import Message, read_message, send_message
from appliance.link.messages import (
    TO_LENS,
    CameraClosed,
    CameraOpen,
    Embed,
    Finish,
    LensFailed,
    LensTrouble,
    Look,
)
from appliance.link.sockets import Deadline, LinkError, Malformed, WrongPeer, accept, listen, user_ids
from appliance.settings import Settings

GRACE = 2.0
"""Seconds beyond an attempt's own time before lens ends a look, and again before the watchdog ends lens."""
FIRST_WORD = 1.0
"""Seconds in which a caller must say `Look`."""
WHOLE_MESSAGE = 0.05
"""Seconds for the rest of a message whose first byte is there: five bytes come at once or not at all."""
SENDING = 0.5
"""Seconds that vault may take to make room for a message."""
FRAME_WAIT = 0.015
"""Seconds to wait for a frame between two glances at the socket."""
STUCK = 70
"""Exit status when the watchdog ended the process."""


class _HungUp(Exception):
    """Vault closed the connection between two messages."""


class _Over(Exception):
    """Lens ends the look by itself."""

    def __init__(self, trouble: LensTrouble) -> None:
        super().__init__(trouble.name)
        self.trouble = trouble


class LensService:
    """Serves looks, one at a time, until `stop`."""

    def __init__(
        self,
        camera: Camera,
        recogniser: Recogniser | None,
        journal: Journal,
        *,
        callers: Collection[int],
        attempt_time: float,
        face_min_px: int,
    ) -> None:
        """A service that has not begun.

        Args:
            camera: closed; opened for each look.
            recogniser: steps 2 to 4, or None when recognition is off: then no look opens the camera.
            journal: the zone's.
            callers: user ids that may ask for a look.
            attempt_time: seconds that an attempt may last, in an enrolment window too; a look ends `GRACE`
                later, counted from its `Look`, whatever vault says after it.
            face_min_px: the least width of a face, in pixels.
        """
        self._camera = camera
        self._recogniser = recogniser
        self._journal = journal
        self._callers = callers
        self._look_limit = attempt_time + GRACE
        self._face_min_px = face_min_px
        self._stopping = threading.Event()
        self._wake, self._waker = socket.socketpair()
        self._last_moment: Deadline | None = None
        self._opened = False

    def stop(self) -> None:
        """End: a look under way ends within one step, and `serve` returns. From any thread or a signal."""
        self._stopping.set()
        with contextlib.suppress(OSError):  # the other end is closed when serving has ended already
            self._waker.send(b"\0", socket.MSG_DONTWAIT)

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    @property
    def stuck(self) -> bool:
        """Whether a look goes on that should have ended `GRACE` ago: only the end of the process helps."""
        last_moment = self._last_moment
        return last_moment is not None and last_moment.passed

    def serve(self, listener: socket.socket) -> None:
        """Answer the calls at `listener`, one after the other, until `stop`."""
        try:
            while not self.stopping:
                select.select([listener, self._wake], [], [])
                if self.stopping:
                    break
                try:
                    connection = accept(listener, self._callers)
                except WrongPeer:
                    self._journal.note(Event.WRONG_PEER)
                except OSError as error:
                    # A caller that is gone again, or no file handle left: neither may spin this loop.
                    _say(f"a caller could not be accepted: {error.strerror or error}")
                    self._stopping.wait(0.1)
                else:
                    with connection:
                        self._attend(connection)
        finally:
            self._camera.close()
            self._wake.close()
            self._waker.close()

    def _attend(self, connection: socket.socket) -> None:
        """One caller: its first word, its look, and what is said at the end."""
        try:
            if not _readable(connection, FIRST_WORD, self._wake) or self.stopping:
                return
            if not isinstance(self._next_message(connection), Look):
                raise Malformed("the first message must be Look")
        except _HungUp:
            return
        except LinkError:
            self._journal.note(Event.HOSTILE_MESSAGE)
            return
        if self._recogniser is None:
            self._last_word(connection, LensFailed(LensTrouble.CAMERA_ABSENT))
            return
        limit = Deadline(self._look_limit)
        self._last_moment = Deadline(self._look_limit + GRACE)
        self._opened = False
        capture = Capture(
            self._recogniser,
            lambda message: _tell(connection, message),
            face_min_px=self._face_min_px,
            interrupted=lambda: _readable(connection, 0, self._wake),
        )
        try:
            ending = self._look(connection, capture, limit)
        finally:
            # Before anything is said: what was seen is gone, and the camera is closed.
            capture.end()
            self._camera.close()
            self._last_moment = None
        counts = capture.counts
        if ending is not None:
            self._last_word(connection, ending)
        if isinstance(ending, LensFailed):
            self._journal.note(Event.FAILED, trouble=ending.trouble)
        if self._opened:
            self._journal.note(
                Event.CAMERA_CLOSED, frames=counts.frames, codes=counts.codes, embeddings=counts.embeddings
            )

    def _look(self, connection: socket.socket, capture: Capture, limit: Deadline) -> Message | None:
        """Run one look; how it ended, as vault is to hear it, or None when nobody is left to hear."""
        try:
            self._camera.open()
            self._opened = True
            self._journal.note(Event.CAMERA_OPENED)
            _tell(connection, CameraOpen())
            self._show(connection, capture, limit)
        except _Over as over:
            return LensFailed(over.trouble)
        except _HungUp:
            return None
        except LinkError:
            self._journal.note(Event.HOSTILE_MESSAGE)
            return LensFailed(LensTrouble.INTERNAL)
        except (CameraAbsent, CameraBroke, BadFrame) as error:
            _say(str(error))
            absent = isinstance(error, CameraAbsent)
            return LensFailed(LensTrouble.CAMERA_ABSENT if absent else LensTrouble.CAMERA_BROKE)
        except Exception as error:  # noqa: BLE001 - whatever a picture did to a library, the next look counts
            # Where it happened, not what it said: a library's message may quote what it was given.
            place = traceback.extract_tb(error.__traceback__)[-1]
            _say(f"a look failed: {type(error).__name__} at {Path(place.filename).name}:{place.lineno}")
            return LensFailed(LensTrouble.INTERNAL)
        return CameraClosed()

    def _show(self, connection: socket.socket, capture: Capture, limit: Deadline) -> None:
        """Frames to `capture`, and messages from vault in between, until `Finish`."""
        while True:
            said = _readable(connection, 0)
            if said:
                message = self._next_message(connection)
                if isinstance(message, Finish):
                    return
                if not isinstance(message, Embed):
                    raise Malformed("a second Look on one connection")
                capture.embed(message.probes, hints=bool(message.hints))
            # After each message as before each frame: no stream of messages makes a look longer.
            if self.stopping:
                raise _Over(LensTrouble.INTERNAL)
            if limit.passed:
                raise _Over(LensTrouble.OUT_OF_TIME)
            frame = None if said else self._camera.read(FRAME_WAIT)
            if frame is not None:
                capture.see(frame)

    def _next_message(self, connection: socket.socket) -> Message:
        """The message whose first byte is there."""
        try:
            if not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                raise _HungUp
        except OSError as error:
            raise _HungUp from error
        return read_message(connection, TO_LENS, Deadline(WHOLE_MESSAGE))

    def _last_word(self, connection: socket.socket, message: Message) -> None:
        with contextlib.suppress(_HungUp):  # the caller may be gone, and nothing depends on it
            _tell(connection, message)


class PackRecogniser:
    """Steps 2 to 4 with the models of an installed pack."""

    def __init__(self, detector: FaceDetector, embedder: FaceEmbedder) -> None:
        """The steps of a loaded pack."""
        self._detector = detector
        self._embedder = embedder

    def detect(self, frame: Frame) -> list[DetectedFace]:
        """See `Recogniser.detect`."""
        return self._detector.detect(frame)

    def align(self, frame: Frame, landmarks: NDArray[np.float32]) -> Frame:
        """See `Recogniser.align`."""
        return align(frame, landmarks, self._embedder.layout)

    def embed(self, chip: Frame) -> NDArray[np.float32]:
        """See `Recogniser.embed`."""
        return self._embedder.embed(chip)


def run(settings: Settings) -> int:
    """Be the lens until SIGTERM or SIGINT. Main thread only.

    Returns:
        The exit status, see `process.run_zone`: 2 when the configuration is wrong or the pack is not
        installed, 1 when the pack is damaged or serving failed. A look that hangs ends the process with
        status 70, without returning.
    """
    _quieten_opencv()
    return process.run_zone("lens", lambda: _run(settings))


def _run(settings: Settings) -> int:
    journal = process.begin(settings, "lens")
    service = LensService(
        open_camera(settings.camera),
        _load_recogniser(settings),
        journal,
        callers=user_ids(settings.users.vault),
        attempt_time=settings.recognition.attempt_time,
        face_min_px=settings.recognition.face_min_px,
    )
    with listen(settings.socket("lens/look")) as listener:
        journal.note(Event.STARTED)
        process.on_stop(service.stop)
        clean = _serve_watched(service, listener)
    journal.note(Event.STOPPED)
    journal.close()
    return 0 if clean else 1


def _serve_watched(service: LensService, listener: socket.socket) -> bool:
    """Serve in a thread of its own, and end the process if a look hangs; whether serving ended in order."""
    outcome: list[bool] = []

    def serve() -> None:
        service.serve(listener)
        outcome.append(True)

    worker = threading.Thread(target=serve, name="looks", daemon=True)
    worker.start()
    stop_limit: Deadline | None = None
    while worker.is_alive():
        worker.join(0.5)
        if stop_limit is None and service.stopping:
            stop_limit = Deadline(GRACE)
        if service.stuck or (stop_limit is not None and stop_limit.passed and worker.is_alive()):
            _say("the camera hangs: ending the process, which frees it")
            os._exit(STUCK)
    return bool(outcome)


def _load_recogniser(settings: Settings) -> Recogniser | None:
    """The pack's steps, loaded and warm; None when recognition is off."""
    recognition = settings.recognition
    if not recognition.enabled:
        return None
    # Only here: a door without recognition must not pay for the models' libraries.
    from appliance.lens.models import load_pack  # noqa: PLC0415

    pack = load_pack(
        settings.paths.packs, recognition.pack, acknowledged=recognition.acknowledge, detector_size=None
    )
    pack.warm()
    return PackRecogniser(pack.detector, pack.embedder)


def _tell(connection: socket.socket, message: Message) -> None:
    """Send it; a caller that is gone, or does not read, has hung up."""
    try:
        send_message(connection, message, Deadline(SENDING))
    except LinkError as error:
        raise _HungUp from error


def _readable(connection: socket.socket, seconds: float, *others: socket.socket) -> bool:
    """Whether `connection` (or one of `others`) has something to read, or gets it within `seconds`."""
    ready, _, _ = select.select([connection, *others], [], [], seconds)
    return bool(ready)


def _quieten_opencv() -> None:
    """One thread, as measured, and no messages of its own on stderr."""
    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def _say(line: str) -> None:
    print(f"drempel lens: {line}", file=sys.stderr, flush=True)
