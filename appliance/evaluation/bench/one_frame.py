"""What a door computes for one frame, each step as often as asked: run under a counter of instructions.

`python -m appliance.evaluation.bench.one_frame PACKS FRAME DETECTION GATES ALIGNMENT EMBEDDING COMPARISON`:
FRAME is a .npy file, (height, width, 3) uint8, BGR, with one face; the numbers say how often each step runs,
once at least. Prints what came out as JSON, so that its caller sees the same on two kinds of processor.

`appliance.evaluation.bench.instructions` runs it with different numbers: what is loaded, warmed and printed
is in each of its counts, and falls out of their differences.
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np

from appliance.lens.alignment import align
from appliance.lens.models import load_pack
from appliance.lens.quality import judge_chip, judge_faces, yaw
from appliance.lens.quality import score as quality_of
from appliance.vault.comparison import make_template, score

STEPS = ("detection", "gates", "alignment", "embedding", "comparison")
"""In the order of the command line. `gates` judge the face before, and the chip after the alignment."""
PACK = "edge"
_FACE_MIN_PX = 60  # as the settings have it


def main(packs: Path, frame_file: Path, times: dict[str, int]) -> None:
    """Run each step as often as `times` says (once at least), and print what came out."""
    cv2.setNumThreads(1)  # as lens does
    pack = load_pack(packs, PACK, acknowledged=[PACK], detector_size=None)
    pack.warm()
    frame = np.load(frame_file)
    mean = np.zeros(pack.embedder.dimension, np.float32)
    for _ in range(times["detection"]):
        faces = pack.detector.detect(frame)
    for _ in range(times["alignment"]):
        chip = align(frame, faces[0].landmarks, pack.embedder.layout)
    for _ in range(times["gates"]):
        verdicts = [judge_faces(faces, frame, _FACE_MIN_PX)]
        verdict, sharpness = judge_chip(chip)
        quality_of(sharpness, yaw(faces[0].landmarks))
        verdicts.append(verdict)
    for _ in range(times["embedding"]):
        probe = pack.embedder.embed(chip)
    template = make_template([probe])
    for _ in range(times["comparison"]):
        score(template, probe, mean)
    outcome = {
        "faces": len(faces),
        "verdicts": [verdict.name for verdict in verdicts],
        "probe": [float(value) for value in probe],
        # What had to be imported, so that no more than that is fetched for the other processor.
        "modules": sorted({name.partition(".")[0] for name in sys.modules}),
    }
    print(json.dumps(outcome))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), dict(zip(STEPS, map(int, sys.argv[3:]), strict=True)))
