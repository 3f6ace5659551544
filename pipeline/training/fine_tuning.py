"""Starting from a model folder whose words, fields, labels or heads differ: what both have is copied, by name."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentcap.config import ModelConfig
from latentcap.data.batches.context import ContextFields, load_context_tokenizer
from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.data.errors import UserError
from latentcap.model.backbone import Backbone
from latentcap.model.caption_model import CaptionModel
from latentcap.model.context import load_text_encoder
from latentcap.model_folder import read_config
from latentcap.model_tensors import read_tensors
from latentcap.saved_model import CONTEXT_ENCODER, read_fields, read_settings

MISSING = "(missing)"  # the last row of a category's table
COUNTED_BY_NAME = (
    "context.number_",
    "context.categories.",
    "labels.heads.",
    "labels.thresholds",
)  # tensors whose entries are counted by name
WORD_TABLES = ("decoder.embedding.weight", "decoder.bias", "context.embedding.weight")


def check_start(config: ModelConfig, folder: Path, *, frozen: Sequence[str] = ()) -> None:
    """Raises UserError where no tensor of the folder's decoder would fit a model of these settings, or a part that is
    to stay as it is could not be that of the folder."""
    settings = read_settings(folder)
    there = settings.decoder
    names = ("embed_dim", "hidden_dim")
    differ = [name for name in names if getattr(there, name) != getattr(config.decoder, name)]
    if differ:
        have = " and ".join(f"{name} {getattr(there, name)}" for name in differ)
        here = " and ".join(str(getattr(config.decoder, name)) for name in differ)
        options = " ".join(f"--model.model.decoder.{name} {getattr(there, name)}" for name in differ)
        raise UserError(
            f"model.start_from {folder} has {have}, this run {here}: its weights do not fit. Give {options}, or leave "
            "out model.start_from to train anew."
        )
    if "labels" in frozen and settings.label_pooling != config.label_pooling:
        raise UserError(
            f"model.start_from {folder} has a label head that reads {settings.label_pooling}, this run's would read "
            f"{config.label_pooling}, and model.optim.frozen keeps it as it is. Give --model.model.label_pooling "
            f"{settings.label_pooling}, or train the head first (--config words)."
        )


@dataclass
class Places:
    """What tensors of a model stand for, whatever their order.

    ``tensors``: for those whose own name counts them, a name that does not. ``entries``: for a name, the dimension that
    is a list of things, and their names.
    """

    tensors: dict[str, str] = field(default_factory=dict)
    entries: dict[str, tuple[int, Sequence[Hashable]]] = field(default_factory=dict)


def places(
    config: ModelConfig, words: Sequence[str], fields: ContextFields, labels: Mapping[str, Sequence[str]]
) -> Places:
    found = Places()
    found.entries = dict.fromkeys(WORD_TABLES, (0, words))
    for name in ("number_name", "number_value", "number_missing"):
        found.entries[f"context.{name}"] = 0, list(fields.numbers)
    for index, (name, values) in enumerate(fields.categories.items()):
        found.tensors[f"context.categories.{index}.weight"] = f"category {name}"
        found.entries[f"category {name}"] = 0, [*values, MISSING]
    for index, (name, classes) in enumerate(labels.items()):
        for part in ("weight", "bias"):
            found.tensors[f"labels.heads.{index}.{part}"] = f"label {name} {part}"
            found.entries[f"label {name} {part}"] = 0, classes
    every = [(name, entry) for name in labels for entry in labels[name]]
    found.entries["summarise_labels.weight"], found.entries["labels.thresholds"] = (1, every), (0, every)
    found.entries["decoder.fusion.view"] = 0, range(config.max_views)
    counts = {"visual": config.fusion.visual_heads, "text": config.fusion.text_heads}
    for kind, count in counts.items():
        found.entries[f"decoder.fusion.{kind}.up_key"] = 0, range(count)
        found.entries[f"decoder.fusion.{kind}.up_value"] = 0, range(count)
        found.entries[f"decoder.fusion.{kind}.query.weight"] = 0, _each(range(count), config.head_dim)
    heads = [(kind, head) for kind, count in counts.items() for head in range(count)]
    found.entries["decoder.fusion.head_gate"] = 0, heads
    found.entries["decoder.fusion.query_gate.weight"] = 0, heads
    found.entries["decoder.fusion.output.weight"] = 1, _each(heads, config.head_dim)
    return found


def start_model(model: CaptionModel, folder: Path, words: CaptionTokenizer, context_tokenizer: Any = None) -> str:
    """Copy into ``model``, whose words are ``words``, all that a model folder has of it.

    Words, numbers, categories with their values, labels with their classes, views and heads are found by name; what the
    folder lacks stays as it is. Numbers keep their meaning where this data has another mean and deviation. A CNN or
    text encoder that is another one gets its own pre-trained weights.

    Returns:
        One sentence: what is kept, new and dropped.
    """
    settings = read_settings(folder)
    old_words = CaptionTokenizer.load(folder / "tokenizer.json")
    old_fields, old_labels = read_fields(folder), read_config(folder).get("labels", {})
    fields = model.context.fields if model.context is not None else ContextFields()
    labels = model.labels.classes if model.labels is not None else {}
    old = places(settings, old_words.vocab, old_fields, old_labels)
    new = places(model.config, words.vocab, fields, labels)
    state = {old.tensors.get(name, name): value for name, value in read_tensors(folder / "model.safetensors").items()}
    _shift_numbers(state, old_fields, fields)
    other = _load_other_networks(model, settings, folder, context_tokenizer)
    anew = bool(labels and old_labels) and model.config.label_pooling != settings.label_pooling
    fresh: list[str] = []
    unread = set(state)
    for own_name, value in model.state_dict().items():
        name = new.tensors.get(own_name, own_name)
        unread.discard(name)
        other_head = anew and own_name.startswith("labels.")
        source = None if other_head or name.startswith(tuple(other)) else state.get(name)
        if source is None or not _copy(source, value, old.entries.get(name), new.entries.get(name)):
            fresh.append(own_name)
    overlaps = [_overlap("words", old_words.vocab, words.vocab)]
    places_here, places_there = model.config.fusion.position, settings.fusion.position
    overlaps += [f"positions are in {places_here}, there in {places_there}"] if places_here != places_there else []
    if anew:
        overlaps.append(
            f"the label head starts anew: it reads {model.config.label_pooling}, there {settings.label_pooling}"
        )
    for kind, before, after in (
        ("numbers", old_fields.numbers, fields.numbers),
        ("categories", _values(old_fields.categories), _values(fields.categories)),
        ("labels", _values(old_labels), _values(labels)),
    ):
        overlaps += [_overlap(kind, list(before), list(after))] if before or after else []
    for kind, names in (("new", fresh), ("dropped", unread)):
        parts = sorted(
            {_part(name) for name in names if not name.startswith((*COUNTED_BY_NAME, "category ", "label "))}
        )
        overlaps += [f"{kind}: {', '.join(parts)}"] if parts else []
    return f"start from {folder}: {'; '.join(overlaps)}."


def _copy(
    source: Tensor,
    target: Tensor,
    old: tuple[int, Sequence[Hashable]] | None,
    new: tuple[int, Sequence[Hashable]] | None,
) -> bool:
    """Copy what both have; False where that is nothing, because other dimensions differ."""
    if old is None or new is None:
        if source.shape != target.shape:
            return False
        target.copy_(source)
        return True
    axis, before = old
    _, after = new
    sizes, own = list(source.shape), list(target.shape)
    if sizes.pop(axis) != len(before) or own.pop(axis) != len(after) or sizes != own:
        return False
    index = {name: place for place, name in enumerate(before)}
    pairs = [(place, index[name]) for place, name in enumerate(after) if name in index]
    if pairs:
        to, origin = (torch.tensor(column) for column in zip(*pairs, strict=True))
        target.index_copy_(axis, to, source.index_select(axis, origin).to(target.dtype))
    return bool(pairs) or not after


def _shift_numbers(state: dict[str, Tensor], old: ContextFields, new: ContextFields) -> None:
    """Write each number's rows so that a value means what it meant, under the new data's mean and deviation."""
    for row, (name, (mean, deviation)) in enumerate(old.numbers.items()):
        if name in new.numbers:
            new_mean, new_deviation = new.numbers[name]
            value = state["context.number_value"][row].float()
            shift = value * (new_mean - mean) / deviation
            for key, change in (
                ("name", shift),
                ("missing", -shift),  # it is added to the name
                ("value", value * (new_deviation / deviation - 1)),
            ):
                table = state[f"context.number_{key}"] = state[f"context.number_{key}"].float()
                table[row] += change


def _load_other_networks(model: CaptionModel, there: ModelConfig, folder: Path, context_tokenizer: Any) -> list[str]:
    """Give a CNN or text encoder that is another than the folder's its own weights; returns the prefixes of both."""
    other = []
    if _network(model.config) != _network(there):
        model.backbone = Backbone(model.config.backbone)
        other.append("backbone.")
    if context_tokenizer is not None and not _same_tokenizer(context_tokenizer, folder / CONTEXT_ENCODER):
        assert model.context is not None
        model.context.encoder = load_text_encoder(model.config.context.encoder, load_weights=True)
        model.context.encoder.requires_grad_(model.config.context.trainable)
        other += ["context.encoder.", "context.adapt."]
    return other


def _same_tokenizer(tokenizer: Any, folder: Path) -> bool:
    return folder.is_dir() and load_context_tokenizer(folder).get_vocab() == tokenizer.get_vocab()


def _network(config: ModelConfig) -> tuple[object, ...]:
    backbone = config.backbone
    return backbone.name, backbone.stage, backbone.in_chans


def _each(names: Sequence[Hashable], size: int) -> list[Hashable]:
    return [(name, place) for name in names for place in range(size)]


def _values(tables: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{name} {value}" for name, values in tables.items() for value in values]


def _overlap(kind: str, before: Sequence[str], after: Sequence[str]) -> str:
    kept = len(set(before) & set(after))
    return f"{kind}: {kept:,} kept, {len(after) - kept:,} new, {len(before) - kept:,} dropped"


def _part(name: str) -> str:
    """The part of the model that a tensor belongs to, as its settings name it."""
    return ".".join(re.sub(r"\.(weight|bias)$", "", name).split(".")[: 1 if name.startswith("backbone.") else 3])
