"""Step 4: a face as a vector of fixed length. What it means is for vault to say."""

from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from appliance.errors import DrempelError
from appliance.lens.alignment import ChipLayout

Embedding = npt.NDArray[np.float32]


class BadChip(DrempelError, ValueError):
    """A chip is not the aligned uint8 picture that this embedder takes."""


class BadEmbedding(DrempelError, ArithmeticError):
    """The network's answer has no direction: all zero, or not finite."""


class FaceEmbedder(Protocol):
    """Turns an aligned chip into an embedding."""

    @property
    def dimension(self) -> int:
        """Length of an embedding."""

    @property
    def layout(self) -> ChipLayout:
        """How a chip must be aligned."""

    def embed(self, chip: npt.NDArray[np.uint8]) -> Embedding:
        """The embedding of a chip.

        Args:
            chip: (side, side, 3) uint8, BGR, as of `alignment.align` with `layout`.

        Returns:
            (dimension,) float32 of length 1.

        Raises:
            BadChip: the chip has another type or shape.
            BadEmbedding: the network's answer has no direction.
        """


class ArcFaceEmbedder:
    """An ArcFace-style network through insightface's `ArcFaceONNX`.

    Args:
        arcface: insightface's model.
        layout: of its chip.
        dimension: of its embedding.
    """

    def __init__(self, arcface: Any, *, layout: ChipLayout, dimension: int) -> None:
        self._arcface = arcface
        self.layout = layout
        self.dimension = dimension

    def embed(self, chip: npt.NDArray[np.uint8]) -> Embedding:
        """See `FaceEmbedder.embed`."""
        _check(chip, self.layout)
        return _normalised(self._arcface.get_feat(chip), self.dimension)


class DlibEmbedder:
    """dlib's ResNet, converted: its input is plain RGB, 0-255; the normalisation is inside the network.

    Args:
        session: an onnxruntime session with one input and one output.
        layout: of its chip.
        dimension: of its embedding.
    """

    def __init__(self, session: Any, *, layout: ChipLayout, dimension: int) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        self.layout = layout
        self.dimension = dimension

    def embed(self, chip: npt.NDArray[np.uint8]) -> Embedding:
        """See `FaceEmbedder.embed`."""
        _check(chip, self.layout)
        picture = cv2.dnn.blobFromImage(chip, swapRB=True)
        try:
            return _normalised(self._session.run(None, {self._input: picture})[0], self.dimension)
        finally:
            picture.fill(0)


def _check(chip: npt.NDArray[np.uint8], layout: ChipLayout) -> None:
    wanted = (layout.side, layout.side, 3)
    if not isinstance(chip, np.ndarray) or chip.dtype != np.uint8 or chip.shape != wanted:
        found = f"{chip.dtype} {chip.shape}" if isinstance(chip, np.ndarray) else type(chip).__name__
        raise BadChip(f"a chip must be uint8 of shape {wanted}, BGR; this is {found}")


def _normalised(answer: npt.NDArray[np.float32], dimension: int) -> Embedding:
    """The answer, brought to length 1 in its own memory, so that no second copy stays behind."""
    flat = np.asarray(answer, dtype=np.float32).reshape(-1)
    if flat.shape != (dimension,):
        raise BadEmbedding(f"the embedder answered {flat.size} values, not {dimension}: install it again")
    length = float(np.sqrt(flat @ flat))
    if not np.isfinite(length) or length <= 0:
        raise BadEmbedding("the embedder's answer has no direction: take the next frame")
    flat /= np.float32(length)
    return flat
