"""What the conversions share: naming, serialising and running a graph. Build time only.

`onnx` and onnxruntime are imported here and by the conversions; nothing that runs at the door
imports this module.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from appliance.errors import DrempelError

IR_VERSION = 8  # what onnxruntime 1.22 and every later one reads
OPSET = 13  # the first with all the operators used here as tensors, not attributes
ONNXRUNTIME = "com.microsoft"
"""The domain of onnxruntime's own operators, in version 1 since its first release."""

FloatArray = npt.NDArray[np.float32]


class ConversionError(DrempelError, RuntimeError):
    """A converted network does not say what the original says; nothing was installed."""


class Graph:
    """A list of nodes and constants in the making, each output with a name of its own."""

    def __init__(self, prefix: str) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._prefix = prefix
        self._count = 0

    def constant(self, value: npt.ArrayLike, kind: type[np.generic] = np.float32) -> str:
        """Add a constant and return its name."""
        name = self._name("const")
        self.initializers.append(numpy_helper.from_array(np.asarray(value, dtype=kind), name))
        return name

    def add(self, operator: str, inputs: Sequence[str], outputs: int = 1, **attributes: object) -> list[str]:
        """Add a node with several outputs and return their names."""
        names = [self._name(operator) for _ in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, name=names[0], **attributes))
        return names

    def one(self, operator: str, *inputs: str, **attributes: object) -> str:
        """Add a node with one output and return its name."""
        return self.add(operator, inputs, 1, **attributes)[0]

    def named(self, operator: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        """Add a node whose output is an output of the whole graph."""
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def _name(self, what: str) -> str:
        self._count += 1
        return f"{self._prefix}_{what}_{self._count}"


def float_value(name: str, shape: Sequence[int | str]) -> object:
    """A float32 input or output of a graph; a string in the shape is a dimension left open."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def serialise(graph: Graph, name: str, inputs: Sequence[object], outputs: Sequence[object]) -> bytes:
    """The bytes of a checked model."""
    proto = helper.make_graph(graph.nodes, name, list(inputs), list(outputs), graph.initializers)
    model = helper.make_model(
        proto,
        producer_name="drempel",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(ONNXRUNTIME, 1)],
    )
    onnx.checker.check_model(model, full_check=False)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def run(model: bytes, feeds: dict[str, FloatArray], outputs: Iterable[str] | None = None) -> list[FloatArray]:
    """One inference of a model held in memory, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    results: list[FloatArray] = session.run(None if outputs is None else list(outputs), feeds)
    return results
