"""Reads damaged pictures and odd frames, and says of each what came of it: one process, so that it may die.

`python -m tests.system.damage_worker PACKS PORTRAIT FIRST END`: on standard output a line `ready`; then, for
each case, its number before it, and after it a line of JSON.
"""

import json
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from appliance.evaluation.calibration import as_camera
from appliance.lens.camera.interface import Frame
from appliance.lens.camera.pictures import BadPicture, read_picture
from appliance.lens.camera.replay import fit
from appliance.lens.capture import Capture
from appliance.lens.detection import BadFrame
from appliance.lens.models import load_pack
from appliance.lens.service import PackRecogniser
from appliance.link.framing import Message
from tests.damaged import Damage, odd_frame

ODD_FRAMES = 20
"""Each n-th case is a frame and no file."""


class Steps:
    """The frame path: the QR reader first, then detection, gates, alignment and embedding."""

    def __init__(self, packs: Path) -> None:
        pack = load_pack(packs, "edge", acknowledged=["edge"], detector_size=None)
        pack.warm()
        self._recogniser = PackRecogniser(pack.detector, pack.embedder)
        self.sent: list[str] = []

    def take(self, frame: Frame) -> None:
        """Everything that lens does with a frame, before and after a claim."""
        capture = Capture(self._recogniser, self._note, face_min_px=60)
        try:
            capture.see(frame.copy())
            capture.embed(1, hints=True)
            capture.see(frame)
        finally:
            capture.end()

    def _note(self, message: Message) -> None:
        self.sent.append(type(message).__name__)


def read_case(number: int, damage: Damage, steps: Steps) -> dict[str, Any]:
    """Case `number`: what it was, how it ended, and what the frame path said."""
    steps.sent.clear()
    if number % ODD_FRAMES == ODD_FRAMES - 1:
        kind, array, fits = odd_frame(number // ODD_FRAMES)
        before = time.perf_counter()
        ending = "decoded"
        try:
            steps.take(array)  # type: ignore[arg-type]
        except BadFrame as error:
            ending = "refused"
            if fits:
                raise AssertionError(f"{kind} {array.shape} was refused") from error
        else:
            if not fits:
                raise AssertionError(f"{kind} {array.dtype} {array.shape} was taken")
        return {"kind": f"frame: {kind}", "file": "", "ending": ending, "ms": _since(before)}
    kind, name, content = damage.file(number)
    before = time.perf_counter()
    try:
        picture = read_picture(content)
    except BadPicture as error:
        shown = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if "\n" in str(error) or len(str(error)) > 250 or shown:
            raise AssertionError(f"a refusal is one line of its own: {error!r}") from error
        return {"kind": kind, "file": name, "ending": "refused", "ms": _since(before), "says": str(error)}
    reading = _since(before)
    if (
        picture.dtype != np.uint8
        or picture.ndim != 3
        or not picture.flags.c_contiguous
        or not picture.flags.owndata
    ):
        raise AssertionError(f"{picture.dtype} {picture.shape} {picture.flags}")
    steps.take(fit(picture, 640, 480))
    if number % 4 == 0:
        # The frame path meets the picture in its own size, too, and the evaluation's frame of it.
        steps.take(as_camera(picture))
        steps.take(picture)
    return {
        "kind": kind,
        "file": name,
        "ending": "decoded",
        "ms": _since(before),
        "reading": reading,
        "sent": list(steps.sent),
    }


def _since(before: float) -> float:
    return (time.perf_counter() - before) * 1000


def main(packs: Path, portrait: Path, first: int, end: int) -> None:
    """Run the cases from `first` up to `end`."""
    cv2.setNumThreads(1)
    damage = Damage(read_picture(portrait.read_bytes()))
    steps = Steps(packs)
    warnings.simplefilter("error")
    print("ready", flush=True)
    for number in range(first, end):
        print(number, flush=True)
        try:
            said = read_case(number, damage, steps)
        except Exception:  # noqa: BLE001 - whatever it is, the test is told of it with the number
            said = {"kind": "", "file": "", "ending": "error", "ms": 0.0, "says": traceback.format_exc()}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
