"""The faces of the hardest pairs, for a report that asks for them (`--show-faces`)."""

import base64
from collections.abc import Iterable
from pathlib import Path

import cv2

from appliance.evaluation.dataset import Dataset
from appliance.evaluation.embeddings import FRAME, Source, subject
from appliance.evaluation.report import Report
from appliance.evaluation.report.model import HardPair, written
from appliance.lens.alignment import align
from appliance.lens.camera.pictures import BadPicture, read_picture_file
from appliance.lens.camera.replay import fit
from appliance.lens.models import LoadedPack

QUALITY = 85
"""Of the small JPEG pictures."""


def with_faces(report: Report, data: Dataset, source: Source) -> Report:
    """The report, with the aligned face of each photograph among its hardest pairs.

    Args:
        report: whose hardest pairs name photographs of `data`.
        data: where the photographs are.
        source: the pack that finds the faces.
    """
    pack = source.load()
    # By the names that the report gives them: one that is not UTF-8 is written out there.
    paths = {written(photograph.name): photograph.path for photograph in data.photographs}

    def faces(names: Iterable[str]) -> tuple[str, ...]:
        return tuple(face for name in names if (face := _face(paths[name], pack)) is not None)

    def shown(pairs: Iterable[HardPair]) -> tuple[HardPair, ...]:
        return tuple(
            pair.model_copy(update={"template_faces": faces(pair.template), "probe_faces": faces(pair.probe)})
            for pair in pairs
        )

    hardest = report.hardest
    update = {"genuine": shown(hardest.genuine), "impostor": shown(hardest.impostor)}
    return report.model_copy(update={"hardest": hardest.model_copy(update=update)})


def _face(path: Path, pack: LoadedPack) -> str | None:
    """The aligned face as a data: URI; None where the file has changed since it was looked at."""
    try:
        frame = fit(read_picture_file(path), *FRAME)
    except BadPicture:
        return None
    found = pack.detector.detect(frame)
    if not found:
        return None
    chip = align(frame, subject(found).landmarks, pack.embedder.layout)
    _, encoded = cv2.imencode(".jpg", chip, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")
