"""dlib's face recognition ResNet-29, from its `.dat` to ONNX in pure Python. Build time only.

The `.dat` is dlib's own serialisation, layer after layer from input to output. The shape of the
network is fixed and known (dlib's example `dnn_face_recognition_ex.cpp`), and the file is pinned
by its hash, so only the parameters are read: each follows the name of its kind of layer. Affine
layers are folded into the convolutions before them, and the input's normalisation (minus the
channel averages, divided by 256) into the first, which has no padding, so that this is exact.

Where a block halves the picture, dlib adds two tensors of different sizes by filling up with zeros.
"""

import base64
import struct
from collections.abc import Iterator

import numpy as np

from appliance.packs.onnx_graph import ConversionError, FloatArray, Graph, float_value, run, serialise

INPUT, OUTPUT = "input", "output"
DIMENSION = 128
CHIP_PX = 150
AVERAGES = (122.782, 117.001, 104.298)  # red, green, blue: dlib's `input_rgb_image_sized`
_SCALE = 256

# (channels, halves the picture) of the residual blocks, from input to output.
_BLOCKS = (
    *[(32, False)] * 3,
    *[(64, True), (64, False), (64, False), (64, False)],
    *[(128, True), (128, False), (128, False)],
    *[(256, True), (256, False), (256, False)],
    (256, True),
)

LARGEST_ERROR = 1e-5

# What dlib 20.0.1 itself (`compute_face_descriptor`, from the PyPI package dlib-bin) answers to the
# two pictures of `_known_picture`: 2 x 128 float32, little-endian, base64.
_KNOWN_ANSWERS = (
    "+/LEvUsryD0v8QE9Axs4vSWlkb20OoC9siowvQE6FTw7GdE95Fi4POo5Yz5iuNO8pjKIvmloYr20jxG8NA2ePYEoAr6+"
    "u1O9vuQLvopABb78dZI9VXziPB9B6bwk8cu8cp/gvRScjb731JG92+T1vbvfhD00yCO+xgsePY4RizzO5Bu+eHuovYwt"
    "oLsXNdE8dFcgvXlav72RWiI+rH1JuyxF6r0c3j29+r7TPDaihj7bgEw+7LZaPbyJhjtJShy90BYsPRsgkL6UqUc8hIge"
    "PrTHVD30h/I9prK9PYKQAr7YsDg9MPJ3PTDzHL6YDrY7rNCBPAAeCL4Bqle943T6vUxrWD5ojV89hGdPvf7uxL0+wRw+"
    "LBIJvhqmZb0er8I9LNDGvSECDb4kDXm+iF3EPVmNwD6Jwzs+E/IFvi1eLz0Z3Oi9ZrpUvWJaEj1/lqK8MNqCvTJj07w8"
    "Haa97M+pPQvWTD6BiNq9bpeGPJ7VGz683nK8tuDXPE06dDwa0ru8A6eYvTf6FzxcLhG9gg0ivHFnKj4LXBC+JJZSPXnT"
    "yz0MPha+JCmYPWe1nzxcyWe9DYDDPLXPjbyIxja9mWwTvU0iTz7se1m++XiBPmXEWj7MClI8BcHcPZzvvjyDX849Dnhz"
    "vZExCb3JuAO+hCFvvci2gTyiFkE9o5lSvF0d/jt7CZ+9vtwGPjsDhD1wNBe8/+t/vXQDPb0PUYG9AC3yO53j2z34Gq+7"
    "gZl4Pj0UhrxmkYO+DEBevIvCorwpAq49cxAbvk6P9rxgYQq+qTEOviUDgz3OpKA8wCt2vFKtv7xhF9u962uTvkcgsb2E"
    "5vS9wUilPcqpH747qhU9mc36O6BiDb66BTm957ByvDoBhzwIYiC8as6MvXXqGj78Eze8flHtvePHDb0gAbA7BXOCPn10"
    "XD4idng9IF9qOlHMaL3XoAE9DTKHviMHjDxxZiE+6ek5PRji/T3HeZM9WskYvm5tMDxd8aY9n38LvqyqpjyAlSk7g8gW"
    "vrp1Eb2fyOO9DVpbPgHSoD2aqYu9gk3rvdKFJz78Xxa+zTYkvTGZxj3a88+9y8wNvpvsg77fqrc9SmvGPhKvND7x5QW+"
    "fpC8PJue/71AOHq98ZdWPLucRTxCG6W9xQMevbBVmb3gvbw9AxVNPvxwzb00jF08UJ8qPh5UWL167B89a0ATvNGhK7ww"
    "vse9iFt4Oqo+Qr3uyP28pvABPhD9C74yVg89O/HWPZviJr5PCZg9t4VHO22EYb3KIt08mKZvurbiQ72D+9W8hpV/Pj/P"
    "WL7z+4U+Xc1rPgPo8zy5yu0924UfPfQs6D0PEGy9xdlYvcFnEr6bMv28sOU9OgjRRjzG0KW8aPSWOg=="
)


class _Reader:
    """dlib's compact integers and tensors."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def seek(self, name: bytes) -> None:
        """Go just past the next layer of this kind; its name is written with its length."""
        label = bytes([1, len(name)]) + name
        found = self._data.find(label, self._at)
        if found < 0:
            raise ConversionError("the .dat holds fewer layers than dlib's ResNet: check the pinned package")
        self._at = found + len(label)

    def integer(self) -> int:
        """A control byte (number of bytes, sign in the top bit), then the magnitude."""
        control = self._data[self._at]
        size = control & 0x0F
        value = int.from_bytes(self._data[self._at + 1 : self._at + 1 + size], "little")
        self._at += 1 + size
        return -value if control & 0x80 else value

    def tensor(self) -> FloatArray:
        """Version 2, four sides, then little-endian float32."""
        if self.integer() != 2:
            raise ConversionError("the .dat holds another version of tensors: check the pinned package")
        sides = [self.integer() for _ in range(4)]
        count = int(np.prod(sides))
        try:
            flat = np.frombuffer(self._data, dtype="<f4", count=count, offset=self._at)
        except ValueError as error:
            raise ConversionError("the .dat ends early: fetch the package again") from error
        self._at += 4 * count
        return flat.reshape(sides).astype(np.float32)


def _convolutions(reader: _Reader) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Kernel and bias of each convolution with its affine layer folded in, input first."""
    plan = [(32, 3, 7)]
    inputs = 32
    for channels, _ in _BLOCKS:
        plan += [(channels, inputs, 3), (channels, channels, 3)]
        inputs = channels
    for outputs, channels, side in plan:
        reader.seek(b"con_4")
        flat = reader.tensor().ravel()
        if flat.size != outputs * channels * side * side + outputs:
            raise ConversionError("a layer of the .dat has another size than dlib's ResNet has")
        kernel = flat[:-outputs].reshape(outputs, channels, side, side).astype(np.float64)
        bias = flat[-outputs:].astype(np.float64)
        reader.seek(b"affine_")
        gamma, beta = reader.tensor().ravel().reshape(2, outputs).astype(np.float64)
        folded = kernel * gamma[:, None, None, None]
        yield folded.astype(np.float32), (bias * gamma + beta).astype(np.float32)


def convert_dlib_resnet(original: bytes) -> bytes:
    """Read the `.dat` and write the same network as ONNX.

    Args:
        original: `dlib_face_recognition_resnet_model_v1.dat`.

    Returns:
        A model with input [1, 3, 150, 150] (RGB, 0-255; the normalisation is inside) and output [1, 128].

    Raises:
        ConversionError: the file is not the network this was written for.
    """
    reader = _Reader(original)
    layers = _convolutions(reader)
    graph = Graph("resnet")

    kernel, bias = next(layers)
    average = np.array(AVERAGES, dtype=np.float64).reshape(1, 3, 1, 1)
    bias = (bias - (kernel.astype(np.float64) * average / _SCALE).sum(axis=(1, 2, 3))).astype(np.float32)
    features = _convolution(graph, INPUT, kernel / np.float32(_SCALE), bias, stride=2)
    features = graph.one("Relu", features)
    features = graph.one("MaxPool", features, kernel_shape=[3, 3], strides=[2, 2])
    side, channels = 35, 32  # (150 - 7) // 2 + 1 = 72, then (72 - 3) // 2 + 1

    for outputs, halves in _BLOCKS:
        branch = _convolution(graph, features, *next(layers), stride=2 if halves else 1)
        branch = graph.one("Relu", branch)
        branch = _convolution(graph, branch, *next(layers), stride=1)
        if halves:
            features = graph.one("AveragePool", features, kernel_shape=[2, 2], strides=[2, 2])
            features = _fill_up(graph, features, channels=outputs - channels, edge=0)
            edge = side // 2 - ((side - 3) // 2 + 1)
            branch = _fill_up(graph, branch, channels=0, edge=edge)
            side //= 2
        features = graph.one("Relu", graph.one("Add", branch, features))
        channels = outputs

    reader.seek(b"fc_2")
    if (reader.integer(), reader.integer()) != (DIMENSION, 256):
        raise ConversionError("the last layer of the .dat has another size than dlib's ResNet has")
    last = graph.constant(reader.tensor().reshape(256, DIMENSION))
    pooled = graph.one("Flatten", graph.one("GlobalAveragePool", features))
    graph.named("MatMul", [pooled, last], OUTPUT)
    return serialise(
        graph,
        "dlib_resnet",
        [float_value(INPUT, [1, 3, CHIP_PX, CHIP_PX])],
        [float_value(OUTPUT, [1, DIMENSION])],
    )


def _convolution(graph: Graph, features: str, kernel: FloatArray, bias: FloatArray, *, stride: int) -> str:
    """A convolution as dlib pads it: by half the kernel at stride 1, else not at all."""
    side = kernel.shape[2]
    pad = side // 2 if stride == 1 else 0
    return graph.one(
        "Conv",
        features,
        graph.constant(kernel),
        graph.constant(bias),
        kernel_shape=[side, side],
        strides=[stride, stride],
        pads=[pad] * 4,
    )


def _fill_up(graph: Graph, features: str, *, channels: int, edge: int) -> str:
    """Zeros behind the last channel and at the lower and right edge."""
    if channels == edge == 0:
        return features
    pads = graph.constant([0, 0, 0, 0, 0, channels, edge, edge], np.int64)
    return graph.one("Pad", features, pads)


def _known_picture(number: int) -> FloatArray:
    """A picture of integers only, the same on every machine: [150, 150, 3] RGB, 0-255."""
    y, x, c = np.meshgrid(np.arange(CHIP_PX), np.arange(CHIP_PX), np.arange(3), indexing="ij")
    stripes = (x * (number + 2) + y * (5 - number) + c * 40) // 7 * 11
    blobs = (x - 75) ** 2 // (60 + number) + (y - 70) ** 2 // 90
    return ((stripes + blobs) % 256).astype(np.float32)


def prove_dlib_resnet(converted: bytes) -> float:
    """Show that the converted file answers as dlib itself did, once, to two pictures.

    Returns:
        The largest difference of any of the 2 x 128 values (descriptors are about 1 long).

    Raises:
        ConversionError: the difference passes `LARGEST_ERROR`.
    """
    known = base64.b64decode("".join(_KNOWN_ANSWERS))
    answers = np.array(struct.unpack(f"<{2 * DIMENSION}f", known)).reshape(2, DIMENSION)
    largest = 0.0
    for number, expected in enumerate(answers):
        picture = _known_picture(number).transpose(2, 0, 1)[None]
        (seen,) = run(converted, {INPUT: np.ascontiguousarray(picture)})
        largest = max(largest, float(np.abs(seen[0] - expected).max()))
    if not largest <= LARGEST_ERROR:
        raise ConversionError(
            f"the converted network is {largest:.2g} off dlib's own answers: install another onnx version"
        )
    return largest
