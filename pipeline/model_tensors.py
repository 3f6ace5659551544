"""The tensors of a model folder, and how they get into a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from latentcap.data.errors import UserError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file. Raises UserError for anything else, a pickle included."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(
            f"{path} is not a safetensors file ({error}). Pickled checkpoints can run code when they are opened and "
            "are never loaded: export a model folder with Captioner.save."
        ) from error


def in_half(value: Tensor) -> Tensor:
    """A float32 tensor in half precision, unless that cannot hold its values; any other as it is."""
    if value.dtype != torch.float32:
        return value
    half = value.half()
    return half if torch.equal(half.isfinite(), value.isfinite()) else value


def check_finite(state: Mapping[str, Tensor], what: str) -> None:
    """Raises UserError where weights are no numbers, as those of a training that broke down are."""
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(
                f"{what} holds values that are no numbers, first in '{name}': its training broke down. Train again "
                "with a lower learning rate (--model.optim.lr)."
            )


def load_state(model: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
    """Fill the model. Raises UserError where tensors are missing or do not fit."""
    target = model.state_dict()
    problems = [name for name in target if name not in state or state[name].shape != target[name].shape]
    unknown = [name for name in state if name not in target]
    if problems or unknown:
        name = (problems or unknown)[0]
        raise UserError(
            f"{folder / 'model.safetensors'} does not fit {folder / 'config.json'}: {len(problems)} tensors are "
            f"missing or of another shape and {len(unknown)} are unknown, first '{name}'."
        )
    check_finite(state, str(folder / "model.safetensors"))
    model.load_state_dict({name: value.to(target[name].dtype) for name, value in state.items()})
