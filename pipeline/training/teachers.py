"""Learning from trained models beside the true words and labels: what they think likely, averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentcap.data.batches.context import ContextFields
from latentcap.data.batches.dataset import Batch
from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.data.errors import UserError
from latentcap.in_the_box import find_model
from latentcap.model.backbone import Backbone
from latentcap.model.caption_model import CaptionModel
from latentcap.model.split_backbone import cut_like
from latentcap.model_tensors import in_half
from latentcap.saved_model import SavedModel
from latentcap.training.losses import Taught, word_logits


@dataclass(frozen=True)
class Lesson:
    """What is taught: the words of ``captions``, and the classes of the label head where ``labels``."""

    captions: bool
    labels: bool


class Teachers:
    """Models whose probabilities a new one learns (knowledge distillation, Hinton et al. 2015, arXiv 1503.02531).

    Several of them, of other seeds or settings, become one of their size. Where the new model's CNN stays as it is, it
    is theirs, too, and runs once. Where it learns, each has its own, of the same kind; what its frozen layers give is
    the same for all, and is computed once.

    Args:
        folders: model folders, or names of models in the box.
        model, tokenizer, context_tokenizer: what learns, its vocabulary, and that of a transformers encoder of context.
        lesson: what they teach.
        device: where it learns.

    Raises:
        UserError: a folder has another CNN; to teach captions, another vocabulary or another context; to teach labels,
            others.
    """

    def __init__(
        self,
        folders: Sequence[str],
        model: CaptionModel,
        *,
        tokenizer: CaptionTokenizer,
        context_tokenizer: Any = None,
        lesson: Lesson,
        device: torch.device,
    ) -> None:
        self.lesson = lesson
        self.models: list[CaptionModel] = []
        for folder in folders:
            saved = SavedModel.read(find_model(folder))
            self._check(folder, saved, model, tokenizer, context_tokenizer)
            if model.backbone.frozen:
                saved.model.backbone = model.backbone
            self.models.append(saved.model.eval().requires_grad_(False).to(device))

    def _check(
        self, folder: str, saved: SavedModel, model: CaptionModel, tokenizer: CaptionTokenizer, context_tokenizer: Any
    ) -> None:
        same = "train from the same data, with model.start_from a folder that the teacher started from, too"
        if self.lesson.captions:
            if saved.tokenizer.content_hash != tokenizer.content_hash:
                raise UserError(f"model.optim.teachers: {folder} has other words than this run: {same}.")
            if _context(saved.model, saved.context_tokenizer) != _context(model, context_tokenizer):
                raise UserError(f"model.optim.teachers: {folder} reads another context than this run: {same}.")
        if self.lesson.labels and _classes(saved.model) != _classes(model):
            raise UserError(
                f"model.optim.teachers: {folder} predicts other labels than this run: train from the same data, with "
                "the same data.fields.labels."
            )
        if not _shares_cnn(saved.model.backbone.built, model.backbone.built):
            what = "another CNN" if model.backbone.frozen else "other layers below those of the CNN that learn"
            raise UserError(f"model.optim.teachers: {folder} has {what} than this run: {same}.")

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Taught:
        """Their mean probabilities of each word of the batch's captions, and of each class of its labels."""
        inputs, words = batch.tokens[..., :-1], batch.tokens[..., 1:] != 0
        said: list[Tensor] = []
        seen: list[Tensor] = []
        # The label head reads no context: to teach labels alone it may be another than this run's.
        given = batch.inputs() if self.lesson.captions else batch.inputs() | {"context": None}
        for teacher in self.models:
            memory = teacher.encode(**given)
            if self.lesson.captions:
                hidden, _ = teacher.decoder(inputs, memory, maps=False)
                said.append(word_logits(teacher.decoder, hidden[words]).float().softmax(-1))
            if self.lesson.labels:
                assert teacher.labels is not None
                assert memory.labels is not None
                seen.append(teacher.labels.probabilities(memory.labels))
        return Taught(_mean(said), _mean(seen))


def _mean(values: Sequence[Tensor]) -> Tensor | None:
    return torch.stack(list(values)).mean(0) if values else None


def _shares_cnn(theirs: Backbone, ours: Backbone) -> bool:
    """Whether a teacher's CNN is the learner's as far as it does not learn; it is cut where that is cut."""
    there, here = theirs.state_dict(), ours.state_dict()
    if there.keys() != here.keys() or any(there[name].shape != value.shape for name, value in here.items()):
        return False
    if ours.frozen:
        return _same(there, here)
    if ours.split is None:  # images are read by each from the start
        return True
    theirs.split = cut_like(theirs.net, ours.split)
    return _same(theirs.split.stem.state_dict(), ours.split.stem.state_dict())


def _same(there: Mapping[str, Tensor], here: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(in_half(there[name]), in_half(value.cpu())) for name, value in here.items())


def _classes(model: CaptionModel) -> Any:
    """The labels that a model predicts: the classes of each, and which may have several."""
    return None if model.labels is None else (model.labels.classes, set(model.labels.lists))


def _context(model: CaptionModel, tokenizer: Any) -> tuple[ContextFields, dict[str, int] | None] | None:
    """The fields that a model reads, and the words of its transformers encoder, wherever that lies."""
    return None if model.context is None else (model.context.fields, tokenizer.get_vocab() if tokenizer else None)
