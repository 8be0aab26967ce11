"""What runs in a peer's environment: `python -I worker.py PEER FRAMES.npy [PACK]`. No code of Drempel's.

Once ready it writes a line of JSON; then it reads the index of a frame a line, does steps 2 to 5 on that
frame, and writes a line of JSON: wall-clock and processor time in nanoseconds, how many faces it found, and
the score. It ends with its input.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

Attempt = Callable[[Any], tuple[int, float]]
"""Of one frame: how many faces it found, and the score."""


def main() -> None:
    """Serve the peer that the command line names."""
    # Libraries print on standard output, which is ours alone.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(**words: Any) -> None:
        answers.write(json.dumps(words) + "\n")
        answers.flush()

    peer, path, *pack = sys.argv[1:]
    frames = np.load(path)
    attempt = PEERS[peer](frames, *pack)
    answer(ready=True, version=version(peer))
    for line in sys.stdin:
        frame = frames[int(line)]
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        faces, score = attempt(frame)
        wall_ns, cpu_ns = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
        answer(wall_ns=wall_ns, cpu_ns=cpu_ns, faces=faces, score=score)


def face_recognition(frames: Any) -> Attempt:
    """The HOG detector of dlib with its default upsampling, its five landmarks, its ResNet, and a distance.

    Args:
        frames: (n, height, width, 3) uint8, BGR. The face of the first one is the known one.

    Returns:
        A function of one frame: how many faces, and the least distance.
    """
    import face_recognition as peer  # noqa: PLC0415 - one peer an environment

    # It wants RGB. In the order of its memory, as a caller who decodes pictures for it has them: the turning
    # is not counted.
    frames[:] = frames[..., ::-1].copy()
    known = peer.face_encodings(frames[0], peer.face_locations(frames[0]))[:1]

    def attempt(frame: Any) -> tuple[int, float]:
        places = peer.face_locations(frame)
        encodings = peer.face_encodings(frame, places)
        distances = [float(peer.face_distance(known, each)[0]) for each in encodings]
        return len(encodings), min(distances, default=float("inf"))

    return attempt


def insightface(frames: Any, pack: str) -> Attempt:
    """`FaceAnalysis.get` at 320 x 320, detection and recognition, and a cosine.

    Args:
        frames: (n, height, width, 3) uint8, BGR. The face of the first one is the known one.
        pack: a folder that FaceAnalysis can load.

    Returns:
        A function of one frame: how many faces, and the greatest cosine.
    """
    import cv2  # noqa: PLC0415 - one peer an environment
    import onnxruntime  # noqa: PLC0415
    from insightface.app import FaceAnalysis  # noqa: PLC0415

    cv2.setNumThreads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    app = FaceAnalysis(
        name=pack,
        allowed_modules=["detection", "recognition"],
        providers=["CPUExecutionProvider"],
        sess_options=options,
    )
    app.prepare(ctx_id=-1, det_size=(320, 320))
    known = app.get(frames[0])[0].normed_embedding

    def attempt(frame: Any) -> tuple[int, float]:
        faces = app.get(frame)
        return len(faces), max((float(known @ each.normed_embedding) for each in faces), default=-1.0)

    return attempt


PEERS: dict[str, Callable[..., Attempt]] = {"face_recognition": face_recognition, "insightface": insightface}

if __name__ == "__main__":
    main()
