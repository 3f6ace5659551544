"""Graphs whose CNN and matrices multiply 8-bit integers.

Convolutions are quantised by the ranges that their inputs and outputs have on a few hundred images, one scale for each
output channel of a weight; matrices and tables of embeddings by their own ranges, their inputs as they come.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static

from latentcap.data.batches.image_config import ImageConfig
from latentcap.data.batches.transforms import fit_image, load_image
from latentcap.data.errors import UserError
from latentcap.data.listing import iter_images

IMAGES = 256  # that ranges are taken from
CONVOLUTIONS = ["Conv", "Relu", "Clip"]  # an activation after a convolution becomes the end of its range
MATRICES = ["MatMul", "Gather"]


def in_int8(graphs: dict[str, onnx.ModelProto], images: Path, config: ImageConfig) -> dict[str, onnx.ModelProto]:
    """The graphs ``encode`` and ``step`` in 8 bits, calibrated on the images of a folder or tar.

    Raises UserError where there are none that can be read.
    """
    plain = {name: _without_changed_weights(graph) for name, graph in graphs.items()}
    encode = plain["encode"]
    given = _Calibration(calibration_images(images, config), encode)
    with tempfile.TemporaryDirectory() as made, _no_advice():
        file = Path(made, "encode.onnx")
        quantize_static(
            encode, file, given, op_types_to_quantize=CONVOLUTIONS, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        plain["encode"] = onnx.load(file)
        return {name: _matrices_in_int8(graph) for name, graph in plain.items()}


def calibration_images(source: Path, config: ImageConfig) -> Iterator[np.ndarray]:
    """At most ``IMAGES`` of the images, from all over the source: bytes (C, H, W). What cannot be read is left out."""
    listed = [entry.image for entry in iter_images(source)]
    count = 0
    for image in Random(0).sample(listed, len(listed)):
        try:
            pixels = fit_image(load_image(image, config), config).numpy()
        except OSError:
            continue
        yield pixels
        count += 1
        if count == IMAGES:
            return
    if not count:
        raise UserError(
            f"not one of the {len(listed)} images in '{source}' can be read: --int8 measures ranges on them."
        )


class _Calibration(CalibrationDataReader):
    """What the graph is fed with: each image as the only view of an example without context."""

    def __init__(self, images: Iterator[np.ndarray], encode: onnx.ModelProto) -> None:
        self.images = images
        self.inputs = {entry.name: entry.type.tensor_type for entry in encode.graph.input}

    def get_next(self) -> dict[str, Any] | None:
        pixels = next(self.images, None)
        if pixels is None:
            return None
        return {name: pixels[None, None] if name == "pixels" else self._nothing(name) for name in self.inputs}

    def _nothing(self, name: str) -> np.ndarray:
        kind = onnx.helper.tensor_dtype_to_np_dtype(self.inputs[name].elem_type)
        shape = [entry.dim_value or 1 for entry in self.inputs[name].shape.dim]
        empty = {"view_mask": True, "numbers": np.nan, "categories": -1}
        return np.full(shape, empty.get(name, 0), kind)


def _matrices_in_int8(graph: onnx.ModelProto) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as made:
        file = Path(made, "graph.onnx")
        quantize_dynamic(graph, file, op_types_to_quantize=MATRICES, per_channel=True, weight_type=QuantType.QInt8)
        return onnx.load(file)


@contextmanager
def _no_advice() -> Iterator[None]:
    """Without what onnxruntime says to those who quantise by hand: to prepare the graph, not to do it twice."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _without_changed_weights(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with each transposed or repeated weight as a weight of its own, for only such are quantised."""
    weights = {tensor.name: tensor for tensor in graph.graph.initializer}
    nodes = []
    for node in graph.graph.node:
        if node.op_type in ("Transpose", "Identity") and node.input[0] in weights:
            axes = [attribute.ints for attribute in node.attribute if attribute.name == "perm"]
            values = numpy_helper.to_array(weights[node.input[0]])
            values = np.ascontiguousarray(values.transpose(*axes)) if node.op_type == "Transpose" else values
            weights[node.output[0]] = numpy_helper.from_array(values, node.output[0])
        else:
            nodes.append(node)
    read = {name for node in nodes for name in node.input}
    plain = onnx.ModelProto()
    plain.CopyFrom(graph)
    del plain.graph.node[:], plain.graph.initializer[:]
    plain.graph.node.extend(nodes)
    plain.graph.initializer.extend(tensor for name, tensor in weights.items() if name in read)
    return plain
