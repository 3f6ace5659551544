"""Loaders of batches: every batch of a run follows from its seed, its epoch and its place in the epoch.

Worker processes hold no state: the sampler, in the main process, draws what a batch consists of and how its images are
changed. So a run that is resumed sees what it would have seen, with any number of workers.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from latentcap.data.batches.dataset import Batch, CaptionDataset
from latentcap.data.batches.fixed import FixedBatches
from latentcap.data.batches.sampler import CaptionBatchSampler, Draw


class ResumableLoader(DataLoader[Batch]):
    """A loader that goes on in the middle of an epoch: its sampler skips what the trainer's progress says is done.

    The two methods tell the trainer that it may resume there; they have nothing to keep.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # The trainer asks for an iterator before it has restored the epoch, and workers would start on a wrong one.
        yield from super().__iter__()

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


def training_loader(
    dataset: CaptionDataset, sampler: CaptionBatchSampler | FixedBatches, *, workers: int, pin: bool = False
) -> ResumableLoader:
    """Batches of an epoch, decoded by ``workers`` processes, or by this one for 0.

    ``pin``: in memory that a GPU can read while the program goes on.
    """
    return ResumableLoader(dataset, sampler=sampler, persistent_workers=workers > 0, **_settings(workers, pin))


def evaluation_loader(
    dataset: CaptionDataset, *, batch_size: int, rank: int, world: int, workers: int, pin: bool = False
) -> DataLoader[Batch]:
    """Every example once, this rank's share, with its first caption for the loss.

    A rank that has none gets one batch of nothing, for the others wait for what it logs.
    """
    mine = [Draw(index, (0,), 0) for index in range(rank, len(dataset), world)]
    batches = FixedBatches([mine[at : at + batch_size] for at in range(0, max(len(mine), 1), batch_size)])
    return DataLoader(dataset, sampler=batches, **_settings(workers, pin))


def _settings(workers: int, pin: bool) -> dict[str, Any]:
    return {
        "batch_size": None,  # an item of the dataset is a batch
        "num_workers": workers,
        "pin_memory": pin,
        "worker_init_fn": _start_worker,
        "generator": torch.Generator(),  # a loader that draws from the global state would shift what follows
    }


def _start_worker(_: int) -> None:
    gc.freeze()  # the collector would write to, and so copy, all objects that are shared with the main process
