import contextlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from appliance.lens.alignment import ARCFACE_CHIP, DLIB_CHIP, align
from appliance.lens.embedding import ArcFaceEmbedder, BadChip, BadEmbedding, DlibEmbedder, Embedding
from appliance.lens.models import LoadedPack

Picture = npt.NDArray[np.uint8]


class Answers:
    """A network that answers what it is told, and remembers what it was asked."""

    def __init__(self, answer: list[float]) -> None:
        self.answer = np.array([answer], dtype=np.float32)
        self.asked: Any = None
        self.given: Any = None

    def get_feat(self, chip: Picture) -> npt.NDArray[np.float32]:
        self.asked = chip
        return self.answer

    def get_inputs(self) -> list[Any]:
        return [type("Input", (), {"name": "input"})]

    def run(self, _: None, feeds: dict[str, Any]) -> list[npt.NDArray[np.float32]]:
        self.given = feeds["input"]
        self.asked = self.given.copy()
        return [self.answer]


def chip(side: int = 112) -> Picture:
    return np.zeros((side, side, 3), dtype=np.uint8)


def test_an_embedding_has_length_one() -> None:
    embedding = ArcFaceEmbedder(Answers([3, 0, -4]), layout=ARCFACE_CHIP, dimension=3).embed(chip())
    np.testing.assert_allclose(embedding, [0.6, 0, -0.8], rtol=1e-6)
    assert embedding.dtype == np.float32


def test_dlib_is_given_red_green_blue_as_they_are() -> None:
    network = Answers([1, 0])
    picture = chip(150)
    picture[..., 0], picture[..., 1], picture[..., 2] = 10, 20, 30  # blue, green, red
    DlibEmbedder(network, layout=DLIB_CHIP, dimension=2).embed(picture)
    assert network.asked.shape == (1, 3, 150, 150)
    assert network.asked.dtype == np.float32
    assert network.asked[0, :, 75, 75].tolist() == [30, 20, 10]


def test_what_dlib_is_given_is_overwritten_even_if_it_fails() -> None:
    for answer in ([1.0, 0.0], [0.0, 0.0]):
        network = Answers(answer)
        with contextlib.suppress(BadEmbedding):
            DlibEmbedder(network, layout=DLIB_CHIP, dimension=2).embed(chip(150) + np.uint8(9))
        assert network.asked.any()
        assert not network.given.any()


def test_no_answer_stays_beside_the_embedding() -> None:
    network = Answers([3, 0, -4])
    embedding = ArcFaceEmbedder(network, layout=ARCFACE_CHIP, dimension=3).embed(chip())
    embedding.fill(0)
    assert not network.answer.any()


@pytest.mark.parametrize("answer", [[0, 0, 0], [np.nan, 0, 1], [np.inf, 0, 0], [1, 0]])
def test_an_answer_without_direction_is_refused(answer: list[float]) -> None:
    with pytest.raises(BadEmbedding):
        ArcFaceEmbedder(Answers(answer), layout=ARCFACE_CHIP, dimension=3).embed(chip())


@pytest.mark.parametrize(
    "picture",
    [
        chip(111),
        chip(150),
        chip()[..., 0],
        chip().astype(np.float32),
        np.zeros((1, 112, 112, 3), np.uint8),
        None,
    ],
)
def test_a_chip_of_another_type_or_shape_is_refused(picture: Any) -> None:
    with pytest.raises(BadChip, match="a chip must be"):
        ArcFaceEmbedder(Answers([1, 0, 0]), layout=ARCFACE_CHIP, dimension=3).embed(picture)


def embeddings(pack: LoadedPack, frames: dict[str, Picture]) -> dict[str, Embedding]:
    found = {}
    for name, frame in frames.items():
        (face,) = pack.detector.detect(frame)
        found[name] = pack.embedder.embed(align(frame, face.landmarks, pack.embedder.layout))
    return found


@pytest.mark.models
def test_the_same_person_passes_the_threshold_and_another_does_not(
    edge: LoadedPack, portrait_frames: dict[str, Picture]
) -> None:
    seen = embeddings(edge, portrait_frames)
    centred = {name: vector - edge.manifest.mean for name, vector in seen.items()}
    unit = {name: vector / np.linalg.norm(vector) for name, vector in centred.items()}
    strict = edge.manifest.threshold(1e-5, 1)
    loose = edge.manifest.threshold(1e-2, 1)
    assert float(unit["obama.jpg"] @ unit["obama2.jpg"]) > strict
    assert float(unit["obama.jpg"] @ unit["biden.jpg"]) < loose
    assert float(unit["obama2.jpg"] @ unit["biden.jpg"]) < loose


@pytest.mark.models
def test_an_embedding_is_the_same_every_time_and_of_the_manifests_length(
    edge: LoadedPack, portrait_frames: dict[str, Picture]
) -> None:
    once, again = (embeddings(edge, portrait_frames)["obama.jpg"] for _ in range(2))
    assert once.shape == (edge.embedder.dimension,) == (edge.manifest.embedder.dimension,)
    assert once.dtype == np.float32
    assert float(np.linalg.norm(once)) == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(once, again)


@pytest.mark.models
def test_colours_are_not_swapped(edge: LoadedPack, portrait_frames: dict[str, Picture]) -> None:
    """The network was trained on red, green, blue: with the channels turned round it sees less alike."""
    seen = embeddings(edge, portrait_frames)
    frame = portrait_frames["obama2.jpg"]
    (face,) = edge.detector.detect(frame)
    swapped = align(np.ascontiguousarray(frame[..., ::-1]), face.landmarks, edge.embedder.layout)
    wrong = edge.embedder.embed(swapped)
    assert seen["obama.jpg"] @ wrong < seen["obama.jpg"] @ seen["obama2.jpg"]
