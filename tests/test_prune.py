"""Cutting heads out: the smaller model computes what the gated one did; budgets; importance."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from latentcap.captioner import Captioner
from latentcap.config import FusionConfig
from latentcap.data.batches.context import ContextBatch
from latentcap.data.batches.dataset import Batch
from latentcap.data.errors import UserError
from latentcap.heads.importance import head_importance
from latentcap.model.caption_model import CaptionModel
from latentcap.model.prune import parse_budget, prune_heads, set_budget
from tests.helpers import tiny_captioner

HEADS = FusionConfig(visual_heads=3, text_heads=2, head_dim=6, latent_dim=8)
CONTEXT = ContextBatch(torch.tensor([[4, 5], [6, 0]]), torch.tensor([[1, 1], [1, 0]]).bool(), *[torch.zeros(2, 0)] * 2)
TOKENS = torch.tensor([[[2, 5, 6, 3], [2, 7, 3, 0]], [[2, 8, 9, 3], [2, 4, 5, 3]]])


def tiny_batch(model: CaptionModel) -> Batch:
    regions = torch.randn(2, 4, model.backbone.num_channels)
    return Batch(TOKENS, CONTEXT, torch.ones(2, 1).bool(), torch.arange(2), regions=regions)


def hidden(model: CaptionModel, batch: Batch, gate: Tensor | None = None) -> Tensor:
    memory = model.encode(regions=batch.regions, context=batch.context)
    return model.decoder(batch.tokens, memory, gate=gate)[0]


@pytest.mark.parametrize("keep", [[0, 1, 2, 3, 4], [1, 4], [2, 0, 3], [0, 2], [3], [4, 3]])
@pytest.mark.parametrize("gates", ["output", "heads", "both"])
def test_what_is_left_computes_what_the_gated_model_did(keep: list[int], gates: Any) -> None:
    full = tiny_captioner(fusion=replace(HEADS, gates=gates)).model.eval()
    full.decoder.fusion.head_gate[1] = 0.5  # gates that are no switches stay as they are
    pruned = deepcopy(full)
    prune_heads(pruned, keep)
    batch, on = tiny_batch(full), torch.zeros(5)
    on[keep] = 1
    expected = hidden(full, batch, full.decoder.fusion.head_gate * on)
    torch.testing.assert_close(hidden(pruned, batch), expected)
    assert not torch.allclose(hidden(full, batch), expected) or len(keep) == 5
    sizes = pruned.config.fusion
    assert (sizes.visual_heads, sizes.text_heads) == (sum(h < 3 for h in keep), sum(h >= 3 for h in keep))
    assert (sizes.head_dim, sizes.latent_dim) == (6, 8)
    memory = pruned.encode(regions=batch.regions, context=batch.context)
    assert memory.visual.shape[1] == (4 if sizes.visual_heads else 0)


def test_a_pruned_model_is_smaller_and_ordinary(tmp_path: Path) -> None:
    captioner = tiny_captioner(fusion=HEADS)
    captioner.save(tmp_path / "full", half=False)
    prune_heads(captioner.model, [1, 3])
    captioner.save(tmp_path / "small", half=False)
    full, small = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "small"))
    assert small < full
    loaded = Captioner.from_pretrained(tmp_path / "small", dtype=torch.float32)
    assert {name: value.shape for name, value in loaded.model.state_dict().items()} == {
        name: value.shape for name, value in captioner.model.state_dict().items()
    }
    picture = Image.new("RGB", (64, 64), "red")
    mine, theirs = captioner.caption([picture])[0], loaded.caption([picture])[0]
    assert mine.text == theirs.text
    assert mine.score == pytest.approx(theirs.score, abs=1e-5)


def test_a_pruned_model_trains(tmp_path: Path) -> None:
    model = tiny_captioner(fusion=HEADS).model.train()
    prune_heads(model, [0, 2])
    hidden(model, tiny_batch(model)).sum().backward()
    fusion = model.decoder.fusion
    assert fusion.text is None
    assert fusion.visual is not None
    for weight in (fusion.visual.query.weight, fusion.visual.up_key, fusion.visual.up_value, fusion.output.weight):
        assert isinstance(weight, nn.Parameter)
        assert weight.grad is not None


@pytest.mark.parametrize("keep", [[], [5], [-1]])
def test_heads_that_do_not_exist_cannot_be_kept(keep: list[int]) -> None:
    with pytest.raises(UserError, match="heads 0 to 4"):
        prune_heads(tiny_captioner(fusion=HEADS).model, keep)


def test_a_budget_keeps_the_first_heads_of_each_kind() -> None:
    full = tiny_captioner(fusion=HEADS).model.eval()
    small, same = deepcopy(full), deepcopy(full)
    set_budget(small, 2, 1)
    prune_heads(same, [0, 1, 3])
    batch = tiny_batch(full)
    torch.testing.assert_close(hidden(small, batch), hidden(same, batch))
    with pytest.raises(UserError, match=r"4\+1 are asked for and the model has 3\+2"):
        set_budget(full, 4, 1)


def test_budgets_are_chosen_at_load_time(tmp_path: Path) -> None:
    tiny_captioner(fusion=HEADS).save(tmp_path)
    fusion = Captioner.from_pretrained(tmp_path, heads="1+0").model.decoder.fusion
    assert fusion.text is None
    assert fusion.visual is not None
    assert fusion.visual.up_key.shape[0] == 1
    assert fusion.output.weight.shape[1] == 6
    with pytest.raises(UserError, match=r"has 3\+2"):
        Captioner.from_pretrained(tmp_path, heads="3+3")


def test_budget_texts() -> None:
    assert parse_budget("1+1") == (1, 1)
    assert parse_budget(" 4 + 0 ") == (4, 0)
    for wrong in ("", "4", "0+0", "1+", "-1+2", "1+1+1", "a+b"):
        with pytest.raises(UserError, match=r"such as 1\+1"):
            parse_budget(wrong)


def test_importance_is_the_mean_gradient_of_each_examples_gates() -> None:
    model = tiny_captioner(fusion=HEADS).model
    batch = tiny_batch(model)
    found = head_importance(model, [batch, batch])

    def loss(row: int, gate: Tensor) -> Tensor:
        states = hidden(model, batch, gate)[row, :, :-1]
        return nn.functional.cross_entropy(
            model.decoder.logits(states).flatten(0, 1), TOKENS[row, :, 1:].flatten(), ignore_index=0
        )

    slopes = torch.zeros(2, 5)  # by central differences, example by example
    for row in range(2):
        for head in range(5):
            step = torch.zeros(5).index_fill(0, torch.tensor(head), 1e-2)
            slopes[row, head] = (loss(row, 1 + step) - loss(row, 1 - step)) / 2e-2
    torch.testing.assert_close(found, slopes.abs().mean(0), rtol=2e-2, atol=2e-4)


def test_a_head_that_nothing_reads_has_no_importance() -> None:
    model = tiny_captioner(fusion=HEADS).model
    with torch.no_grad():
        model.decoder.fusion.output.weight[:, 6:12] = 0
    found = head_importance(model, [tiny_batch(model)])
    assert found[1] == 0
    assert (found[[0, 2, 3, 4]] > 0).all()
    assert not model.training
