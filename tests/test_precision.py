"""Which processors multiply bfloat16: hardware counts, emulation does not."""

from __future__ import annotations

import pytest
import torch

from latentcap.inference.precision import fast_dtype, multiplies_bfloat16

CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("machine", "avx512", "amx", "expected"),
    [
        ("x86_64", True, False, torch.bfloat16),
        ("AMD64", False, True, torch.bfloat16),
        ("x86_64", False, False, torch.float32),  # Skylake to Ice Lake: oneDNN emulates it there
        ("aarch64", False, False, torch.bfloat16),
    ],
)
def test_a_cpu_without_the_instructions_computes_in_float32(
    monkeypatch: pytest.MonkeyPatch, machine: str, avx512: bool, amx: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert fast_dtype(CPU) == expected


@pytest.mark.parametrize(
    ("capability", "hip", "expected"),
    [
        ((7, 5), None, torch.float16),  # Turing
        ((8, 0), None, torch.bfloat16),
        ((9, 0), None, torch.bfloat16),
        ((7, 0), "6.4", torch.bfloat16),  # of AMD, whose numbers are others
    ],
)
def test_a_gpu_before_ampere_computes_in_float16(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], hip: str | None, expected: torch.dtype
) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: asked.append(device) or capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert fast_dtype(GPU) == expected
    assert set(asked) <= {GPU}


def test_other_devices_compute_in_float32() -> None:
    assert not multiplies_bfloat16(torch.device("mps"))
    assert fast_dtype(torch.device("mps")) == torch.float32
