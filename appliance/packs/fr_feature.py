"""`fr_feature`, an ArcFace-style embedder, with each PReLU in a form that runs fast. Build time only.

onnxruntime has no fused PReLU: half of the published network's time goes there. With a slope `a` a
channel, PReLU(x) = a x + ReLU((1 - a) x) as long as no `a` passes 1. The convolution before it is made to
give y = (1 - a) x, and then that is ReLU(y) + a / (1 - a) y: a ReLU, and a 1x1 depthwise convolution into
which onnxruntime draws the sum. So the features are passed over twice, in the layout of the convolutions
around them. The one layer with a channel as steep as that is written ReLU(x) - a ReLU(-x), which holds for
every slope and passes over them three times.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from appliance.packs.onnx_graph import ConversionError, FloatArray, Graph, float_value, run, serialise

INPUT, OUTPUT = "input", "output"
DIMENSION = 512
CHIP_PX = 112

LARGEST_RELATIVE_ERROR = 1e-5
_STEEP = 0.99
"""A slope from which on a / (1 - a) would cost precision."""


def convert_fr_feature(original: bytes) -> bytes:
    """Rewrite the published file.

    Args:
        original: `fr_feature.onnx` as published.

    Returns:
        A model with input [1, 3, 112, 112] (RGB, (x - 127.5) / 128) and output [1, 512].

    Raises:
        ConversionError: the file is not the network this was written for.
    """
    source = onnx.load_model_from_string(original).graph
    weights = {tensor.name: tensor for tensor in source.initializer}
    graph = Graph("prelu")
    # What the convolution before a PReLU is multiplied by, a channel, where the PReLU allows it.
    factors = {
        node.input[0]: 1 - numpy_helper.to_array(weights[node.input[1]])
        for node in source.node
        if node.op_type == "PRelu" and (numpy_helper.to_array(weights[node.input[1]]) < _STEEP).all()
    }
    for node in source.node:
        if node.op_type == "PRelu":
            features, slope = node.input
            _prelu(graph, features, numpy_helper.to_array(weights[slope]), node.output[0])
        elif node.op_type == "Conv" and node.output[0] in factors:
            _scaled(graph, node, weights, factors[node.output[0]])
        else:
            graph.nodes.append(node)
    used = {name for node in graph.nodes for name in node.input}
    if INPUT not in used or len(graph.nodes) == len(source.node):
        raise ConversionError("the embedder's file is not fr_feature: check the pinned package")
    graph.initializers.extend(tensor for tensor in source.initializer if tensor.name in used)
    return serialise(
        graph,
        "fr_feature",
        [float_value(INPUT, [1, 3, CHIP_PX, CHIP_PX])],
        [float_value(OUTPUT, [1, DIMENSION])],
    )


def _scaled(graph: Graph, node: Any, weights: Mapping[str, Any], factor: FloatArray) -> None:
    """Add a convolution whose channels are multiplied by a factor of shape [channels, 1, 1]."""
    features, kernel, *bias = node.input
    inputs = [features, graph.constant(numpy_helper.to_array(weights[kernel]) * factor[:, None])]
    inputs += [graph.constant(numpy_helper.to_array(weights[name]) * factor.reshape(-1)) for name in bias]
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    graph.named("Conv", inputs, node.output[0], **attributes)


def _prelu(graph: Graph, features: str, slope: FloatArray, output: str) -> None:
    """Add PReLU for a slope of shape [channels, 1, 1]; of features that `_scaled` gave, where it may."""
    channels = slope.size
    depthwise = {"kernel_shape": [1, 1], "group": channels}
    factor = slope.reshape(channels, 1, 1, 1)
    positive = graph.one("Relu", features)
    if (slope < _STEEP).all():
        rest = graph.one("Conv", features, graph.constant(factor / (1 - factor)), **depthwise)
    else:
        minus_one = graph.constant(np.full_like(factor, -1))
        negative = graph.one("Relu", graph.one("Conv", features, minus_one, **depthwise))
        rest = graph.one("Conv", negative, graph.constant(-factor), **depthwise)
    graph.named("Add", [rest, positive], output)


def prove_fr_feature(original: bytes, converted: bytes) -> float:
    """Show that both files give the same embeddings for ten random pictures.

    Returns:
        The largest difference, relative to the largest value of its embedding.

    Raises:
        ConversionError: the difference passes `LARGEST_RELATIVE_ERROR`.
    """
    rng = np.random.default_rng(2)
    largest = 0.0
    for _ in range(10):
        coarse = rng.uniform(-1, 1, (1, 3, 14, 14)).astype(np.float32)
        picture = coarse.repeat(8, axis=2).repeat(8, axis=3)
        (expected,) = run(original, {INPUT: picture})
        (seen,) = run(converted, {INPUT: picture})
        largest = max(largest, float(np.abs(seen - expected).max() / np.abs(expected).max()))
    if not largest <= LARGEST_RELATIVE_ERROR:
        raise ConversionError(
            f"the converted embedder is {largest:.2g} off the published one: install another onnx version"
        )
    return largest
