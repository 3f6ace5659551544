"""The files of a model folder, and its configuration, checked as it is read. Nothing in a folder is executed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from latentcap.data.errors import UserError
from latentcap.in_the_box import model_names

FORMAT_VERSION = 2
FILES = ("config.json", "model.safetensors", "tokenizer.json")


def read_config(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a model folder. Raises UserError where the folder is not whole or not ours."""
    if not folder.is_dir():
        raise UserError(
            f"model folder '{folder}' does not exist. Train one with latentcap train, give its path, or a name in the "
            f"box: {', '.join(model_names())}."
        )
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(f"model folder '{folder}' lacks {', '.join(missing)}: it must hold {', '.join(FILES)}.")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{folder / 'config.json'} is not JSON: {error}") from error
    if not isinstance(config, dict) or config.get("format") != "latentcap":
        raise UserError(f"{folder / 'config.json'} is not of latentcap: its 'format' is not 'latentcap'.")
    version = config.get("version")
    if version not in range(1, FORMAT_VERSION + 1):
        raise UserError(
            f"model folder '{folder}' has format version {version}; this program reads versions up to "
            f"{FORMAT_VERSION}. Export it again with the program's version that trained it, or update this one."
        )
    absent = [name for name in ("model", "fields", "image", "search") if name not in config]
    if absent:
        raise UserError(f"{folder / 'config.json'} lacks {', '.join(absent)}.")
    if version == 1:
        config["model"]["fusion"] = _fusion_of_version_1(config["model"])
    return config


def _fusion_of_version_1(model: dict[str, Any]) -> dict[str, Any]:
    """The settings of the fusion layer, with what went without saying before there was a choice."""
    fusion = {"gates": "output", "position": "latents", **model.get("fusion", {})}
    if fusion.get("latent_dim") is None:
        heads = fusion.get("visual_heads", 4) + fusion.get("text_heads", 4)
        fusion["latent_dim"] = model.get("decoder", {}).get("embed_dim", 512) // max(heads, 1)
    return fusion
