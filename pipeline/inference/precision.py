"""What a processor multiplies in its own circuits, as against what it imitates at many times the cost."""

from __future__ import annotations

import platform

import torch

AMPERE = 8  # the first generation of NVIDIA's GPUs that multiplies bfloat16


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16. PyTorch's own answer also counts emulation, which is slower."""
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= AMPERE
    if device.type != "cpu" or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return True  # on ARM oneDNN asks for the instructions


def use_tensor_cores(device: torch.device) -> None:
    """Let a GPU round what float32 products multiply, as mixed precision does all others: attention is of these."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")


def dtype_named(name: str | None) -> torch.dtype | None:
    """The type of a name such as "bfloat16"; None where none is given."""
    found: torch.dtype | None = None if name is None else getattr(torch, name)
    return found


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it, float16 on other GPUs, else float32."""
    if multiplies_bfloat16(device):
        return torch.bfloat16
    return torch.float16 if device.type == "cuda" else torch.float32
