"""Examples to batches of tensors: images or cached regions, context, captions.

Dimension letters: B examples, V slots of views, G captions of each, T tokens, N regions, C channels.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, overload

import torch
from torch import Tensor
from torch.utils.data import Dataset

from latentcap.data.batches.caption_tokens import padded
from latentcap.data.batches.context import ContextBatch, ContextCollator
from latentcap.data.batches.coverage import Coverage
from latentcap.data.batches.packed import PackedList
from latentcap.data.batches.sampler import Draw, TextPool
from latentcap.data.batches.sources import ImageSource
from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.data.columns import ExampleColumns, each, gather, take
from latentcap.data.errors import UserError
from latentcap.data.example import Example

logger = logging.getLogger(__name__)


@dataclass
class Batch:
    """What the model is trained and validated on.

    ``tokens`` (B, G, T) from ``<bos>`` to ``<eos>``, padded with 0; one of ``images`` (B, V, 3, H, W), ``regions``
    (B, V * h * w, C) and ``cells`` (B, V * h' * w', c), what all or the frozen layers of a CNN give for them;
    ``view_mask`` (B, V), True where there is an image; ``index`` (B,) into the split's examples; ``references`` of each
    example.
    """

    tokens: Tensor
    context: ContextBatch
    view_mask: Tensor
    index: Tensor
    images: Tensor | None = None
    regions: Tensor | None = None
    cells: Tensor | None = None
    references: list[list[str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.index)

    def inputs(self) -> dict[str, Any]:
        """What a model encodes: the images in the form that they have, and the context."""
        names = ("images", "regions", "cells", "view_mask", "context")
        return {name: getattr(self, name) for name in names}

    def pin_memory(self) -> Batch:
        """The same in memory that a GPU can read while the program goes on."""
        values: dict[str, Any] = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        pinned = {name: value.pin_memory() for name, value in values.items() if hasattr(value, "pin_memory")}
        return Batch(**{**values, **pinned})


class CaptionDataset(Dataset[Batch]):
    """The examples of one split; an item is a whole :class:`Batch`, drawn by ``CaptionBatchSampler``.

    Captions that are empty or only punctuation are left out, and examples with none left too; how many is logged.
    ``labelled`` keeps those with labels: they have one caption of no words, which teaches none.

    Args:
        shared: keep examples in memory that worker processes share.
        stand_ins: where none of a batch's images can be read, another example takes their place: a process that
            trains together with others may not leave out a step.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        tokenizer: CaptionTokenizer,
        context: ContextCollator,
        source: ImageSource,
        max_length: int,
        paraphrases: bool = False,
        labelled: bool = False,
        shared: bool = False,
        stand_ins: bool = False,
    ) -> None:
        self.context, self.source, self.stand_ins = context, source, stand_ins
        self.coverage = Coverage(max_length, tokenizer.unk_id)
        usable = source.usable(examples)
        many = isinstance(examples, ExampleColumns)
        kept, owns = array("q"), array("q")  # places in the examples, and how many captions each has
        empty = 0

        def texts() -> Iterator[list[list[int]]]:
            nonlocal empty
            fields = (each(examples, name) for name in ("captions", "paraphrases", "labels"))
            for place, (readable, captions, more, labels) in enumerate(zip(usable, *fields, strict=True)):
                own = self._encode(captions, tokenizer)
                extra = self._encode(more, tokenizer) if paraphrases else []
                if labelled and not own and labels:
                    own = [[tokenizer.bos_id]]
                empty += not own
                if own and readable:
                    kept.append(place)
                    owns.append(len(own))
                    yield own + extra

        self.texts: Sequence[list[list[int]]] = PackedList(texts()) if shared or many else list(texts())
        self.pools: Sequence[TextPool] = _Pools(self.texts, owns)
        if empty:
            logger.warning(
                "%d of %d examples have no caption but empty ones or punctuation: left out", empty, len(usable)
            )
        if usable.count(False):
            logger.warning("%d of %d examples have an unreadable image: left out", usable.count(False), len(usable))
        if not kept:
            raise UserError(
                f"none of the {len(usable)} {examples[0].split} examples has both a readable image and a caption with "
                "words. See what is wrong with them: latentcap prepare check DATA"
            )
        usable_ones = take(examples, kept)
        self.examples: Sequence[Example] = PackedList(usable_ones) if shared and not many else usable_ones

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, draws: list[Draw]) -> Batch | None:  # type: ignore[override]
        """The batch of some draws; None where there are none, or none of their images could be read.

        With ``stand_ins`` another example is read in place of those.

        Raises UserError where these are asked for and no image of the data set can be read.
        """
        if not draws:
            return None
        examples = gather(self.examples, [draw.example for draw in draws])
        kept, images = self.source.load(examples, [draw.variant for draw in draws])
        if not kept and self.stand_ins:
            draws, examples, images = self._stand_in(draws[0])
            kept = [0]
        if not kept:
            return None
        draws, examples = [draws[place] for place in kept], [examples[place] for place in kept]
        rows = []
        for draw in draws:
            texts = self.texts[draw.example]
            rows.append([texts[text] for text in draw.texts])
        return Batch(
            tokens=padded(rows),
            context=self.context.examples(examples),
            index=torch.tensor([draw.example for draw in draws]),
            references=[list(example.captions) for example in examples],
            **images,
        )

    def _stand_in(self, draw: Draw) -> tuple[list[Draw], list[Example], dict[str, Tensor]]:
        """The next example after a draw's that can be read, with as many texts."""
        for step in range(1, len(self)):
            place = (draw.example + step) % len(self)
            kept, images = self.source.load([self.examples[place]], [draw.variant])
            if kept:
                count = len(self.texts[place])
                texts = tuple(number % count for number in range(len(draw.texts)))
                return [Draw(place, texts, draw.variant)], [self.examples[place]], images
        raise UserError("no image of the training data can be read any more: see that its disk is still there.")

    def __getstate__(self) -> dict[str, Any]:
        """What a worker needs, which draws no captions itself."""
        return {**vars(self), "pools": []}

    def _encode(self, captions: Sequence[str], tokenizer: CaptionTokenizer) -> list[list[int]]:
        """``<bos>``, at most ``max_length`` tokens and ``<eos>`` of each caption that has any."""
        encoded = []
        for ids in map(tokenizer.encode, captions):
            if ids:
                self.coverage.add(ids)
                encoded.append([tokenizer.bos_id, *ids[: self.coverage.max_length], tokenizer.eos_id])
        return encoded


class _Pools(Sequence[TextPool]):
    """Lengths of the texts of each example, the first ``owns`` of which are its captions."""

    def __init__(self, texts: Sequence[list[list[int]]], owns: Sequence[int]) -> None:
        self.texts, self.owns = texts, owns

    def __len__(self) -> int:
        return len(self.owns)

    @overload
    def __getitem__(self, index: int) -> TextPool: ...

    @overload
    def __getitem__(self, index: slice) -> list[TextPool]: ...

    def __getitem__(self, index: int | slice) -> TextPool | list[TextPool]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        lengths, own = tuple(map(len, self.texts[index])), self.owns[index]
        return TextPool(lengths[:own], lengths[own:])
