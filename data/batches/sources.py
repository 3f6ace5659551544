"""Where the pixels or regions of a batch come from: files that are decoded for it, or a cache.

Dimension letters: B examples, V slots of views, N regions, C channels.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, stack

from latentcap.data.batches.augmentation import VariedImage
from latentcap.data.batches.transforms import load_image
from latentcap.data.batches.views import ViewSlots, in_slots
from latentcap.data.cache.store import FeatureCache, entry_key
from latentcap.data.example import Example

logger = logging.getLogger(__name__)


class ImageSource(Protocol):
    """Gives the images of examples in a form that the model encodes."""

    def usable(self, examples: Sequence[Example]) -> list[bool]:
        """Which examples have at least their images readable, as far as is known."""

    def load(self, examples: Sequence[Example], variants: Sequence[int]) -> tuple[list[int], dict[str, Tensor]]:
        """The places of the examples that could be read, and their ``images`` or ``regions`` with ``view_mask``."""


class CachedRegions:
    """What is cached of each image: training never runs the layers that gave it.

    Args:
        slots: where views are put.
        name: what the entries are, a field of ``Batch``: ``regions`` of the whole CNN, or ``cells`` of a part of it.
        change: the augmentation that variants other than 0 are of, see :func:`entry_key`.
    """

    def __init__(
        self,
        cache: FeatureCache,
        examples: Sequence[Example],
        *,
        slots: ViewSlots,
        name: str = "regions",
        change: str = "",
    ) -> None:
        self.cache, self.slots, self.name, self.change = cache, slots, name, change
        refs = [ref for example in examples for ref in example.images]
        self.digests = dict(zip(refs, cache.digests(refs), strict=True))

    def usable(self, examples: Sequence[Example]) -> list[bool]:
        return [self._readable(example) for example in examples]

    def load(self, examples: Sequence[Example], variants: Sequence[int]) -> tuple[list[int], dict[str, Tensor]]:
        keys = [
            entry_key(self.digests[ref] or "", variant, self.change)
            for example, variant in zip(examples, variants, strict=True)
            for ref in example.images
        ]
        slots = [self.slots.place(len(example.images), example.views) for example in examples]
        read, mask = in_slots(self.cache.read(keys), slots)
        return list(range(len(examples))), {self.name: read.flatten(1, 2), "view_mask": mask}

    def _readable(self, example: Example) -> bool:
        digests = [self.digests.get(ref) for ref in example.images]
        return all(digest is not None and entry_key(digest) in self.cache for digest in digests)


class LoadedImages:
    """Pixels from the files; one that cannot be read is named, once, and its example left out.

    The same variant of an image is always the same, so that it does not matter which process makes it, or when.
    """

    def __init__(self, transform: VariedImage, *, slots: ViewSlots) -> None:
        self.transform, self.slots = transform, slots
        self.unreadable: set[str] = set()

    def usable(self, examples: Sequence[Example]) -> list[bool]:
        return [True] * len(examples)

    def load(self, examples: Sequence[Example], variants: Sequence[int]) -> tuple[list[int], dict[str, Tensor]]:
        kept, images, slots = list[int](), list[Tensor](), list[list[int]]()
        for place, (example, variant) in enumerate(zip(examples, variants, strict=True)):
            if (views := self._views(example, variant)) is not None:
                kept.append(place)
                images += views
                slots.append(self.slots.place(len(views), example.views))
        if not kept:
            return [], {}
        pixels, mask = in_slots(stack(images), slots)
        return kept, {"images": pixels, "view_mask": mask}

    def _views(self, example: Example, variant: int) -> list[Tensor] | None:
        """Each (C, H, W); None where one cannot be read."""
        views = []
        for number, ref in enumerate(example.images):
            try:
                image = load_image(ref, self.transform.config)
            except OSError as error:
                if example.id not in self.unreadable:
                    self.unreadable.add(example.id)
                    logger.warning("skipped: %s (%s)", ref, error)
                return None
            views.append(self.transform(image, variant and variant + number))
        return views
