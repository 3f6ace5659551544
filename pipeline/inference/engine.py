"""What runs a CNN that is not being trained: OpenVINO on a CPU, where it is installed, else PyTorch.

onnxruntime is there for those who ask for it.

OpenVINO multiplies at the speed of the processor's own matrix units and runs depthwise convolutions as fast as the
rest, which PyTorch's CPU kernels do not. What it compiled is kept on disk by the network's hash: the second start reads
it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from latentcap.config import ENGINES, BackboneConfig
from latentcap.data.cores import available_cores
from latentcap.data.errors import UserError
from latentcap.data.files import written_whole
from latentcap.inference.onnx_network import OnnxNetwork
from latentcap.inference.precision import fast_dtype
from latentcap.model.stored_backbone import BackboneFacts, StoredBackbone, weights_hash

if TYPE_CHECKING:
    from latentcap.model.backbone import Backbone

VARIABLE = "LATENTCAP_ENGINE"  # chooses for whole programs, and for the processes that they start
CACHE = Path("~/.cache/latentcap/engine")
KEPT = 24  # compiled networks on disk
PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.1}  # relative, of the norm: bfloat16 has 8 bits

Network = Callable[[Tensor], Tensor]


def asked_engine(given: str | None) -> str | None:
    """The engine that was asked for, by an argument or by the environment."""
    return given or os.environ.get(VARIABLE) or None


def choose_engine(wanted: str | None, device: torch.device, dtype: torch.dtype) -> str:
    """The engine for a device and a precision: the wanted one, else the fastest that is installed.

    Raises UserError for one that is unknown, not installed, or not made for the device or the precision.
    """
    wanted = asked_engine(wanted)
    installed = importlib.util.find_spec("openvino") is not None
    fits = device.type == "cpu" and dtype in PRECISIONS
    if wanted is None:
        return "openvino" if installed and fits else "torch"
    if wanted not in ENGINES:
        raise UserError(f"engine '{wanted}': there is none of that name. Engines: {', '.join(ENGINES)}.")
    if wanted == "onnxruntime":
        if not all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime")):
            raise UserError("engine 'onnxruntime' needs the extra 'export': pip install 'latentcap[export]'.")
        if device.type != "cpu" or dtype != torch.float32:
            raise UserError(f"engine 'onnxruntime' computes in float32 on a CPU, not in {dtype} on {device.type}.")
    if wanted == "openvino" and not installed:
        raise UserError("engine 'openvino' is not installed: pip install openvino. Without it, the engine is torch.")
    if wanted == "openvino" and not fits:
        raise UserError(f"engine 'openvino' computes in float32 or bfloat16 on a CPU, not in {dtype} on {device.type}.")
    return wanted


def choose_computing(engine: str | None, device: torch.device, dtype: torch.dtype | None) -> tuple[str, torch.dtype]:
    """The engine and the precision for a device: what is wanted, else the fastest. Raises UserError as above."""
    dtype = dtype or (torch.float32 if asked_engine(engine) == "onnxruntime" else fast_dtype(device))
    return choose_engine(engine, device, dtype), dtype


def inference_backbone(
    backbone: Backbone | StoredBackbone, dtype: torch.dtype, *, engine: str | None = None
) -> Network:
    """The backbone, for inference alone: normalised images (B, V, C, H, W) to regions (B, V * cells, C).

    Weights are those of this moment. The result follows no later change, and several threads may call it.
    """
    chosen, size = choose_engine(engine, _device(backbone), dtype), backbone.data_config["input_size"]
    if chosen == "onnxruntime":
        graph = OnnxNetwork(lambda: _Regions(_folded(backbone, torch.float32)), size)
        return lambda images: _views_apart(graph, images)
    if chosen == "openvino":
        name = weights_hash(backbone.config, backbone.state_dict())
        network = OpenVINONetwork(lambda: _Regions(_folded(backbone, torch.float32)), name, size, dtype)
        if _is_verified(name, dtype) or network.is_right():
            _keep_facts(name, dtype, backbone)
            return lambda images: _views_apart(network, images)
    return _in_type(_folded(backbone, dtype), dtype)


def inference_frozen_layers(backbone: Backbone, dtype: torch.dtype, *, engine: str | None = None) -> Network:
    """The same of the frozen layers of a backbone that is trained in part: images (B, C, H, W) to maps (B, c, h, w)."""
    from latentcap.inference.folded_backbone import inference_stem

    chosen, size = choose_engine(engine, _device(backbone), dtype), backbone.data_config["input_size"]
    if chosen == "onnxruntime":
        return OnnxNetwork(lambda: inference_stem(backbone, torch.float32), size)
    if chosen == "openvino":
        assert backbone.split is not None
        name = weights_hash(backbone.config, backbone.split.stem.state_dict())
        network = OpenVINONetwork(lambda: inference_stem(backbone, torch.float32), name, size, dtype)
        if network.is_right():
            return network
    return _in_type(inference_stem(backbone, dtype), dtype)


def stored_backbone(config: BackboneConfig, state: Mapping[str, Tensor], dtype: torch.dtype) -> StoredBackbone | None:
    """A backbone of which a network was compiled before, without building it; None where there was none.

    Args:
        state: its tensors, as ``Backbone.state_dict()`` names them.
    """
    name = weights_hash(config, state)
    facts = _facts(name)
    if not _is_verified(name, dtype):
        return None
    known = BackboneFacts(facts["num_channels"], tuple(facts["grid"]), _tuples(facts["data_config"]))
    return StoredBackbone(config, known, state)


# What is known of networks that were compiled before ------------------------------------------------------------------


def _facts(name: str) -> dict[str, Any]:
    try:
        facts = json.loads((CACHE.expanduser() / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) and {"num_channels", "grid", "data_config"} <= set(facts) else {}


def _is_verified(name: str, dtype: torch.dtype) -> bool:
    """Whether the compiled network was seen to give what PyTorch gives, by this version of the engine."""
    import openvino

    return [openvino.__version__, PRECISIONS[dtype]] in _facts(name).get("verified", [])


def _keep_facts(name: str, dtype: torch.dtype, backbone: Backbone | StoredBackbone) -> None:
    import openvino

    found, mark = _facts(name), [openvino.__version__, PRECISIONS[dtype]]
    if mark in found.get("verified", []):
        return
    facts = asdict(BackboneFacts(backbone.num_channels, backbone.grid, backbone.data_config))
    facts["verified"] = [*found.get("verified", []), mark]
    _keep(CACHE.expanduser() / f"{name}.json", json.dumps(facts).encode())


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _folded(backbone: Backbone | StoredBackbone, dtype: torch.dtype) -> Backbone:
    from latentcap.inference.folded_backbone import inference_copy  # with timm, which takes seconds to import

    return inference_copy(backbone.built, dtype)


def _device(module: nn.Module) -> torch.device:
    return next(iter(module.state_dict().values())).device


def _in_type(network: nn.Module, dtype: torch.dtype) -> Network:
    return lambda images: network(images.to(dtype)).float()


def _views_apart(network: Network, images: Tensor) -> Tensor:
    regions = network(images.flatten(0, 1))
    return regions.reshape(images.shape[0], -1, regions.shape[-1])


class _Regions(nn.Module):
    """A backbone of single views as one graph: images (B, C, H, W) to regions (B, h * w, C)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        regions: Tensor = self.backbone(images.unsqueeze(1))
        return regions


class OpenVINONetwork:
    """A network compiled by OpenVINO for this processor.

    A call uses as many threads as PyTorch would use in the calling thread: one image at a time takes all cores, and of
    several threads each has its own. For each such number the network is compiled once, weights shared.

    Args:
        make: the network, images (B, C, H, W) in float32 to one tensor, in evaluation mode; called where none was
            compiled before.
        name: of the network, other for other weights.
        size: (C, H, W).
        dtype: what it computes in; in and out are float32.
    """

    def __init__(
        self, make: Callable[[], nn.Module], name: str, size: tuple[int, int, int], dtype: torch.dtype
    ) -> None:
        self.size, self.dtype, self.precision = size, dtype, PRECISIONS[dtype]
        self._make, self._hash = make, name
        self._compiled: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._local = threading.local()

    def __call__(self, images: Tensor) -> Tensor:
        threads = torch.get_num_threads()
        requests = self._local.__dict__.setdefault("requests", {})
        if threads not in requests:
            requests[threads] = self._for(threads).create_infer_request()
        found = requests[threads].infer([images.float().contiguous().numpy()], share_inputs=True)
        return torch.from_numpy(next(iter(found.values())))

    def is_right(self) -> bool:
        """Whether OpenVINO can compile the network, and what that gives is what PyTorch gives."""
        from openvino.frontend import OpConversionFailure

        probe = torch.randn(2, *self.size, generator=torch.Generator().manual_seed(0))
        try:
            found = self(probe)
        except OpConversionFailure:  # an operation that it does not know
            return False
        with torch.inference_mode():
            expected = self._make()(probe)
        if found.shape != expected.shape:
            return False
        return bool((found - expected).norm() <= TOLERANCES[self.dtype] * expected.norm())

    def _for(self, threads: int) -> Any:
        with self._lock:
            if threads not in self._compiled:
                self._compiled[threads] = self._compile(threads)
            return self._compiled[threads]

    def _compile(self, threads: int) -> Any:
        import openvino

        core = openvino.Core()
        streams = max(1, available_cores() // threads)
        settings = {
            "INFERENCE_PRECISION_HINT": self.precision,
            "INFERENCE_NUM_THREADS": streams * threads,
            "NUM_STREAMS": streams,
            "ENABLE_CPU_PINNING": False,  # other programs run here too
        }
        processor = core.get_property("CPU", "FULL_DEVICE_NAME")
        key = repr((openvino.__version__, processor, sorted(settings.items())))
        path = CACHE.expanduser() / f"{self._hash}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.blob"
        try:
            return core.import_model(path.read_bytes(), "CPU", settings)
        except (OSError, RuntimeError):  # none is there, or of another version
            compiled = core.compile_model(self._graph(), "CPU", settings)
        _keep(path, compiled.export_model().getvalue())
        return compiled

    def _graph(self) -> Any:
        """The network as OpenVINO's graph, for any number of images.

        By its PyTorch frontend itself: ``openvino.convert_model``, which calls that too, reports its use to the vendor.
        """
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        example = torch.zeros(2, *self.size)
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # shapes that a trace takes for constants are constants here
            traced = torch.jit.trace(self._make(), example, check_trace=False)
            frontend = FrontEndManager().load_by_framework("pytorch")
            decoder = TorchScriptPythonDecoder(traced)  # the frontend calls it and does not hold it
            graph = frontend.convert(frontend.load(decoder))
        graph.reshape([-1, *self.size])
        return graph


def _keep(path: Path, compiled: bytes) -> None:
    """Write a compiled network where the next start finds it, and forget the oldest; a full disk stops nothing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path, "wb") as file:
            file.write(compiled)
        for old in sorted(path.parent.glob("*.blob"), key=os.path.getmtime)[:-KEPT]:
            old.unlink(missing_ok=True)
    except OSError:
        return
