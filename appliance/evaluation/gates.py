"""How many photographs of a folder pass the quality gates.

`python -m appliance.evaluation.gates PACKS FOLDER [STEP]`: PACKS holds the installed pack `edge`; each
STEP-th .jpg below FOLDER is fitted into 640 x 480. Run where the thresholds of `lens.quality` are weighed.
"""

import collections
import sys
from pathlib import Path

from appliance.lens.alignment import align
from appliance.lens.camera.pictures import BadPicture, read_picture_file
from appliance.lens.camera.replay import fit
from appliance.lens.models import load_pack
from appliance.lens.quality import Verdict, judge_chip, judge_faces


def main(packs: Path, folder: Path, step: int) -> None:
    """Print how often each verdict falls, and the share that passes."""
    pack = load_pack(packs, "edge", acknowledged=["edge"], detector_size=None)
    verdicts: collections.Counter[Verdict] = collections.Counter()
    for path in sorted(folder.rglob("*.jpg"))[::step]:
        try:
            frame = fit(read_picture_file(path), 640, 480)
        except BadPicture as error:
            print(f"{path} is left out: {error}")
            continue
        faces = pack.detector.detect(frame)
        verdict = judge_faces(faces, frame, face_min_px=60)
        if verdict is Verdict.GOOD:
            verdict, _ = judge_chip(align(frame, faces[0].landmarks, pack.embedder.layout))
        verdicts[verdict] += 1
    alone = verdicts.total() - verdicts[Verdict.SEVERAL_FACES]
    for verdict, count in verdicts.most_common():
        print(f"{verdict.name:14} {count}")
    print(f"{verdicts[Verdict.GOOD] / alone:.1%} of {alone} with one person pass")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1)
