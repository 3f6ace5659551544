"""What an image, or its context, is worth to a model: nats a word that a text costs more beside another example's."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from latentcap.data.batches.dataset import Batch
from latentcap.model.caption_model import CaptionModel
from latentcap.model.fusion import Memory
from latentcap.training.losses import next_word_loss

Part: TypeAlias = Literal["image", "context"]

LITTLE = 0.05  # nats a word; below it a model writes what it would write without looking


class Worth(nn.Module):
    """Means over the words of a split, of all processes; a step costs one more forward pass for each part."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.context = MeanMetric(nan_strategy="ignore"), MeanMetric(nan_strategy="ignore")

    @property
    def means(self) -> dict[Part, MeanMetric]:
        return {"image": self.image, "context": self.context}

    def update(self, model: CaptionModel, batch: Batch, memory: Memory, loss: Tensor) -> None:
        """``memory``: of the batch; ``loss``: of a word of it beside its own images and context, in nats."""
        words = (batch.tokens[..., 1:] != 0).sum()
        for part, mean in self.means.items():
            read = model.context is not None and batch.context.known() if part == "context" else True
            if read and len(batch) > 1:
                # Without context a memory is its image's alone.
                of_others = (
                    memory.select(others(batch))
                    if model.context is None
                    else model.encode(**exchanged(batch, part).inputs())
                )
                other, _ = next_word_loss(model.decoder, batch.tokens[..., :-1], batch.tokens[..., 1:], of_others)
                mean.update(other - loss, words)
            else:
                mean.update(0.0, 0)  # nothing to exchange; but processes wait for each other

    def compute(self) -> dict[str, float]:
        """Of each part that could be exchanged; begins anew."""
        values: dict[str, float] = {}
        for part, mean in self.means.items():
            if mean.update_called:
                values[part] = float(mean.compute())
            mean.reset()
        return {part: value for part, value in values.items() if not math.isnan(value)}


def others(batch: Batch) -> Tensor:
    """Another example's place in the batch for each of it, half of the batch further on.

    Neighbours are often of one patient, so the next example would not do.
    """
    places = torch.arange(len(batch), device=batch.index.device)
    return (places + len(batch) // 2) % len(batch)


def exchanged(batch: Batch, part: Part) -> Batch:
    """The batch with the images, or the contexts, of other examples."""
    rows = others(batch)
    if part == "context":
        return replace(batch, context=batch.context.rows(rows))
    held: dict[str, Any] = {name: getattr(batch, name) for name in ("images", "regions", "cells", "view_mask")}
    return replace(batch, **{name: value[rows] for name, value in held.items() if value is not None})


def little(worth: float) -> str:
    """A warning in words where an image is worth little; "" where it is not."""
    if not worth < LITTLE:
        return ""
    return (
        f"the right image in place of another is worth {worth:.3f} nats a word (below {LITTLE}): the captions are "
        "nearly those that the model would write without looking"
    )
