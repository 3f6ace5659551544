"""Examples to batches of tensors: images or cached regions, context, captions.

Dimension letters: B examples, V views, G captions of each, T tokens, N regions, C channels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from latentcap.data.batches.context import ContextBatch, ContextCollator
from latentcap.data.batches.sampler import Draw, TextPool
from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.data.batches.transforms import ImageConfig, load_image
from latentcap.data.cache.store import FeatureCache, entry_key
from latentcap.data.errors import UserError
from latentcap.data.example import Example

logger = logging.getLogger(__name__)


@dataclass
class Batch:
    """What the model is trained and validated on.

    ``tokens`` (B, G, T) from ``<bos>`` to ``<eos>``, padded with 0; one of ``images`` (B, V, 3, H, W), ``regions``
    (B, V * h * w, C) and ``cells`` (B, V * h' * w', c), what all or the frozen layers of a CNN give for them;
    ``view_mask`` (B, V); ``index`` (B,) into the split's examples; ``references`` of each example.
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


class ImageSource(Protocol):
    """Where the pixels or regions of a batch come from."""

    def usable(self, examples: Sequence[Example]) -> list[bool]:
        """Which examples have at least their images readable, as far as is known."""

    def load(self, examples: Sequence[Example], variants: Sequence[int]) -> tuple[list[int], dict[str, Tensor]]:
        """The places of the examples that could be read, and their ``images`` or ``regions`` with ``view_mask``."""


class CachedRegions:
    """What is cached of each image: training never runs the layers that gave it.

    ``name`` says what that is, a field of :class:`Batch`: ``regions`` of the whole CNN, or ``cells`` of a part of it.
    """

    def __init__(self, cache: FeatureCache, examples: Sequence[Example], name: str = "regions") -> None:
        self.cache, self.name = cache, name
        refs = [ref for example in examples for ref in example.images]
        self.digests = dict(zip(refs, cache.digests(refs), strict=True))

    def usable(self, examples: Sequence[Example]) -> list[bool]:
        return [self._readable(example) for example in examples]

    def load(self, examples: Sequence[Example], variants: Sequence[int]) -> tuple[list[int], dict[str, Tensor]]:
        views = max(len(example.images) for example in examples)
        mask = torch.zeros(len(examples), views, dtype=torch.bool)
        keys = []
        for row, (example, variant) in enumerate(zip(examples, variants, strict=True)):
            mask[row, : len(example.images)] = True
            keys += [entry_key(self.digests[ref] or "", variant) for ref in example.images]
        read = self.cache.read(keys)
        if not mask.all():
            padded = read.new_zeros(*mask.shape, *read.shape[1:])
            padded[mask] = read
            read = padded
        return list(range(len(examples))), {
            self.name: read.reshape(len(examples), -1, read.shape[-1]),
            "view_mask": mask,
        }

    def _readable(self, example: Example) -> bool:
        digests = [self.digests.get(ref) for ref in example.images]
        return all(digest is not None and entry_key(digest) in self.cache for digest in digests)


class LoadedImages:
    """Pixels from the files, transformed; a file that cannot be read is named once and its example left out."""

    def __init__(self, config: ImageConfig, transform_for: Callable[[int], Callable[[Image.Image], Tensor]]) -> None:
        self.config, self.transform_for = config, transform_for
        self.unreadable: dict[str, str] = {}

    def usable(self, examples: Sequence[Example]) -> list[bool]:
        return [True] * len(examples)

    def load(self, examples: Sequence[Example], variants: Sequence[int]) -> tuple[list[int], dict[str, Tensor]]:
        kept, rows = [], []
        for place, (example, variant) in enumerate(zip(examples, variants, strict=True)):
            transform = self.transform_for(variant)
            try:
                rows.append([transform(load_image(ref, self.config)) for ref in example.images])
                kept.append(place)
            except OSError as error:
                if example.id not in self.unreadable:
                    self.unreadable[example.id] = str(error)
                    logger.warning("skipped: %s (%s; %d so far)", example.id, error, len(self.unreadable))
        if not rows:
            return [], {}
        views = max(map(len, rows))
        images = rows[0][0].new_zeros(len(rows), views, *rows[0][0].shape)
        mask = torch.zeros(len(rows), views, dtype=torch.bool)
        for row, tensors in enumerate(rows):
            images[row, : len(tensors)] = torch.stack(tensors)
            mask[row, : len(tensors)] = True
        return kept, {"images": images, "view_mask": mask}


class CaptionDataset(Dataset[Batch]):
    """The examples of one split; an item is a whole :class:`Batch`, drawn by ``CaptionBatchSampler``.

    Captions that are empty or only punctuation are left out, and examples with none left too; how many is logged.
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
    ) -> None:
        self.context, self.source, self.max_length = context, source, max_length
        self.tokenizer = tokenizer
        usable = source.usable(examples)
        self.examples: list[Example] = []
        self.texts: list[list[list[int]]] = []
        self.pools: list[TextPool] = []
        empty = 0
        for example, readable in zip(examples, usable, strict=True):
            own = self._encode(example.captions)
            extra = self._encode(example.paraphrases) if paraphrases else []
            empty += not own
            if own and readable:
                self.examples.append(example)
                self.texts.append(own + extra)
                self.pools.append(TextPool(tuple(map(len, own)), tuple(map(len, extra))))
        if empty:
            logger.warning(
                "%d of %d examples have no caption but empty ones or punctuation: left out", empty, len(usable)
            )
        if usable.count(False):
            logger.warning("%d of %d examples have an unreadable image: left out", usable.count(False), len(usable))
        if not self.examples:
            raise UserError(
                f"none of the {len(usable)} examples has both a readable image and a caption with words. "
                "See what is wrong with them: latentcap prepare check DATA"
            )

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, draws: list[Draw]) -> Batch | None:  # type: ignore[override]
        """The batch of some draws; None where none of its images could be read."""
        examples = [self.examples[draw.example] for draw in draws]
        kept, images = self.source.load(examples, [draw.variant for draw in draws])
        if not kept:
            return None
        draws, examples = [draws[place] for place in kept], [examples[place] for place in kept]
        rows = [[self.texts[draw.example][text] for text in draw.texts] for draw in draws]
        longest = max(len(tokens) for row in rows for tokens in row)
        tokens = torch.zeros(len(rows), len(rows[0]), longest, dtype=torch.long)
        for b, row in enumerate(rows):
            for g, ids in enumerate(row):
                tokens[b, g, : len(ids)] = torch.tensor(ids)
        return Batch(
            tokens=tokens,
            context=self.context.examples(examples),
            index=torch.tensor([draw.example for draw in draws]),
            references=[list(example.captions) for example in examples],
            **images,
        )

    def _encode(self, captions: Sequence[str]) -> list[list[int]]:
        encoded = [self.tokenizer.encode_caption(caption, self.max_length + 2) for caption in captions]
        return [ids for ids in encoded if len(ids) > 2]
