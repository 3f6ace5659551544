"""Batches that are the same in every pass: of validation, and of a training that is to know a few by heart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch.utils.data import SequentialSampler

from latentcap.data.batches.sampler import Draw


class FixedBatches(SequentialSampler):
    """Given batches, in their order. Lightning's ``overfit_batches`` replaces every sampler that is not sequential."""

    def __init__(self, batches: Sequence[list[Draw]]) -> None:
        super().__init__(batches)
        self.batches = batches

    def __iter__(self) -> Iterator[list[Draw]]:  # type: ignore[override]
        return iter(self.batches)
