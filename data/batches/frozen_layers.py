"""What the frozen layers of a CNN give for each image: computed once, cached, and read for every batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from latentcap.data.batches.augmentation import Augmentation, VariedImage
from latentcap.data.batches.image_config import ImageConfig
from latentcap.data.batches.sources import CachedRegions
from latentcap.data.batches.transforms import decode_for
from latentcap.data.batches.views import ViewSlots
from latentcap.data.cache.extract import extract
from latentcap.data.cache.store import FeatureCache
from latentcap.data.example import Example

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrozenLayers:
    """All of a CNN, or its first layers.

    Attributes:
        encode: images (B, 3, H, W) to what is cached of each, (B, N, C), on the CPU.
        fingerprint: of the layers and their weights; with another one everything is computed anew.
        shape: (N, C).
        name: what that is, a field of ``Batch``: ``regions``, or ``cells`` that layers to be trained go on from.
        batch_size: images that are encoded at once.
    """

    encode: Callable[[Tensor], Tensor]
    fingerprint: str
    shape: tuple[int, int]
    name: str = "regions"
    batch_size: int = 8

    def cached(
        self,
        examples: Sequence[Example],
        folder: Path,
        *,
        image: ImageConfig,
        slots: ViewSlots,
        augmentation: Augmentation | None = None,
        variants: int = 1,
        workers: int = 2,
        progress: Callable[[int, int], None] | None = None,
    ) -> CachedRegions:
        """Of every image, from the cache in ``folder`` or computed into it now; what cannot be read is logged.

        Args:
            variants: how many variants of each image, the plain one and others by ``augmentation``.
        """
        cache = FeatureCache(folder, key=self.fingerprint, shape=self.shape)
        change = augmentation.key if augmentation and variants > 1 else ""
        report = extract(
            [ref for example in examples for ref in example.images],
            cache=cache,
            encode=self.encode,
            transform=VariedImage(image, augmentation),
            variants=variants,
            change=change,
            decode=lambda encoded, name: decode_for(encoded, image, name=name),
            batch_size=self.batch_size,
            workers=workers,
            progress=progress,
        )
        for ref, reason in report.unreadable:
            logger.warning("skipped: %s (%s)", ref, reason)
        cache.refresh()
        return CachedRegions(cache, examples, slots=slots, name=self.name, change=change)
