"""Learning from trained models beside the true words: what they think likely in each place, averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from latentcap.data.batches.context import ContextFields
from latentcap.data.batches.dataset import Batch
from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.data.errors import UserError
from latentcap.in_the_box import find_model
from latentcap.model.caption_model import CaptionModel
from latentcap.model_tensors import in_half
from latentcap.saved_model import SavedModel
from latentcap.training.losses import word_logits


class Teachers:
    """Models whose probabilities a new one learns (knowledge distillation, Hinton et al. 2015, arXiv 1503.02531).

    Several of them, of other seeds or settings, become one of their size. They read the regions that the new model
    reads, so its CNN stays as it is and is theirs, too: the CNN runs once.

    Args:
        folders: model folders, or names of models in the box.
        model, tokenizer, context_tokenizer: what learns, its vocabulary, and that of a transformers encoder of context.
        device: where it learns.

    Raises:
        UserError: a folder has another vocabulary, another context or another CNN, or the CNN learns, too.
    """

    def __init__(
        self,
        folders: Sequence[str],
        model: CaptionModel,
        *,
        tokenizer: CaptionTokenizer,
        context_tokenizer: Any = None,
        device: torch.device,
    ) -> None:
        if not model.backbone.frozen:
            raise UserError(
                "model.optim.teachers needs a CNN that stays as it is, for teachers read its regions: set "
                "model.model.backbone.trainable to 'none' (--config sentences)."
            )
        self.models = [self._read(folder, model, tokenizer, context_tokenizer).to(device) for folder in folders]

    @staticmethod
    def _read(folder: str, model: CaptionModel, tokenizer: CaptionTokenizer, context_tokenizer: Any) -> CaptionModel:
        saved = SavedModel.read(find_model(folder))
        same = "train from the same data, with model.start_from a folder that the teacher started from, too"
        if saved.tokenizer.content_hash != tokenizer.content_hash:
            raise UserError(f"model.optim.teachers: {folder} has other words than this run: {same}.")
        if _context(saved.model, saved.context_tokenizer) != _context(model, context_tokenizer):
            raise UserError(f"model.optim.teachers: {folder} reads another context than this run: {same}.")
        theirs, ours = saved.model.backbone.state_dict(), model.backbone.state_dict()
        if theirs.keys() != ours.keys() or not all(
            torch.equal(in_half(value), in_half(ours[name].cpu())) for name, value in theirs.items()
        ):
            raise UserError(f"model.optim.teachers: {folder} has another CNN than this run: {same}.")
        saved.model.backbone = model.backbone
        return saved.model.eval().requires_grad_(False)

    @torch.no_grad()
    def probabilities(self, batch: Batch) -> Tensor:
        """Their mean probabilities (W, V) of each of the W words of the batch's captions, in the order of tokens."""
        inputs, words = batch.tokens[..., :-1], batch.tokens[..., 1:] != 0
        total: Tensor | None = None
        for teacher in self.models:
            hidden, _ = teacher.decoder(inputs, teacher.encode(**batch.inputs()), maps=False)
            found = word_logits(teacher.decoder, hidden[words]).float().softmax(-1)
            total = found if total is None else total.add_(found)
        assert total is not None
        return total.div_(len(self.models))


def _context(model: CaptionModel, tokenizer: Any) -> tuple[ContextFields, dict[str, int] | None] | None:
    """The fields that a model reads, and the words of its transformers encoder, wherever that lies."""
    return None if model.context is None else (model.context.fields, tokenizer.get_vocab() if tokenizer else None)
