"""Starting from a model folder whose vocabulary or fields differ: what fits is copied, and what was done is said."""

from __future__ import annotations

from pathlib import Path

import torch

from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.model.caption_model import CaptionModel
from latentcap.model_tensors import read_tensors


def start_model(model: CaptionModel, folder: Path, old: CaptionTokenizer, new: CaptionTokenizer) -> str:
    """Copy a model folder's weights into a model whose vocabulary and fields may differ; say in words what was done.

    Rows of word tables are copied by token. Tensors that do not fit start afresh.
    """
    state = read_tensors(folder / "model.safetensors")
    target = model.state_dict()
    ids = {token: index for index, token in enumerate(old.vocab)}
    shared = [(row, ids[token]) for row, token in enumerate(new.vocab) if token in ids]
    rows, sources = (torch.tensor(values) for values in zip(*shared, strict=True))
    copied, fresh = [], []
    for name, value in target.items():
        if name in ("decoder.embedding.weight", "decoder.bias", "context.embedding.weight") and name in state:
            value[rows] = state[name][sources].to(value.dtype)
            copied.append(name)
        elif name in state and state[name].shape == value.shape:
            value.copy_(state[name])
            copied.append(name)
        else:
            fresh.append(name)
    kept = f"{len(shared):,} of {len(new):,} words have their rows from {folder}"
    afresh = f"; {len(fresh)} tensors start afresh: {', '.join(fresh[:5])}" if fresh else ""
    return f"start from {folder}: {len(copied)} tensors copied; {kept}, {len(new) - len(shared):,} are new{afresh}."
