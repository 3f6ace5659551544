"""A CNN run by onnxruntime, in float32: for processors and systems that OpenVINO is not built for."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

OPSET = 17


class OnnxNetwork:
    """A network as an ONNX graph, in a session for each number of threads that PyTorch would use in a calling thread.

    Args:
        make: the network, images (B, C, H, W) to one tensor (B, ...), in evaluation mode.
        size: (C, H, W).

    Raises:
        torch.onnx.OnnxExporterError: the network has an operation that the graph cannot say.
    """

    def __init__(self, make: Callable[[], nn.Module], size: tuple[int, int, int]) -> None:
        axes = {"images": {0: "batch"}, "found": {0: "batch"}}
        with TemporaryDirectory() as made, torch.inference_mode(), warnings.catch_warnings():
            file = Path(made, "graph.onnx")
            warnings.simplefilter("ignore")  # shapes that a trace takes for constants are constants here
            torch.onnx.export(
                make(), (torch.zeros(2, *size),), file, input_names=["images"], output_names=["found"],
                dynamic_axes=axes, opset_version=OPSET, dynamo=False,
            )  # fmt: skip
            self._graph = file.read_bytes()
        self._sessions: dict[int, Any] = {}
        self._lock = threading.Lock()

    def __call__(self, images: Tensor) -> Tensor:
        (found,) = self._for(torch.get_num_threads()).run(None, {"images": images.float().contiguous().numpy()})
        return torch.from_numpy(found)

    def _for(self, threads: int) -> Any:
        import onnxruntime

        with self._lock:
            if threads not in self._sessions:
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = threads
                self._sessions[threads] = onnxruntime.InferenceSession(
                    self._graph, options, providers=["CPUExecutionProvider"]
                )
            return self._sessions[threads]
