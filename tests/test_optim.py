"""Parts with rates and switches of their own, and staged unfreezing."""

from __future__ import annotations

import copy

import pytest
import torch

from latentcap.data.errors import UserError
from latentcap.inference.folded_model import FoldedModel
from latentcap.model.caption_model import CaptionModel
from latentcap.training.optim import PARTS, OptimConfig, Stages, build_optimizer, part_of
from tests.helpers import tiny_config, tiny_tokenizer


def tiny_model(trainable: str = "none") -> CaptionModel:
    config = tiny_config()
    config.backbone.trainable = trainable
    return CaptionModel(config, vocab_size=len(tiny_tokenizer()))


def test_every_part_has_its_rate() -> None:
    model = tiny_model("all")
    settings = OptimConfig(lr=1.0, backbone_lr=0.1, fusion_lr=0.2, decoder_lr=0.3)
    rate_of = {
        id(parameter): group["lr"]
        for group in build_optimizer(model.named_parameters(), settings).param_groups
        for parameter in group["params"]
    }
    rates = {part: set() for part in PARTS}  # type: ignore[var-annotated]
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:  # of an only view
            assert name == "decoder.fusion.view"
            continue
        rates[part_of(name)].add(rate_of[id(parameter)])
    assert rates == {"backbone": {0.1}, "context": {1.0}, "fusion": {0.2}, "decoder": {0.3}, "labels": set()}


def test_without_decay_are_biases_norms_and_embeddings() -> None:
    groups = build_optimizer(tiny_model().named_parameters(), OptimConfig()).param_groups
    assert {group["name"] for group in groups} == {"rest", "rest without decay"}
    assert all((group["weight_decay"] == 0) == (group["name"].endswith("without decay")) for group in groups)
    assert any(p.ndim == 1 for g in groups if g["weight_decay"] == 0 for p in g["params"])


def learning(model: CaptionModel) -> set[str]:
    return {part_of(name) for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_parts_are_frozen_or_start_later() -> None:
    model = tiny_model("all")
    stages = Stages(model, OptimConfig(frozen=["context"], start_epoch={"fusion": 1, "backbone": 3}))
    seen = []
    for epoch in range(4):
        started = stages.enter(epoch)
        seen.append((started, learning(model)))
    assert seen == [
        ([], {"decoder"}),
        (["fusion"], {"decoder", "fusion"}),
        ([], {"decoder", "fusion"}),
        (["backbone"], {"decoder", "fusion", "backbone"}),
    ]


def test_mistakes_name_the_parts() -> None:
    with pytest.raises(UserError, match=r"part 'fussion'.*Did you mean 'fusion'"):
        OptimConfig(frozen=["fussion"])
    with pytest.raises(UserError, match=r"backbone\.trainable"):
        OptimConfig(frozen=["backbone"])
    with pytest.raises(UserError, match="Did you mean 'METEOR'"):
        OptimConfig(rewards={"METEORE": 1.0})
    with pytest.raises(UserError, match="gives nothing a weight"):
        OptimConfig(rewards={"CIDEr-D": 0.0})
    with pytest.raises(UserError, match=r"names backbone, which is not trained at all.*--model.optim.start_epoch \{\}"):
        Stages(tiny_model(), OptimConfig(start_epoch={"backbone": 2}))


def test_a_run_from_before_the_fused_kernel_goes_on() -> None:
    """Its checkpoint says how its own optimizer computed; what it has learned is taken over either way."""
    torch.manual_seed(0)
    model = CaptionModel(tiny_config(), vocab_size=len(tiny_tokenizer()))
    now = build_optimizer(model.named_parameters(), OptimConfig())
    assert all(group["fused"] for group in now.param_groups)
    before = torch.optim.AdamW([{**group, "fused": None} for group in now.param_groups])
    states = []
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    for optimizer in (before, now):
        weights = copy.deepcopy(model.state_dict())
        optimizer.load_state_dict(before.state_dict())
        optimizer.step()
        states.append(copy.deepcopy(model.state_dict()))
        model.load_state_dict(weights)
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value)


def test_copies_of_the_weights_know_that_a_step_changed_them() -> None:
    model = CaptionModel(tiny_config(), vocab_size=len(tiny_tokenizer()))
    optimizer = build_optimizer(model.named_parameters(), OptimConfig(lr=0.5))
    folded = FoldedModel(model)
    before = folded.decoder(torch.float32)
    assert folded.decoder(torch.float32) is before
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    assert folded.decoder(torch.float32) is not before
