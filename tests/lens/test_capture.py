from collections.abc import Callable
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pytest

from appliance.lens.alignment import BadLandmarks
from appliance.lens.camera import Frame
from appliance.lens.capture import CHOICE_TIME, ENROLMENT_SPACING, MAX_CODES, Capture, State
from appliance.lens.detection import BadFrame
from appliance.lens.embedding import BadEmbedding
from appliance.link.framing import Message
from appliance.link.messages import (
    CodeRead,
    Guidance,
    Hint,
    Probe,
)
from tests.lens.scripted import ScriptedFace, ScriptedRecogniser, textured
from tests.lens.test_code import held_up

FRAME_TIME = 0.05


class Look:
    """A capture with a scripted recogniser, a clock, and all that it sent, copied at the time."""

    def __init__(
        self,
        recogniser: ScriptedRecogniser | None = None,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.recogniser = recogniser or ScriptedRecogniser()
        self.seconds = 10.0
        self.sent: list[tuple[float, Message]] = []
        self.probe_bytes: list[bytes] = []
        self.capture = Capture(
            self.recogniser, self._send, face_min_px=60, interrupted=interrupted, now=lambda: self.seconds
        )

    def _send(self, message: Message) -> None:
        if isinstance(message, Probe):
            self.probe_bytes.append(bytes(message.embedding))
        self.sent.append((self.seconds, message))

    def see(self, frame: Frame | None = None, times: int = 1) -> None:
        for _ in range(times):
            self.capture.see(textured() if frame is None else frame.copy())
            self.seconds += FRAME_TIME

    def times(self, kind: type[Message]) -> list[float]:
        return [at for at, message in self.sent if isinstance(message, kind)]


def test_before_a_claim_opens_no_face_is_detected_and_none_embedded() -> None:
    look = Look()
    look.see(times=5)
    look.see(held_up(b"an unknown claim"), times=5)
    assert look.recogniser.detections == 0
    assert look.recogniser.embeddings == 0
    assert look.capture.counts.embeddings == 0
    assert look.capture.counts.frames == 10


def test_a_code_is_passed_on_once() -> None:
    look = Look()
    look.see(held_up(b"token"), times=4)
    look.see(held_up(b"another"))
    look.see(held_up(b"token"))
    assert [message for _, message in look.sent] == [CodeRead(b"token"), CodeRead(b"another")]
    assert look.capture.counts.codes == 2


def test_a_screen_that_plays_codes_gets_no_further_than_a_few() -> None:
    look = Look()
    for number in range(MAX_CODES + 4):
        look.see(held_up(bytes([number]) * 10))
    assert look.capture.counts.codes == MAX_CODES == len(look.sent)


def test_after_a_claim_opened_no_code_is_read() -> None:
    look = Look()
    look.capture.embed(1, hints=False)
    look.see(held_up(b"token"), times=3)
    assert look.times(CodeRead) == []


def test_the_first_good_frame_is_sent_at_once() -> None:
    look = Look()
    look.capture.embed(3, hints=False)
    look.see()
    assert look.times(Probe) == [10.0]
    assert look.probe_bytes[0] == np.full(128, 1 / np.sqrt(128), "<f4").tobytes()


def test_further_probes_are_each_chosen_from_later_frames_and_then_no_more_come() -> None:
    look = Look()
    look.capture.embed(3, hints=False)
    look.see(times=30)
    first, second, third = look.times(Probe)
    assert second - first >= CHOICE_TIME
    assert third - second >= CHOICE_TIME
    assert look.capture.counts.embeddings == look.recogniser.embeddings == 3
    detections = look.recogniser.detections
    look.see(times=5)
    assert look.recogniser.detections == detections


def test_of_the_frames_of_a_choice_the_sharpest_is_embedded() -> None:
    chosen: list[float] = []

    class Watching(ScriptedRecogniser):
        def embed(self, chip: Frame) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
            chosen.append(float(chip.mean()))
            return super().embed(chip)

    look = Look(Watching())
    look.capture.embed(2, hints=False)
    look.see()
    noise = np.random.default_rng(1).standard_normal((480, 640, 1)).repeat(3, axis=2)
    soft = cv2.GaussianBlur(noise, (0, 0), 2.7)
    soft = np.clip(128 + 40 * soft / soft.std(), 0, 255).astype(np.uint8)
    look.see(soft)
    look.see(textured(light=170))
    look.see(soft, times=3)
    assert len(chosen) == 2
    assert abs(chosen[1] - 170) < 5


def test_an_enrolment_spaces_its_captures() -> None:
    look = Look()
    look.capture.embed(5, hints=True)
    look.see(times=60)
    times = look.times(Probe)
    assert len(times) == 5
    assert min(np.diff(times)) >= ENROLMENT_SPACING


def test_in_a_verification_no_hint_is_given() -> None:
    look = Look(ScriptedRecogniser([[]]))
    look.capture.embed(3, hints=False)
    look.see(times=20)
    assert look.sent == []


def test_in_an_enrolment_only_changed_hints_are_given_and_slowly() -> None:
    far, good = [ScriptedFace.of_width(40)], [ScriptedFace.of_width(120)]
    two = [ScriptedFace.of_width(120), ScriptedFace.of_width(80, left=400)]
    look = Look(ScriptedRecogniser([far] * 10 + [[], two] * 10 + [good]))
    look.capture.embed(1, hints=True)
    look.see(times=40)
    hints = [message for _, message in look.sent if isinstance(message, Hint)]
    assert hints[0] == Hint(Guidance.COME_CLOSER)
    assert all(before != after for before, after in pairwise(hints))
    assert min(np.diff(look.times(Hint))) >= 0.3
    assert isinstance(look.sent[-1][1], Probe)


def test_two_faces_give_no_probe() -> None:
    two = [ScriptedFace.of_width(120), ScriptedFace.of_width(60, left=400)]
    look = Look(ScriptedRecogniser([two]))
    look.capture.embed(3, hints=False)
    look.see(times=20)
    assert look.times(Probe) == []
    assert look.recogniser.embeddings == 0


def test_a_later_embed_replaces_the_earlier_one() -> None:
    look = Look()
    look.capture.embed(1, hints=False)
    look.see(times=5)
    look.capture.embed(2, hints=False)
    look.see(times=30)
    assert len(look.times(Probe)) == 3


def test_every_buffer_is_zero_after_use() -> None:
    recogniser = ScriptedRecogniser()
    look = Look(recogniser)
    look.capture.embed(2, hints=False)
    frames = [textured(seed=number) for number in range(12)]
    for frame in frames:
        look.capture.see(frame)
        assert not frame.any()
        look.seconds += FRAME_TIME
    # One chip at most is kept, for the choice that goes on; `end` overwrites it as well.
    look.capture.embed(2, hints=False)
    look.capture.see(textured())
    look.seconds += FRAME_TIME
    look.capture.see(textured())
    look.capture.end()
    assert recogniser.embeddings >= 3
    assert len(recogniser.handed_out) > 20
    assert not any(buffer.any() for buffer in recogniser.handed_out)
    assert len(set(look.probe_bytes)) == 1
    assert any(look.probe_bytes[0])


def test_a_frame_is_overwritten_even_when_a_step_fails() -> None:
    def fail(_frame: Frame) -> None:
        raise RuntimeError("a step")

    look = Look(ScriptedRecogniser(on_detect=fail))
    look.capture.embed(1, hints=False)
    frame = textured()
    with pytest.raises(RuntimeError):
        look.capture.see(frame)
    assert not frame.any()


def test_a_probe_is_overwritten_even_when_nobody_takes_it() -> None:
    recogniser = ScriptedRecogniser()

    def gone(_message: Message) -> None:
        raise ConnectionError

    capture = Capture(recogniser, gone, face_min_px=60)
    capture.embed(1, hints=False)
    with pytest.raises(ConnectionError):
        capture.see(textured())
    assert recogniser.embeddings == 1
    assert not any(buffer.any() for buffer in recogniser.handed_out)


def test_once_vault_has_spoken_a_frame_goes_no_further() -> None:
    recogniser = ScriptedRecogniser()
    look = Look(recogniser, interrupted=lambda: True)
    look.capture.embed(3, hints=False)
    look.see(times=5)
    assert recogniser.detections == 5
    assert recogniser.embeddings == 0
    assert not any(buffer.any() for buffer in recogniser.handed_out)


def test_a_face_that_no_chip_or_embedding_follows_from_is_passed_over() -> None:
    class Puzzled(ScriptedRecogniser):
        calls = 0

        def align(self, frame: Frame, landmarks: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Frame:
            self.calls += 1
            if self.calls == 1:
                raise BadLandmarks("five points in one place")
            return super().align(frame, landmarks)

        def embed(self, chip: Frame) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
            if self.calls == 2:
                raise BadEmbedding("no direction")
            return super().embed(chip)

    look = Look(Puzzled())
    look.capture.embed(1, hints=False)
    look.see(times=3)
    assert len(look.times(Probe)) == 1


def test_an_ended_look_only_overwrites() -> None:
    look = Look()
    look.capture.end()
    look.capture.embed(3, hints=False)
    frame = held_up(b"token")
    look.capture.see(frame)
    assert not frame.any()
    assert look.sent == []
    assert look.recogniser.detections == 0
    assert look.capture.state is State.ENDED


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 700, 3), (700, 1, 3), (17, 16, 3)])
def test_a_frame_of_any_size_is_seen_and_overwritten(shape: tuple[int, ...]) -> None:
    look = Look(ScriptedRecogniser(script=[[]]))
    for frame in (np.full(shape, 255, np.uint8), np.full((2 * shape[0], *shape[1:]), 9, np.uint8)[::-2]):
        look.capture.see(frame)
        assert not frame.any()
    look.capture.embed(1, hints=False)
    frame = np.full(shape, 255, np.uint8)
    look.capture.see(frame)
    assert not frame.any()
    assert look.recogniser.detections == 1


@pytest.mark.parametrize(
    "frame",
    [np.full((9, 9), 7, np.uint8), np.full((9, 9, 4), 7, np.uint8), np.full((9, 9, 3), 7, np.float32)],
    ids=["grey", "alpha", "floating point"],
)
def test_an_array_that_is_no_frame_is_refused_and_overwritten_all_the_same(frame: Any) -> None:
    look = Look()
    with pytest.raises(BadFrame, match="a frame must"):
        look.capture.see(frame)
    assert not frame.any()
    with pytest.raises(BadFrame, match="a frame must"):
        look.capture.see(None)  # type: ignore[arg-type]
