"""The moving average of the weights: of those that learn, in checkpoints of now and of before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from latentcap.training.averaging import EMA

TRAINER: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))


class Module(L.LightningModule):
    def __init__(self, learns: float = 0.0) -> None:
        super().__init__()
        self.frozen, self.learns = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.frozen.requires_grad_(False)
        self.set(learns)

    def set(self, value: float) -> None:
        nn.init.constant_(self.learns.weight, value)


@pytest.fixture
def averaged() -> tuple[EMA, Module]:
    """An average of 0 and 10, the weight being 10."""
    average, module = EMA(), Module()
    average.setup(TRAINER, module, "fit")
    average.update(module)
    module.set(10.0)
    average.update(module)
    return average, module


def saved(average: EMA, module: Module) -> dict[str, Any]:
    checkpoint: dict[str, Any] = {"state_dict": dict(module.state_dict())}
    average.on_save_checkpoint(TRAINER, module, checkpoint)
    return checkpoint


def loaded(checkpoint: dict[str, Any]) -> tuple[EMA, Module]:
    """As the trainer does it: weights first."""
    average, module = EMA(), Module()
    average.setup(TRAINER, module, "fit")
    module.load_state_dict(checkpoint["state_dict"])
    average.on_load_checkpoint(TRAINER, module, checkpoint)
    return average, module


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_weights_that_never_learn_are_not_kept_twice(averaged: tuple[EMA, Module]) -> None:
    average, module = averaged
    assert set(average.averages) == {"learns.weight"}
    checkpoint = saved(average, module)
    assert set(checkpoint["current_model_state"]) == {"learns.weight"}
    assert set(checkpoint["state_dict"]) == {"learns.weight", "frozen.weight"}


def test_validation_sees_the_average_and_training_goes_on_from_the_weights(averaged: tuple[EMA, Module]) -> None:
    average, module = averaged
    mean = average.averages["learns.weight"].item()
    assert mean == pytest.approx(10 * 9 / 11)  # keeps (1 + 1) / (10 + 1)
    average.on_validation_epoch_start(TRAINER, module)
    assert module.learns.weight.item() == mean
    average.on_validation_epoch_end(TRAINER, module)
    assert module.learns.weight.item() == 10
    average.on_train_end(TRAINER, module)
    assert module.learns.weight.item() == mean


def test_a_checkpoint_brings_both_back(averaged: tuple[EMA, Module]) -> None:
    average, module = averaged
    again, restored = loaded(saved(average, module))
    assert same(again.averages, average.averages)
    assert same(
        restored.state_dict(), saved(average, module)["state_dict"] | {"learns.weight": torch.full((1, 1), 10.0)}
    )
    assert again.updates == average.updates == 2


def test_a_checkpoint_of_before_goes_on(averaged: tuple[EMA, Module]) -> None:
    """It has all weights twice, as Lightning's callback wrote them."""
    average, module = averaged
    checkpoint = saved(average, module)
    checkpoint["current_model_state"] = dict(module.state_dict())
    again, restored = loaded(checkpoint)
    assert same(again.averages, average.averages)
    assert restored.learns.weight.item() == 10
    assert again.updates == 2


def test_a_decay_of_0_turns_it_off() -> None:
    average, module = EMA(decay=0), Module()
    average.setup(TRAINER, module, "fit")
    for value in (1.0, 2.0):
        module.set(value)
        average.update(module)
        assert average.averages["learns.weight"].item() == value
