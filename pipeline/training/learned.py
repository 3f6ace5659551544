"""What a run learns from its training data before the first step: vocabulary, statistics of fields, classes, views.

The weights are made for it, so it belongs to the checkpoint: a run that goes on takes it from there.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from latentcap.data.batches.context import ContextFields
from latentcap.data.batches.datamodule import CaptionData
from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.data.batches.views import ViewSlots
from latentcap.data.columns import each
from latentcap.data.errors import UserError
from latentcap.data.example import Example
from latentcap.model.label_values import label_classes, list_shares
from latentcap.model_folder import read_config
from latentcap.saved_model import read_slots

KEY = "learned_from_data"  # in a checkpoint
NAMED = 3  # words of which a message gives examples

logger = logging.getLogger(__name__)


@dataclass
class Learned:
    """All that a model's shape and the meaning of its rows depend on, besides its settings.

    Attributes:
        label_lists: of labels with several values, the share of training examples that have each class.
        context: whether anything is known of a training example besides its images.
        settings: those that it follows from, by their names on the command line.
        digest: of the training examples.
    """

    tokenizer: CaptionTokenizer
    fields: ContextFields
    labels: dict[str, list[str]]
    label_lists: dict[str, list[float]]
    context: bool
    slots: ViewSlots
    settings: dict[str, Any]
    digest: str

    @classmethod
    def from_data(
        cls,
        data: CaptionData,
        *,
        start_from: Path | None,
        labels: Sequence[str],
        max_views: int,
        frozen_labels: bool = False,
    ) -> Learned:
        """Of training examples; where a model folder is the start, its words and views come first.

        ``frozen_labels``: the classes are those of that folder, whose label head stays as it is.
        """
        examples = data.examples["train"]
        base = CaptionTokenizer.load(start_from / "tokenizer.json") if start_from else None
        known = read_slots(start_from).names if start_from else ()
        if frozen_labels and labels:
            classes, lists = _classes_of_folder(start_from, labels)
        else:
            classes = label_classes(examples, labels)
            lists = list_shares(examples, classes)
        fields = data.context_fields()
        return cls(
            data.build_tokenizer(base),
            fields,
            classes,
            lists,
            bool(fields.numbers or fields.categories) or any(each(examples, "context")),
            ViewSlots.of(examples, max_views, known=known),
            settings_of(data, labels),
            digest_of(examples),
        )

    @classmethod
    def from_checkpoint(cls, path: Path, data: CaptionData, *, labels: Sequence[str], max_views: int) -> Learned | None:
        """What the checkpoint holds, None where it is not one of ours; what has changed since is logged.

        Raises UserError where a setting has changed that it follows from.
        """
        try:
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=True).get(KEY)
        except (OSError, RuntimeError, ValueError, EOFError, AttributeError, pickle.UnpicklingError):
            return None  # the trainer opens it next, and says what is wrong with it
        if held is None:
            return None
        _refuse_other_settings(held["settings"], settings_of(data, labels), path)
        found = cls(
            CaptionTokenizer.from_text(held["tokenizer"]),
            ContextFields(
                numbers={name: (mean, deviation) for name, (mean, deviation) in held["numbers"].items()},
                categories=held["categories"],
            ),
            held["labels"],
            held.get("label_lists", {}),
            held.get("context", True),
            ViewSlots(max_views, tuple(held["views"])),
            held["settings"],
            held["digest"],
        )
        if found.digest != digest_of(data.examples["train"]):
            logger.warning(_changed(found.tokenizer, data, path))
        return found

    def to_checkpoint(self) -> dict[str, Any]:
        """Plain values, for :meth:`from_checkpoint`."""
        return {
            "tokenizer": self.tokenizer.to_text(),
            "numbers": {name: list(pair) for name, pair in self.fields.numbers.items()},
            "categories": self.fields.categories,
            "labels": self.labels,
            "label_lists": self.label_lists,
            "context": self.context,
            "views": list(self.slots.names),
            "settings": self.settings,
            "digest": self.digest,
        }


def _classes_of_folder(
    folder: Path | None, names: Sequence[str]
) -> tuple[dict[str, list[str]], dict[str, list[float]]]:
    config = read_config(folder) if folder else {}
    known, lists = config.get("labels", {}), config.get("label_lists", {})
    lacking = [name for name in names if name not in known]
    if lacking:
        raise UserError(
            f"model.optim.frozen lists the labels, and there is no head for {', '.join(lacking)} in model.start_from "
            f"({folder or 'not set'}). Start from a model that has learned them, or leave labels out of frozen "
            "(--model.optim.frozen [])."
        )
    return {name: known[name] for name in names}, {name: lists[name] for name in names if name in lists}


def settings_of(data: CaptionData, labels: Iterable[str]) -> dict[str, Any]:
    tokenizer = {f"data.tokenizer.{name}": value for name, value in asdict(data.tokenizer_config).items()}
    fields = {"data.fields.numbers": data.fields.numbers, "data.fields.categories": data.fields.categories}
    return tokenizer | {name: list(value) for name, value in (fields | {"data.fields.labels": tuple(labels)}).items()}


def digest_of(examples: Iterable[Example]) -> str:
    """Of everything that training reads of the examples, but not of their images, wherever those are."""
    digest = hashlib.sha256()
    for example in examples:
        known = (example.context, sorted(example.numbers.items()), sorted(example.categories.items()))
        texts = (example.captions, example.paraphrases, sorted(example.labels.items()))
        digest.update(
            repr((example.id, len(example.images), example.views, known, texts)).encode("utf-8", "surrogatepass")
        )
    return digest.hexdigest()


def _refuse_other_settings(then: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    changed = [name for name, value in now.items() if then.get(name) != value]
    if changed:
        differ = "; ".join(f"{name} is {now[name]} and was {then.get(name)}" for name in changed)
        raise UserError(
            f"{differ} when {path} was written: words, fields and labels cannot change within a run. Give what it was, "
            f"or start a new run from the model of this one: leave out --ckpt_path and give --model.start_from FOLDER, "
            "where FOLDER is its 'model' folder, and another --trainer.default_root_dir."
        )


def _changed(tokenizer: CaptionTokenizer, data: CaptionData, path: Path) -> str:
    """One sentence on data that are not those that the checkpoint was trained on."""
    said = f"the training data have changed since {path} was written; the run goes on with its vocabulary"
    if tokenizer.kind == "word":
        known = set(tokenizer.vocab)
        new = [word for word in data.build_tokenizer().vocab if word not in known]
        if new:
            named = ", ".join(new[:NAMED]) + (", ..." if len(new) > NAMED else "")
            said += (
                f", which lacks {len(new):,} word{'s' if len(new) > 1 else ''} of theirs ({named}): a new run with "
                "--model.start_from and the model folder of this one learns them"
            )
    return f"{said}."
