"""What training and search do on a GPU, as far as it can be seen without one; tests marked ``cuda`` see the rest."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from latentcap.batch.local_engine import share_devices
from latentcap.data.batches import datamodule
from latentcap.data.batches.context import ContextBatch, ContextCollator, ContextFields
from latentcap.data.batches.datamodule import CaptionData
from latentcap.data.batches.dataset import Batch, CaptionDataset
from latentcap.data.batches.loaders import evaluation_loader, training_loader
from latentcap.data.batches.sampler import CaptionBatchSampler, Draw
from latentcap.data.errors import UserError
from latentcap.data.example import Example, ImageRef
from latentcap.inference.precision import use_tensor_cores
from latentcap.model.caption_model import CaptionModel
from latentcap.model.fusion import Memory
from latentcap.search.captions import search_captions
from latentcap.search.config import SearchConfig
from latentcap.training.averaging import EMA
from latentcap.training.module import CaptionModule
from tests.helpers import tiny_captioner, tiny_tokenizer

WAITS = ("aten::nonzero", "aten::_local_scalar_dense", "aten::masked_select", "aten::is_nonzero", "aten::equal")


class Waits(TorchDispatchMode):
    """Counts what a GPU would be waited for: values or sizes that the program asks for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        to_list = Tensor.tolist

        def counted(tensor: Tensor) -> Any:
            self.counts["tolist"] += 1
            return to_list(tensor)

        monkeypatch.setattr(Tensor, "tolist", counted)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.name().split(".")[0]
        masks = args[1] if name in ("aten::index", "aten::index_put_") else ()
        if name in WAITS or any(mask is not None and mask.dtype == torch.bool for mask in masks):
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({"beam_size": 3}, 2),
        ({"beam_size": 4, "beam_groups": 2}, 2),
        ({"beam_size": 3, "no_repeat_ngram": 2, "bad_endings": ("the",), "forbidden_words": ("red circle",)}, 2),
        ({"sample": True, "num_captions": 3}, 3),
    ],
)
def test_a_written_word_waits_for_the_device_twice(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], most: int
) -> None:
    captioner = tiny_captioner()
    model, length = captioner.model, 6
    memory = model.encode(regions=torch.randn(3, model.backbone.grid[0] * model.backbone.grid[1], 256))
    config = SearchConfig(**{"max_length": length, "min_length": length, **settings})
    search_captions(model, memory, captioner.tokenizer, config)  # what is made once, such as rules
    with torch.inference_mode(), Waits(monkeypatch) as waits:
        search_captions(model, memory, captioner.tokenizer, config)
    assert sum(waits.counts.values()) <= most * (length + 1) + 4, waits.counts


def test_the_average_of_the_weights_is_where_the_weights_will_be() -> None:
    average = EMA()
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("meta")))
    average.setup(trainer, L.LightningModule(), "validate")  # type: ignore[arg-type]
    module = L.LightningModule()
    module.layer = nn.Linear(2, 2)
    average.setup(trainer, module, "fit")  # type: ignore[arg-type]
    assert {value.device.type for value in average.averages.values()} == {"meta"}
    assert module.layer.weight.device.type == "cpu"


def test_the_average_follows_its_formula_without_asking_for_each_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    average = EMA(decay=0.5)
    module = L.LightningModule()
    module.layer = nn.Linear(1, 1, bias=False)
    module.register_buffer("seen", torch.tensor(0))
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
    average.setup(trainer, module, "fit")  # type: ignore[arg-type]
    expected = None
    with torch.no_grad(), Waits(monkeypatch) as waits:
        for step in range(6):
            module.layer.weight.fill_(step)
            module.seen.fill_(step)
            average.update(module)
            keep = min(0.5, (1 + step) / (10 + step))
            expected = float(step) if expected is None else keep * expected + (1 - keep) * step
    assert not waits.counts["aten::_local_scalar_dense"]
    assert average.averages["layer.weight"].item() == pytest.approx(expected)
    assert average.averages["seen"].item() == 5


@pytest.mark.parametrize(("device", "precision"), [("cuda", "high"), ("cpu", "highest")])
def test_attention_may_use_tensor_cores(monkeypatch: pytest.MonkeyPatch, device: str, precision: str) -> None:
    chosen = ["highest"]
    monkeypatch.setattr(torch, "set_float32_matmul_precision", chosen.append)
    use_tensor_cores(torch.device(device))
    assert chosen[-1] == precision


# Data ----------------------------------------------------------------------------------------------------------------


class Images:
    """Images of which some cannot be read; their paths are their numbers."""

    def __init__(self, unreadable: Sequence[int]) -> None:
        self.unreadable = unreadable

    def usable(self, examples: Sequence[Example]) -> list[bool]:
        return [True] * len(examples)

    def load(self, examples: Sequence[Example], variants: Sequence[int]) -> tuple[list[int], dict[str, Tensor]]:
        numbers = [int(example.images[0].path) for example in examples]
        kept = [place for place, number in enumerate(numbers) if number not in self.unreadable]
        images = torch.tensor([float(numbers[place]) for place in kept]).view(-1, 1, 1, 1, 1)
        return kept, ({"images": images, "view_mask": torch.ones(len(kept), 1, dtype=torch.bool)} if kept else {})


def dataset(unreadable: Sequence[int], **settings: bool) -> CaptionDataset:
    tokenizer = tiny_tokenizer()
    examples = [
        Example(id=str(number), images=(ImageRef(str(number)),), captions=("a red star", "a circle")[: 1 + number % 2])
        for number in range(6)
    ]
    context = ContextCollator(tokenizer=tokenizer, fields=ContextFields(), max_tokens=8)
    return CaptionDataset(
        examples, tokenizer=tokenizer, context=context, source=Images(unreadable), max_length=8, **settings
    )


def test_a_batch_without_a_readable_image_trains_on_another() -> None:
    """A process that left a step out would be waited for by the others for ever."""
    draws = [Draw(1, (0, 1), 0), Draw(2, (0, 0), 0)]
    assert dataset([1, 2])[draws] is None
    batch = dataset([1, 2], stand_ins=True)[draws]
    assert batch is not None
    assert batch.index.tolist() == [3]
    assert batch.tokens.shape[:2] == (1, 2)
    assert batch.images is not None
    assert batch.images.flatten().tolist() == [3.0]
    with pytest.raises(UserError, match="no image of the training data can be read any more"):
        dataset(range(6), stand_ins=True)[draws]


def batch_of(size: int) -> Batch:
    nothing = torch.zeros(size, 0)
    return Batch(
        tokens=torch.tensor([[[1, 5, 6, 2]]] * size),
        context=ContextBatch(nothing.long(), nothing.bool(), nothing, nothing.long()),
        view_mask=torch.ones(size, 1, dtype=torch.bool),
        index=torch.arange(size),
        regions=torch.randn(size, 4, 256),
        references=[["a red star"]] * size,
    )


def test_batches_are_pinned_for_a_gpu_with_all_that_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[int] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: pinned.append(tensor.numel()) or tensor)
    batch = batch_of(2)
    again = batch.pin_memory()
    assert len(pinned) == 4 + 4  # its own tensors and the context's
    assert again.references == batch.references
    data = dataset([])
    sampler = CaptionBatchSampler(data.pools, batch_size=2, seed=0)
    for pin in (False, True):
        assert training_loader(data, sampler, workers=0, pin=pin).pin_memory is pin
        assert evaluation_loader(data, batch_size=2, rank=0, world=1, workers=0, pin=pin).pin_memory is pin


# Validation ----------------------------------------------------------------------------------------------------------


def test_validation_encodes_each_image_once(monkeypatch: pytest.MonkeyPatch) -> None:
    captioner = tiny_captioner()
    module = CaptionModule(captioner.model.config, search=SearchConfig(beam_size=1, max_length=4))
    module.model, module.tokenizer = captioner.model, captioner.tokenizer
    logged: dict[str, Any] = {}
    examples = [Example(id=str(number), images=(ImageRef(f"{number}.jpg"),), captions=("a",)) for number in range(2)]
    monkeypatch.setattr(module, "log", lambda name, value, **settings: logged.update({name: (value, settings)}))
    monkeypatch.setattr(module, "_examples", lambda batch, split: examples)
    calls = []
    encode = CaptionModel.encode

    def counted(self: CaptionModel, **inputs: Any) -> Memory:
        calls.append(len(inputs["regions"]))
        return encode(self, **inputs)

    monkeypatch.setattr(CaptionModel, "encode", counted)
    with torch.no_grad():
        module.validation_step(batch_of(2), 0)
    assert calls == [2, 2]  # for loss and captions, and with the other's image
    assert torch.isfinite(logged["val/loss"][0])
    assert [record["id"] for record in module.captions] == ["0", "1"]
    ran: list[int] = []
    backbone = module.model.backbone
    hook = backbone.register_forward_pre_hook(lambda net, given: ran.append(len(given[0])))
    with torch.no_grad():
        module.validation_step(replace(batch_of(2), regions=None, images=torch.randn(2, 1, 3, 64, 64)), 0)
    hook.remove()
    assert ran == [2]
    ran.clear()
    cells = SimpleNamespace(regions_from=lambda cells: ran.append(len(cells)) or cells)
    monkeypatch.setattr(type(backbone), "split", cells)
    with torch.no_grad():
        module.validation_step(replace(batch_of(2), regions=None, cells=batch_of(2).regions), 0)
    assert ran == [2]  # nor does what follows the frozen layers run twice
    module.validation_step(None, 1)  # none of its images could be read: it logs all the same, for others wait
    assert logged["val/loss"][1]["batch_size"] == 0


def test_on_a_gpu_validation_takes_more_images_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(datamodule, "evaluation_loader", lambda dataset, *, batch_size, **_: asked.append(batch_size))
    for device, given in (("cpu", None), ("cuda", None), ("cuda", 32)):
        data = CaptionData(train="images", eval_batch_size=given)
        strategy = SimpleNamespace(root_device=torch.device(device))
        data.trainer = SimpleNamespace(strategy=strategy, global_rank=0, world_size=1)
        data.datasets = {"val": []}
        data.val_dataloader()
    assert asked == [64, 256, 32]


def test_processes_share_gpus_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert share_devices("cuda", 5) == ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0"]
    assert share_devices("cuda:1", 2) == ["cuda:1", "cuda:1"]
    assert share_devices("cpu", 2) == ["cpu", "cpu"]


# On a GPU ------------------------------------------------------------------------------------------------------------


@pytest.mark.cuda
def test_on_a_gpu_the_average_and_the_batch_are_there() -> None:
    average = EMA()
    module = L.LightningModule()
    module.layer = nn.Linear(2, 2)
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cuda")))
    average.setup(trainer, module, "fit")  # type: ignore[arg-type]
    module.to("cuda")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the mode is a prototype
            torch.cuda.set_sync_debug_mode("error")
        average.update(module)
        average.update(module)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert average.averages["layer.weight"].device.type == "cuda"
    assert batch_of(2).pin_memory().tokens.is_pinned()


@pytest.mark.cuda
def test_on_a_gpu_captions_are_those_of_the_cpu() -> None:
    captioner = tiny_captioner()
    model = captioner.model
    regions = torch.randn(3, model.backbone.grid[0] * model.backbone.grid[1], 256)
    config = SearchConfig(beam_size=3, max_length=6, no_repeat_ngram=2)
    found = []
    for device in ("cpu", "cuda"):
        model.to(device)
        memory = model.encode(regions=regions.to(device))
        found.append([best.tokens for best, *_ in search_captions(model, memory, captioner.tokenizer, config)])
    assert found[0] == found[1]
