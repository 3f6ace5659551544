"""Nested training: which heads are on, that only training sees it, and that a resumed run draws the same."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from latentcap.config import FusionConfig
from latentcap.data.errors import UserError
from latentcap.training.module import CaptionModule
from latentcap.training.nested_heads import RandomHeadBudget
from tests.helpers import tiny_captioner, tiny_config
from tests.test_train import Runner, scenes, train, weights

__all__ = ["scenes", "train"]  # fixtures
CLASS = "latentcap.training.nested_heads.RandomHeadBudget"
HEADS = FusionConfig(visual_heads=3, text_heads=2, head_dim=8, latent_dim=8)


def test_the_first_heads_of_each_kind_are_on() -> None:
    gate = RandomHeadBudget(full=0.0).draw((4, 3), 3000, key=(0, 0))
    assert gate.shape == (3000, 1, 1, 7)
    visual, text = gate.flatten(1).split((4, 3), 1)
    for kind in (visual, text):
        assert set(kind.unique().tolist()) == {0.0, 1.0}
        assert (kind.diff(dim=1) <= 0).all()  # never a head without those before it
        counts = torch.bincount(kind.sum(1).long(), minlength=kind.shape[1] + 1)
        assert counts[0] == 0
        torch.testing.assert_close(
            counts[1:] / 3000, torch.full((kind.shape[1],), 1 / kind.shape[1]), atol=0.04, rtol=0
        )
    both = torch.stack((visual.sum(1), text.sum(1)))
    assert abs(float(both.corrcoef()[0, 1])) < 0.06  # drawn independently


def test_a_share_of_the_examples_trains_with_all_heads() -> None:
    gate = RandomHeadBudget(full=0.5).draw((4, 4), 4000, key=(0, 0)).flatten(1)
    assert float(gate.all(1).float().mean()) == pytest.approx(0.5 + 0.5 / 16, abs=0.03)
    assert RandomHeadBudget(full=1.0).draw((2, 0), 5, key=(0, 0)).all()
    with pytest.raises(UserError, match=r"full is 1\.5"):
        RandomHeadBudget(full=1.5)


def test_draws_depend_on_seed_epoch_and_batch_alone() -> None:
    def draw(seed: int, *key: int) -> Tensor:
        return RandomHeadBudget(seed=seed).draw((4, 4), 64, key=key)

    first = draw(0, 1, 2)
    torch.rand(3)  # the global state plays no part
    assert torch.equal(first, draw(0, 1, 2))
    for other in (draw(1, 1, 2), draw(0, 2, 2), draw(0, 1, 3)):
        assert not torch.equal(first, other)


def test_only_training_sees_the_gates() -> None:
    module = CaptionModule(tiny_config(fusion=HEADS))
    module.model = model = tiny_captioner(fusion=HEADS).model
    callback, trainer = RandomHeadBudget(full=0.0), SimpleNamespace(current_epoch=0, global_rank=0)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    memory = model.encode(regions=torch.randn(2, 4, model.backbone.num_channels))
    tokens = torch.tensor([[[2, 5, 6]], [[2, 7, 8]]])
    gates: list[Any] = []
    original = model.decoder.fusion.attend

    def attend(*args: Any, **kwargs: Any) -> Any:
        gates.append(kwargs["gate"])
        return original(*args, **kwargs)

    model.decoder.fusion.attend = attend  # type: ignore[method-assign]
    callback.on_train_start(trainer, module)  # type: ignore[arg-type]
    callback.on_train_batch_start(trainer, module, tokens, 3)  # type: ignore[arg-type]
    model.train()
    model.decoder(tokens, memory)
    torch.testing.assert_close(gates.pop(), callback.draw((3, 2), 2, key=(0, 3, 0)))
    given = torch.ones(5)
    model.decoder(tokens, memory, gate=given)
    assert gates.pop() is given  # who gives gates, such as the scoring of heads, gets them
    model.eval()
    model.decoder(tokens, memory)
    assert gates.pop() is None
    callback.on_train_end(trainer, module)  # type: ignore[arg-type]
    model.train()
    model.decoder(tokens, memory)
    assert gates.pop() is None
    del model.decoder.fusion.attend
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_nested_run_resumes_exactly(train: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    nested = f"--trainer.callbacks+={CLASS}"
    original = CaptionModule.training_step
    losses: list[float] = []
    stops = [7]  # in the middle of the second epoch of five batches

    def observed(self: CaptionModule, batch: Any, index: int) -> Any:
        if stops and len(losses) + 1 == stops[0]:
            stops.pop()
            raise KeyboardInterrupt
        loss = original(self, batch, index)
        losses.append(loss.item())  # type: ignore[union-attr]
        return loss

    monkeypatch.setattr(CaptionModule, "training_step", observed)
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        train("fit", "parts", nested)
    train("fit", "parts", nested, "--ckpt_path=last")
    parts = list(losses)
    losses.clear()
    root = train("fit", "whole", nested)
    assert losses == parts
    assert len(losses) == 10
    assert (weights(root)["model.decoder.fusion.head_gate"] == 1).all()


def test_routed_heads_are_refused(train: Runner) -> None:
    routed = ["--model.model.fusion.visual_heads=4", "--model.model.fusion.text_heads=4"]
    routed += ["--model.model.fusion.routed_top_k=1"]
    with pytest.raises(UserError, match="routed_top_k to 0"):
        train("fit", "routed", f"--trainer.callbacks+={CLASS}", *routed)
