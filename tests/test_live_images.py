"""Images that are decoded for every batch: the same in any process and after any interruption."""

from __future__ import annotations

import logging
import multiprocessing.reduction
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from latentcap.data.batches.augmentation import Augmentation
from latentcap.data.batches.context import ContextCollator, ContextFields
from latentcap.data.batches.datamodule import CaptionData
from latentcap.data.batches.dataset import Batch
from latentcap.data.batches.image_config import ImageConfig
from latentcap.data.batches.views import ViewSlots
from latentcap.data.errors import UserError
from latentcap.data.example import Example, ImageRef
from tests.helpers import picture, tiny_tokenizer


def live_data(folder: Path, *, workers: int, count: int = 21, seed: int = 0, done: int = 0) -> CaptionData:
    """Prepared data, as a trainer has them that has done some batches of its epoch."""
    for number in range(3):
        path = folder / f"{number}.png"
        if not path.exists():
            picture(24, 24, seed=number).save(path)
    data = CaptionData(batch_size=4, augmentation=Augmentation(horizontal_flip=0.5), workers=workers, seed=seed)
    data.examples["train"] = [
        Example(str(number), (ImageRef(str(folder / f"{number % 3}.png")),), captions=("a red circle", "two stars"))
        for number in range(count)
    ]
    progress = SimpleNamespace(current=SimpleNamespace(completed=done))
    device = SimpleNamespace(root_device=torch.device("cpu"))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    data.trainer = SimpleNamespace(fit_loop=loop, global_rank=0, world_size=1, overfit_batches=0, strategy=device)  # type: ignore[assignment]
    prepare(data)
    return data


def prepare(data: CaptionData) -> None:
    tokenizer = tiny_tokenizer()
    data.prepare_datasets(
        tokenizer=tokenizer,
        context=ContextCollator(tokenizer=tokenizer, fields=ContextFields(), max_tokens=8),
        image=ImageConfig(size=(16, 16)),
        slots=ViewSlots(),
        max_length=8,
        frozen=None,
    )


def epoch(data: CaptionData, number: int) -> list[Batch]:
    """As the trainer takes it: the iterator first, and only then is the sampler told which epoch it is."""
    loader = data.train_dataloader()
    batches: Iterator[Batch] = iter(loader)
    loader.sampler.set_epoch(number)  # type: ignore[attr-defined]
    return list(batches)


def same(one: list[Batch], two: list[Batch]) -> bool:
    pairs = list(zip(one, two, strict=True))
    assert all(a.images is not None and b.images is not None for a, b in pairs)
    return all(torch.equal(a.images, b.images) and torch.equal(a.tokens, b.tokens) for a, b in pairs)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # of more workers than cores
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_an_epoch_goes_on_where_it_stopped(tmp_path: Path, workers: int) -> None:
    whole = epoch(live_data(tmp_path, workers=0), 2)
    assert len(whole) == 6
    torch.manual_seed(workers)
    assert same(epoch(live_data(tmp_path, workers=workers, done=2), 2), whole[2:])


def test_pictures_change_with_the_epoch_and_the_seed(tmp_path: Path) -> None:
    def first(seed: int, number: int) -> torch.Tensor:
        """The first example's picture."""
        for batch in epoch(live_data(tmp_path, workers=0, seed=seed), number):
            if 0 in batch.index:
                assert batch.images is not None
                return batch.images[batch.index.tolist().index(0)]
        raise AssertionError

    pictures = [first(0, 0), first(0, 1), first(1, 0)]
    assert not any(torch.equal(pictures[a], pictures[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_workers_that_are_spawned_get_all_that_they_need(tmp_path: Path) -> None:
    data = live_data(tmp_path, workers=1, count=4)
    loader = data.train_dataloader()
    spawned: DataLoader[Batch] = DataLoader(
        loader.dataset,
        batch_size=None,
        sampler=loader.sampler,
        num_workers=1,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context="spawn",
    )
    assert same(list(spawned), epoch(data, 0))


def test_workers_do_not_copy_the_examples(tmp_path: Path) -> None:
    sizes = [
        len(
            multiprocessing.reduction.ForkingPickler.dumps(
                live_data(tmp_path, workers=1, count=count).datasets["train"]
            )
        )
        for count in (10, 5000)
    ]
    assert sizes[1] - sizes[0] < 100


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = live_data(tmp_path, workers=0)
    (tmp_path / "1.png").write_bytes(b"<!DOCTYPE html><html>Not found</html>")
    with caplog.at_level(logging.WARNING):
        batches = epoch(data, 0)
    assert sum(map(len, batches)) == 14
    assert f"{tmp_path / '1.png'} (not an image but a web page" in caplog.text
    assert caplog.text.count("skipped") == 7  # once for each example


def test_a_split_without_a_usable_example_is_named(tmp_path: Path) -> None:
    data = live_data(tmp_path, workers=0)
    data.examples["val"] = [Example("v", (ImageRef("v.png"),), captions=("...",), split="val")]
    with pytest.raises(UserError, match="none of the 1 val examples has both"):
        prepare(data)
