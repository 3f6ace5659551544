"""A folder that captions without PyTorch: two graphs, tokenizer, config, and the program that runs them."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

from latentcap.data.errors import UserError
from latentcap.data.readers.fields import WORDS
from latentcap.export.graphs import STATES, make_graphs
from latentcap.export.int8 import in_int8
from latentcap.export.weights import in_half, save_graph
from latentcap.model.prune import parse_budget, set_budget
from latentcap.saved_model import SavedModel
from latentcap.search.config import SearchConfig
from latentcap.search.guidance import UNSURE, WHOLE, rarity_of, words_of

FILES = ("encode.onnx", "step.onnx", "tokenizer.json", "config.json", "run.py")
SEARCH = ("beam_size", "max_length", "min_length", "length_penalty", "guidance")


def export_onnx(
    model: Path, folder: Path, *, half: bool = False, int8: Path | None = None, heads: str | None = None
) -> None:
    """Write a model folder as ``FILES``.

    Args:
        half: weights are stored in half precision, and computed with in float32.
        int8: a folder or tar of images: CNN and matrices are stored and multiplied in 8 bits, with ranges measured on
            these.
        heads: a head budget such as "1+1": only the first visual + text heads are exported.

    Raises:
        UserError: ``folder`` holds other things, the model is not whole, or has what is not exported; there are no
            images to measure ranges on.
    """
    check_folder(folder, FILES)
    saved = SavedModel.read(model)
    if heads is not None:
        set_budget(saved.model, *parse_budget(heads))
    check_exportable(saved, model)
    graphs = make_graphs(saved.model, saved.image, saved.tokenizer.never_generated)
    if int8 is not None:
        graphs = in_int8(graphs, int8, saved.image)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").unlink(missing_ok=True)
    for name, graph in graphs.items():
        save_graph(in_half(graph) if half else graph, folder / f"{name}.onnx")
    saved.tokenizer.save(folder / "tokenizer.json")
    shutil.copyfile(str(files(__package__) / "run.py"), folder / "run.py")
    (folder / "config.json").write_text(json.dumps(describe(saved), indent=2) + "\n", encoding="utf-8")


def check_folder(folder: Path, own: tuple[str, ...]) -> None:
    """Raises UserError where the folder is a file, or holds what an export does not write."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"'{folder}' is a file: give the name of a new folder to export to.")
    other = sorted(path.name for path in folder.iterdir() if path.name not in own) if folder.exists() else []
    if other:
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        raise UserError(f"folder '{folder}' holds other things ('{other[0]}'{more}): give a new or empty folder.")


def check_exportable(saved: SavedModel, model: Path) -> None:
    """Raises UserError, with the reason, for what the graphs and their search do not have."""
    config = saved.model.config
    if config.fusion.routed_top_k:
        raise UserError(
            f"model '{model}' routes its heads: which products are computed depends on the image or word, which the "
            "graphs cannot say. Export a model that was trained with fusion.routed_top_k 0."
        )
    if config.context.encoder not in ("none", "embedding"):
        raise UserError(
            f"model '{model}' reads its context with a transformers encoder, which is not exported. Export a model "
            "that was trained with context.encoder 'embedding' or 'none'."
        )
    if saved.state_findings:
        raise UserError(
            f"model '{model}' adds sentences for findings to its drafts, which an export does not. Take "
            "'state_findings' out of its config.json to export what the decoder writes."
        )
    plain = SearchConfig(
        num_captions=saved.search.num_captions, **{name: getattr(saved.search, name) for name in SEARCH}
    )
    other = [name for name, value in plain.to_dict().items() if getattr(saved.search, name) != value]
    if other:
        raise UserError(
            f"model '{model}' searches with {', '.join(other)}, which an export does not have: it has "
            f"{', '.join(SEARCH)}. Take {'it' if len(other) == 1 else 'them'} out of 'search' in its config.json."
        )


def describe(saved: SavedModel) -> dict[str, Any]:
    """The ``config.json`` of an export: what a program needs to know besides the graphs."""
    model, tokenizer = saved.model, saved.tokenizer
    head, context = model.labels, None
    if model.context is not None:
        fields = model.context.fields
        context = {
            "max_tokens": model.config.context.max_tokens,
            "numbers": fields.numbers,
            "categories": fields.categories,
        }
    return {
        "format": "latentcap-onnx",
        "version": 1,
        "image": saved.image.to_dict(),
        "views": model.config.max_views,
        "context": context,
        "labels": head.classes if head is not None else {},
        "thresholds": {name: head.thresholds[head.span(name)].tolist() for name in head.lists}
        if head is not None
        else {},
        "tokenizer": tokenizer.kind,
        "bos": tokenizer.bos_id,
        "eos": tokenizer.eos_id,
        "states": list(STATES),
        "hidden": model.config.decoder.hidden_dim,
        "latent": model.config.latent_dim,
        "search": {name: getattr(saved.search, name) for name in SEARCH},
        "guide": _guide(saved),
    }


def _guide(saved: SavedModel) -> dict[str, Any] | None:
    """What guides the search: the label, which of its classes are words, their ids, and how rare each is."""
    head, words = saved.model.labels, words_of(saved.model.labels, saved.tokenizer)
    if head is None or not words:
        return None
    return {
        "label": list(head.classes).index(WORDS),
        "classes": list(words),
        "words": list(words.values()),
        "rarity": rarity_of(head, words).tolist(),
        "unsure": UNSURE,
        "whole": WHOLE,
    }
