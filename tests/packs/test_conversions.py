from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper, numpy_helper

from appliance.lens.models import LoadedPack, load_pack
from appliance.packs.centerface import convert_centerface, decode_centerface, prove_centerface
from appliance.packs.dlib_resnet import _Reader, convert_dlib_resnet, prove_dlib_resnet
from appliance.packs.fetch import extract, fetch
from appliance.packs.fr_feature import _prelu, convert_fr_feature, prove_fr_feature
from appliance.packs.manifest import load_manifest
from appliance.packs.onnx_graph import ConversionError, Graph, float_value, run, serialise


def original(pack: str, wanted: str) -> bytes:
    (source,) = (each for each in load_manifest(pack).files if each.id == wanted)
    archive = fetch(source, source_folder=None, progress=print)
    return extract(archive, source.kind, source.member, source.member_sha256)


@pytest.fixture(scope="module")
def centerface() -> bytes:
    return original("edge", "centerface")


@pytest.fixture(scope="module")
def fr_feature() -> bytes:
    return original("edge", "fr_feature")


def disturbed(model: bytes, amount: float) -> bytes:
    """The same network with one of its larger weights moved."""
    proto = onnx.load_model_from_string(model)
    tensor = max(proto.graph.initializer, key=lambda each: len(each.raw_data))
    values = numpy_helper.to_array(tensor) * np.float32(1 + amount)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    data: bytes = proto.SerializeToString()
    return data


def test_prelu_after_a_scaled_convolution_is_prelu() -> None:
    slope = np.array([0.25, -0.5, 0.9], dtype=np.float32).reshape(3, 1, 1)
    graph = Graph("t")
    _prelu(graph, "x", slope, "y")
    model = serialise(graph, "t", [float_value("x", [1, 3, 4, 4])], [float_value("y", [1, 3, 4, 4])])
    x = np.random.default_rng(0).normal(size=(1, 3, 4, 4)).astype(np.float32)
    (y,) = run(model, {"x": (1 - slope) * x})
    np.testing.assert_allclose(y, np.where(x > 0, x, slope * x), rtol=3e-6)


def test_prelu_with_a_steep_channel_is_prelu_of_the_features_as_they_are() -> None:
    slope = np.array([0.25, -0.5, 1.5], dtype=np.float32).reshape(3, 1, 1)
    graph = Graph("t")
    _prelu(graph, "x", slope, "y")
    model = serialise(graph, "t", [float_value("x", [1, 3, 4, 4])], [float_value("y", [1, 3, 4, 4])])
    x = np.random.default_rng(0).normal(size=(1, 3, 4, 4)).astype(np.float32)
    (y,) = run(model, {"x": x})
    np.testing.assert_allclose(y, np.where(x > 0, x, slope * x), rtol=1e-6)


def test_dlib_integers_carry_their_length_and_sign() -> None:
    reader = _Reader(bytes([0x01, 0x96, 0x02, 0x80, 0x12, 0x81, 0x05]))
    assert [reader.integer() for _ in range(3)] == [0x96, 0x1280, -5]


def test_a_file_that_is_not_the_network_is_refused() -> None:
    node = helper.make_node("Relu", ["input"], ["output"])
    shape: list[Any] = [float_value("input", [1]), float_value("output", [1])]
    stranger = helper.make_model(helper.make_graph([node], "g", shape[:1], shape[1:])).SerializeToString()
    with pytest.raises(ConversionError, match="CenterFace"):
        convert_centerface(stranger)
    with pytest.raises(ConversionError, match="fr_feature"):
        convert_fr_feature(stranger)
    with pytest.raises(ConversionError, match="fewer layers"):
        convert_dlib_resnet(b"\x01\x05con_3")
    with pytest.raises(ConversionError, match="ends early"):
        convert_dlib_resnet(b"\x01\x05con_4" + bytes([1, 2, 2, 0x80, 0x12, 1, 1, 1, 1, 1, 1]))


@pytest.mark.models
def test_the_detector_decodes_as_centerface_does(centerface: bytes) -> None:
    assert prove_centerface(centerface, convert_centerface(centerface)) < 1e-4


@pytest.mark.models
def test_the_embedder_answers_as_published(fr_feature: bytes) -> None:
    assert prove_fr_feature(fr_feature, convert_fr_feature(fr_feature)) < 2e-6


@pytest.mark.models
def test_the_last_pointwise_convolutions_of_the_backbone_are_one(centerface: bytes) -> None:
    before = onnx.load_model_from_string(centerface).graph.initializer
    after = onnx.load_model_from_string(convert_centerface(centerface)).graph.initializer
    assert any(list(each.dims) == [320, 960, 1, 1] for each in before)
    assert not any(320 in each.dims for each in after)
    assert any(list(each.dims) == [24, 960, 1, 1] for each in after)


@pytest.mark.models
def test_a_conversion_that_is_off_is_refused(centerface: bytes, fr_feature: bytes) -> None:
    with pytest.raises(ConversionError, match="detector"):
        prove_centerface(centerface, disturbed(convert_centerface(centerface), 0.01))
    with pytest.raises(ConversionError, match="embedder"):
        prove_fr_feature(fr_feature, disturbed(convert_fr_feature(fr_feature), 0.001))


@pytest.mark.models
@pytest.mark.full
def test_the_dlib_network_answers_as_dlib_itself() -> None:
    converted = convert_dlib_resnet(original("dlib", "dlib_resnet"))
    assert prove_dlib_resnet(converted) < 1e-6
    with pytest.raises(ConversionError, match="dlib"):
        prove_dlib_resnet(disturbed(converted, 0.001))


@pytest.mark.models
@pytest.mark.parametrize(("side", "cut"), [(160, 0), (144, 1)])
def test_insightface_finds_what_centerface_finds_in_a_portrait(
    centerface: bytes,
    test_models: Path,
    portrait_frames: dict[str, npt.NDArray[np.uint8]],
    side: int,
    cut: int,
) -> None:
    """The published weights with only their dimensions opened, decoded by CenterFace's rule.

    At 192x160, which the published network takes, and at 192x144, which it takes once its deepest map is made
    larger by a row less: said here by the padding of that layer, and in the conversion by a cut.
    """
    edge = load_pack(test_models, "edge", acknowledged=["edge"], detector_size=(192, side))
    proto = onnx.load_model_from_string(centerface)
    for value in [*proto.graph.input[:1], *proto.graph.output]:
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if axis != 1:
                dimension.dim_param = f"{value.name}_{axis}"
    larger = next(node for node in proto.graph.node if node.op_type == "ConvTranspose")
    (pads,) = (each for each in larger.attribute if each.name == "pads")
    pads.ints[:] = [0, 0, cut, 0]
    opened = proto.SerializeToString()
    width, height = edge.detector.input_size
    for frame in portrait_frames.values():
        scale = min(width / frame.shape[1], height / frame.shape[0])
        # The same blob as insightface makes, read back from its own preprocessing.
        blob = _blob(edge, frame)
        maps = run(opened, {"input.1": blob}, ["537", "538", "539", "540"])
        scores, boxes, points = decode_centerface(maps[0][0, 0], *(each[0] for each in maps[1:]))
        best = np.unravel_index(scores.argmax(), scores.shape)
        (face, *_) = edge.detector.detect(frame)
        assert face.score == pytest.approx(float(scores[best]), abs=1e-5)
        exact = int(frame.shape[0] * scale) / frame.shape[0]
        np.testing.assert_allclose(face.box * exact, boxes[best], atol=2e-3)
        np.testing.assert_allclose(face.landmarks * exact, points[best], atol=2e-3)


def _blob(edge: LoadedPack, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    seen: list[npt.NDArray[np.float32]] = []
    scrfd: Any = edge.detector._scrfd
    prepare = scrfd._prepare_input_blob

    def listen(*arguments: Any) -> Any:
        seen.append(prepare(*arguments))
        return seen[-1]

    scrfd._prepare_input_blob = listen
    try:
        edge.detector.detect(frame)
    finally:
        del scrfd._prepare_input_blob
    return seen[0]
