"""The files of a model folder: plain tensors and JSON, checked as they are read. Nothing in a folder is executed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from latentcap.data.errors import UserError

FORMAT_VERSION = 1
FILES = ("config.json", "model.safetensors", "tokenizer.json")


def read_config(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a model folder. Raises UserError where the folder is not whole or not ours."""
    if not folder.is_dir():
        raise UserError(f"model folder '{folder}' does not exist. Train one with latentcap train, or give its path.")
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(f"model folder '{folder}' lacks {', '.join(missing)}: it must hold {', '.join(FILES)}.")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{folder / 'config.json'} is not JSON: {error}") from error
    if not isinstance(config, dict) or config.get("format") != "latentcap":
        raise UserError(f"{folder / 'config.json'} is not of latentcap: its 'format' is not 'latentcap'.")
    if config.get("version") != FORMAT_VERSION:
        raise UserError(
            f"model folder '{folder}' has format version {config.get('version')}; this program reads version "
            f"{FORMAT_VERSION}. Export it again with the program's version that trained it, or update this one."
        )
    absent = [name for name in ("model", "fields", "image", "search") if name not in config]
    if absent:
        raise UserError(f"{folder / 'config.json'} lacks {', '.join(absent)}.")
    return config


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
    model.load_state_dict({name: value.to(target[name].dtype) for name, value in state.items()})
