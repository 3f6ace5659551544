"""How the weights of a graph are stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

LEAST = 256  # values of a tensor that is worth storing in half precision


def in_half(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its weights in half precision, made float32 as it is loaded; those that it cannot hold stay."""
    halved, casts = onnx.ModelProto(), []
    halved.CopyFrom(graph)
    for tensor in halved.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < LEAST:
            continue
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if np.array_equal(np.isfinite(half), np.isfinite(values)):
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *halved.graph.node]
    del halved.graph.node[:]
    halved.graph.node.extend(nodes)
    return halved


def with_plain_weights(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph, whose constants became weights like others: the same values are stored once."""
    stored = {(tensor.raw_data, tuple(tensor.dims)): tensor.name for tensor in graph.graph.initializer}
    same: dict[str, str] = {}
    nodes = []
    for node in graph.graph.node:
        value = next((entry.t for entry in node.attribute if entry.name == "value"), None)
        if node.op_type == "Constant" and value is not None and value.data_type == onnx.TensorProto.FLOAT:
            value = numpy_helper.from_array(numpy_helper.to_array(value), node.output[0])
            key = value.raw_data, tuple(value.dims)
            same[value.name] = stored.setdefault(key, value.name)
            if same[value.name] == value.name:
                graph.graph.initializer.append(value)
        else:
            node.input[:] = [same.get(name, name) for name in node.input]
            nodes.append(node)
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    return graph


def save_graph(graph: onnx.ModelProto, path: Path) -> None:
    onnx.checker.check_model(graph)
    path.write_bytes(graph.SerializeToString())
