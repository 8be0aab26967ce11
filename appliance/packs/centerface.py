"""CenterFace, re-laid so that insightface's own SCRFD decoder reads it. Build time only.

CenterFace answers with four maps at stride 4: a score, the logarithm of a box's height and width,
an offset of its centre and five landmarks relative to the box (decoded here as its authors do; the
published file is fixed to a batch of ten 32x32 pictures). SCRFD answers with a score, four
distances and five points for each of two anchors a cell, at strides 8, 16 and 32.

Each 8x8 cell of SCRFD covers 2x2 cells of CenterFace: its two anchors take the two with the
highest scores, boxes and landmarks decoded inside the graph. The other two of the four could only
matter for two faces whose centres lie less than 8 pixels of the network's input apart *and* that
hardly overlap. Strides 16 and 32 answer with zeros.
"""

from itertools import starmap
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from appliance.packs.onnx_graph import ConversionError, FloatArray, Graph, float_value, run, serialise

INPUT = "input.1"
_HEAT, _SIZE, _OFFSET, _LANDMARKS = "537", "538", "539", "540"
_DEEPEST = "518"
"""Where the map of stride 32, made larger, is added to that of stride 16."""
_STRIDE = 4
_CELL = 2 * _STRIDE
_ANCHORS = 2
# CenterFace orders every pair (y, x); insightface wants (x, y).
_SWAP_PAIR = [1, 0]
_SWAP_LANDMARKS = [1, 0, 3, 2, 5, 4, 7, 6, 9, 8]

LARGEST_ERROR_PX = 1e-3


def convert_centerface(original: bytes) -> bytes:
    """Rewrite the published file.

    Args:
        original: `centerface.onnx` as published (fixed [10, 3, 32, 32]).

    Returns:
        A model with input [1, 3, height, width] (RGB, 0-255, both sides multiples of 16) and
        SCRFD's nine outputs.

    Raises:
        ConversionError: the file is not the network this was written for.
    """
    source = onnx.load_model_from_string(original).graph
    heads = {node.output[0]: node for node in source.node}
    if not {_HEAT, _SIZE, _OFFSET, _LANDMARKS} <= set(heads):
        raise ConversionError(
            "the detector's file has other outputs than CenterFace: check the pinned package"
        )
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in source.initializer}

    graph = Graph("scrfd")
    graph.nodes.extend(node for node in source.node if node.output[0] not in {_SIZE, _OFFSET, _LANDMARKS})
    _fold_pointwise(graph, weights)
    used = {name for node in graph.nodes for name in node.input}
    graph.initializers.extend(tensor for tensor in source.initializer if tensor.name in used)

    _crop(graph)
    _scrfd_outputs(graph, *_two_best_of_four(graph, _merged_head(graph, heads, weights)))
    outputs = starmap(
        float_value,
        [(f"{kind}_{stride}", [f"n{stride}", width]) for kind, width in _OUTPUTS for stride in (8, 16, 32)],
    )
    return serialise(graph, "centerface", [float_value(INPUT, [1, 3, "height", "width"])], list(outputs))


def _crop(graph: Graph) -> None:
    """Let the network take sides that are multiples of 16 and not of 32.

    Only the deepest of its maps has a stride of 32. For 144 rows it has five (4.5, rounded up by the
    padding), which become ten where the map of stride 16 that they are added to has nine: the tenth is cut
    off. So a frame of 4:3 fills an input of 192x144, where it leaves 16 of 160 rows empty in 192x160.
    """
    (merge,) = (node for node in graph.nodes if node.output[0] == _DEEPEST)
    deeper, across = merge.input
    sides = graph.one("Slice", graph.one("Shape", across), *_range(graph, 2, 4))
    cut = graph.one("Slice", deeper, _shape(graph, 0, 0), sides, _shape(graph, 2, 3))
    merge.input[0] = cut
    # In the order of their use, as ONNX wants it.
    made = graph.nodes[-3:]
    del graph.nodes[-3:]
    at = graph.nodes.index(merge)
    graph.nodes[at:at] = made


_OUTPUTS = (("score", 1), ("box", 4), ("points", 10))


def _fold_pointwise(graph: Graph, weights: dict[str, FloatArray]) -> None:
    """Make one convolution of the two 1x1 ones at the end of the backbone, 960 -> 320 -> 24 channels.

    Nothing stands between them and nothing else reads the 320 channels, so their product is the same in a
    twelfth of the multiplications: 0.7 instead of 9.4 million of the network's 185.
    """
    readers: dict[str, list[Any]] = {}
    for node in graph.nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for first in list(graph.nodes):
        following = readers.get(first.output[0], [])
        if len(following) != 1 or not _pointwise(first, weights) or not _pointwise(following[0], weights):
            continue
        (second,) = following
        inner, outer = (weights[node.input[1]][:, :, 0, 0].astype(np.float64) for node in (first, second))
        if outer.shape[0] * inner.shape[1] >= inner.size + outer.size:
            continue  # a bottleneck: narrower between than the product
        inner_bias, outer_bias = (weights[node.input[2]].astype(np.float64) for node in (first, second))
        inputs = [
            first.input[0],
            graph.constant((outer @ inner)[:, :, None, None]),
            graph.constant(outer @ inner_bias + outer_bias),
        ]
        place = graph.nodes.index(second)
        graph.nodes[place] = helper.make_node("Conv", inputs, list(second.output), kernel_shape=[1, 1])
        graph.nodes.remove(first)


def _pointwise(node: Any, weights: dict[str, FloatArray]) -> bool:
    """Whether it is a 1x1 convolution of all channels, with a bias."""
    return (
        node.op_type == "Conv"
        and len(node.input) == len(("features", "kernel", "bias"))
        and weights[node.input[1]].shape[1] > 1
        and weights[node.input[1]].shape[2:] == (1, 1)
    )


def _merged_head(graph: Graph, heads: dict[str, Any], weights: dict[str, FloatArray]) -> str:
    """The three regression heads as one convolution of 14 channels: w, h, dx, dy, five (x, y)."""
    parts = [(_SIZE, _SWAP_PAIR), (_OFFSET, _SWAP_PAIR), (_LANDMARKS, _SWAP_LANDMARKS)]
    kernel = np.concatenate([weights[heads[name].input[1]][order] for name, order in parts])
    bias = np.concatenate([weights[heads[name].input[2]][order] for name, order in parts])
    feature = heads[_SIZE].input[0]
    return graph.one("Conv", feature, graph.constant(kernel), graph.constant(bias), kernel_shape=[1, 1])


def _two_best_of_four(graph: Graph, head: str) -> tuple[str, str]:
    """Which of the four is meant [n, 1] and its 14 values [n, 14]; n = 2 a cell of 8x8."""
    heat = graph.one("SpaceToDepth", _HEAT, blocksize=2)
    best, index = graph.add("TopK", [heat, graph.constant([_ANCHORS], np.int64)], 2, axis=1)
    # Channel `cell * 14 + value` of the folded head, for both anchors and all 14 values.
    fourteen = graph.constant(14, np.int64)
    first = graph.one("Unsqueeze", graph.one("Mul", index, fourteen), graph.constant([2], np.int64))
    channel = graph.one("Add", first, graph.constant(np.arange(14).reshape(1, 1, 14, 1, 1), np.int64))
    folded = graph.one("SpaceToDepth", head, blocksize=2)
    height_width = graph.one("Slice", graph.one("Shape", index), *_range(graph, 2, 4))
    flat = graph.one("Concat", graph.constant([1, _ANCHORS * 14], np.int64), height_width, axis=0)
    values = graph.one("GatherElements", folded, graph.one("Reshape", channel, flat), axis=1)
    # [1, 2*14, h, w] -> [h*w*2, 14]: the order of insightface's anchor centres.
    rows = graph.one("Reshape", graph.one("Transpose", values, perm=[0, 2, 3, 1]), _shape(graph, -1, 14))
    column = _shape(graph, -1, 1)
    graph.named("Reshape", [graph.one("Transpose", best, perm=[0, 2, 3, 1]), column], "score_8")
    order = graph.one("Cast", graph.one("Transpose", index, perm=[0, 2, 3, 1]), to=onnx.TensorProto.FLOAT)
    return graph.one("Reshape", order, column), rows


def _scrfd_outputs(graph: Graph, index: str, rows: str) -> None:
    """Decode as CenterFace does, then express it as SCRFD's distances from the cell's corner."""
    shape = graph.one("Shape", INPUT)
    sides = graph.one("Slice", shape, *_range(graph, 2, 4))
    cells = graph.one("Div", sides, graph.constant(_CELL, np.int64))
    grid = _grid(graph, cells)
    corner = graph.one("Mul", grid, graph.constant(_CELL))
    width_height = graph.one("Gather", sides, graph.constant([1, 0], np.int64))
    limit = graph.one("Cast", width_height, to=onnx.TensorProto.FLOAT)

    below = graph.one("Floor", graph.one("Div", index, graph.constant(2)))
    right = graph.one("Sub", index, graph.one("Mul", below, graph.constant(2)))
    inside = graph.one("Concat", right, below, axis=1)
    cell = graph.one("Add", graph.one("Mul", grid, graph.constant(2)), inside)

    logarithms, offset, points = graph.add("Split", [rows, graph.constant([2, 2, 10], np.int64)], 3, axis=1)
    size = graph.one("Mul", graph.one("Exp", logarithms), graph.constant(_STRIDE))
    centre = graph.one("Add", graph.one("Add", cell, offset), graph.constant(0.5))
    centre = graph.one("Mul", centre, graph.constant(_STRIDE))
    low = graph.one("Sub", centre, graph.one("Mul", size, graph.constant(0.5)))
    low = graph.one("Min", graph.one("Max", low, graph.constant(0)), limit)
    high = graph.one("Min", graph.one("Add", low, size), limit)

    eighth = graph.constant(1 / _CELL)
    before = graph.one("Mul", graph.one("Sub", corner, low), eighth)
    after = graph.one("Mul", graph.one("Sub", high, corner), eighth)
    graph.named("Concat", [before, after], "box_8", axis=1)

    # Both columns five times, by a product with ones and noughts, which is exact: to broadcast them over five
    # pairs, or to gather them, takes onnxruntime many times as long.
    five_times = graph.constant(np.tile(np.eye(2), 5))
    sides_of_five = graph.one("MatMul", graph.one("Mul", size, eighth), five_times)
    corners_of_five = graph.one("MatMul", before, five_times)
    graph.named("Sub", [graph.one("Mul", points, sides_of_five), corners_of_five], "points_8")

    for stride in (16, 32):
        height_width = graph.one("Div", sides, graph.constant(stride, np.int64))
        count = graph.one(
            "Mul", graph.one("ReduceProd", height_width, axes=[0]), graph.constant([2], np.int64)
        )
        for kind, width in _OUTPUTS:
            empty = graph.one("Concat", count, graph.constant([width], np.int64), axis=0)
            graph.named("ConstantOfShape", [empty], f"{kind}_{stride}")


def _grid(graph: Graph, cells: str) -> str:
    """Column and row of each anchor, [n, 2] float, row by row, each cell twice."""
    zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
    height = graph.one("Gather", cells, zero)
    width = graph.one("Gather", cells, one)
    whole = graph.one("Concat", cells, graph.constant([_ANCHORS], np.int64), axis=0)
    columns = graph.one("Range", zero, width, one)
    columns = graph.one("Expand", graph.one("Reshape", columns, _shape(graph, 1, -1, 1)), whole)
    lines = graph.one("Range", zero, height, one)
    lines = graph.one("Expand", graph.one("Reshape", lines, _shape(graph, -1, 1, 1)), whole)
    flat = _shape(graph, -1, 1)
    pair = graph.one("Concat", graph.one("Reshape", columns, flat), graph.one("Reshape", lines, flat), axis=1)
    return graph.one("Cast", pair, to=onnx.TensorProto.FLOAT)


def _shape(graph: Graph, *sides: int) -> str:
    return graph.constant(list(sides), np.int64)


def _range(graph: Graph, start: int, end: int) -> tuple[str, str]:
    return graph.constant([start], np.int64), graph.constant([end], np.int64)


def decode_centerface(
    heat: FloatArray, size: FloatArray, offset: FloatArray, landmarks: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """CenterFace's own decoding of every cell, before any threshold.

    Args:
        heat: score, [h, w], 0-1.
        size: logarithm of height and width in cells, [2, h, w].
        offset: of the centre from its cell, y then x, in cells, [2, h, w].
        landmarks: five (y, x) in fractions of the box, [10, h, w].

    Returns:
        Scores [h, w], boxes [h, w, 4] and landmarks [h, w, 5, 2] in pixels of the network's input.
    """
    rows, columns = heat.shape
    limit = np.array([columns, rows], dtype=np.float64) * _STRIDE
    cell = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).astype(np.float64)
    sides = np.exp(size[::-1].transpose(1, 2, 0).astype(np.float64)) * _STRIDE
    centre = (cell + offset[::-1].transpose(1, 2, 0) + 0.5) * _STRIDE
    low = np.minimum(np.maximum(centre - sides / 2, 0), limit)
    high = np.minimum(low + sides, limit)
    five = landmarks[_SWAP_LANDMARKS].transpose(1, 2, 0).reshape(rows, columns, 5, 2)
    points = five * sides[:, :, None] + low[:, :, None]
    boxes = np.concatenate([low, high], axis=-1)
    return heat, boxes.astype(np.float32), points.astype(np.float32)


def prove_centerface(original: bytes, converted: bytes) -> float:
    """Show that insightface's decoding of the converted file is CenterFace's of the published one.

    The published file runs as it is, on its ten 32x32 pictures (soft random blobs: what matters is
    that every cell decodes alike, not that there is a face), and every candidate is compared.

    Returns:
        The largest difference of any box or landmark, in pixels of the network's input.

    Raises:
        ConversionError: the difference passes `LARGEST_ERROR_PX`.
    """
    noise = np.random.default_rng(1).uniform(0, 255, (10, 3, 8, 8))
    pictures = noise.repeat(4, axis=2).repeat(4, axis=3).astype(np.float32)
    maps = run(original, {INPUT: pictures}, [_HEAT, _SIZE, _OFFSET, _LANDMARKS])
    largest = 0.0
    for number, picture in enumerate(pictures):
        heat, size, offset, landmarks = (layer[number] for layer in maps)
        scores, boxes, points = decode_centerface(heat[0], size, offset, landmarks)
        seen = run(converted, {INPUT: picture[None]}, ["score_8", "box_8", "points_8"])
        largest = max(largest, _compare(scores, boxes, points, *seen))
    if not largest <= LARGEST_ERROR_PX:
        raise ConversionError(
            f"the converted detector is {largest:.2g} px off the published one: install another onnx version"
        )
    return largest


def _compare(
    scores: FloatArray,
    boxes: FloatArray,
    points: FloatArray,
    score_8: FloatArray,
    box_8: FloatArray,
    points_8: FloatArray,
) -> float:
    """Largest difference over the candidates that insightface would see, in pixels."""
    largest = 0.0
    columns = scores.shape[1] // 2
    for row, (score, box, five) in enumerate(zip(score_8[:, 0], box_8, points_8, strict=True)):
        cell, anchor = divmod(row, _ANCHORS)
        y, x = divmod(cell, columns)
        four = [(2 * y + dy, 2 * x + dx) for dy in (0, 1) for dx in (0, 1)]
        chosen = sorted(four, key=lambda at: -scores[at])[anchor]
        corner = np.array([x, y], dtype=np.float32) * _CELL
        low, high = corner - box[:2] * _CELL, corner + box[2:] * _CELL
        landmarks = corner + five.reshape(5, 2) * _CELL
        # A difference in score is counted as if the whole range of it were one pixel.
        differences = (
            np.abs(score - scores[chosen]),
            np.abs(np.concatenate([low, high]) - boxes[chosen]).max(),
            np.abs(landmarks - points[chosen]).max(),
        )
        largest = max(largest, *(float(value) for value in differences))
    return largest
