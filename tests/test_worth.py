"""What the image and the context are worth: exchanged within the batch, measured, logged, and warned of."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

from latentcap.cli.train import main
from latentcap.data.batches.caption_tokens import caption_tokens
from latentcap.data.batches.context import ContextBatch
from latentcap.data.batches.dataset import Batch
from latentcap.data.example import Example
from latentcap.data.scenes import render_scenes
from latentcap.training.card import model_card
from latentcap.training.losses import next_word_loss
from latentcap.training.worth import Worth, exchanged, little
from tests.helpers import tiny_captioner, tiny_tokenizer
from tests.test_train import TINY


def batch(size: int, *, known: bool = True) -> Batch:
    context = torch.arange(size).unsqueeze(1)
    numbers, categories = torch.empty(size, 0), torch.empty(size, 0, dtype=torch.long)
    return Batch(
        tokens=torch.ones(size, 1, 4, dtype=torch.long),
        context=ContextBatch(context + 4, (context >= 0) & known, numbers, categories),
        view_mask=torch.ones(size, 1, dtype=torch.bool),
        index=torch.arange(size),
        images=torch.rand(size, 1, 3, 64, 64),
        references=[["a"]] * size,
    )


@pytest.mark.parametrize("size", [2, 3, 4, 7])
def test_every_example_gets_the_part_of_another_and_keeps_the_rest(size: int) -> None:
    own = batch(size)
    image, context = exchanged(own, "image"), exchanged(own, "context")
    assert own.images is not None
    assert image.images is not None
    taken = [next(k for k in range(size) if torch.equal(own.images[k], row)) for row in image.images]
    assert sorted(taken) == list(range(size))
    assert all(place != other for place, other in enumerate(taken))
    assert image.context is own.context
    assert context.images is own.images
    assert (context.context.tokens != own.context.tokens).all()
    assert torch.equal(image.tokens, own.tokens)


def test_it_is_the_mean_over_all_words_of_what_they_cost_more() -> None:
    model = tiny_captioner().model.eval()
    worth, batches = Worth(), [batch(4), batch(2)]
    batches[1].tokens[:, :, 2:] = 0
    total, words = 0.0, 0
    with torch.no_grad():
        for each in batches:
            inputs, targets = each.tokens[..., :-1], each.tokens[..., 1:]
            memory, of_others = (model.encode(**which.inputs()) for which in (each, exchanged(each, "image")))
            own, other = (next_word_loss(model.decoder, inputs, targets, read)[0] for read in (memory, of_others))
            worth.update(model, each, memory, own)
            total, words = total + float(other - own) * int((targets > 0).sum()), words + int((targets > 0).sum())
    assert words == 4 * 3 + 2
    found = worth.compute()
    assert found["image"] == pytest.approx(total / words, abs=1e-6)
    assert found["context"] != 0
    assert worth.compute() == {}


def test_where_nothing_can_be_exchanged_there_is_no_number() -> None:
    model = tiny_captioner().model.eval()
    worth = Worth()
    worth.update(model, one := batch(1), model.encode(**one.inputs()), torch.tensor(1.0))
    assert worth.compute() == {}
    with torch.no_grad():
        worth.update(model, two := batch(2, known=False), model.encode(**two.inputs()), torch.tensor(1.0))
    assert set(worth.compute()) == {"image"}


@pytest.mark.parametrize("sees", [True, False])
def test_a_run_logs_it_and_warns_where_the_model_does_not_look(
    sees: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    render_scenes(tmp_path / "scenes", train=16, val=6, test=2, size=64)
    (tmp_path / "tiny.yaml").write_text(TINY)
    root = tmp_path / "run"
    arguments = [f"--trainer.default_root_dir={root}", f"--data.train={tmp_path / 'scenes'}"]
    arguments += [
        f"--data.cache_dir={tmp_path / 'cache'}",
        "--trainer.max_epochs=1",
        f"--model.model.sees_image={sees}",
    ]
    with caplog.at_level(logging.WARNING):
        assert main(["fit", "--config", str(tmp_path / "tiny.yaml"), *arguments]) == 0
    scores = json.loads((root / "model" / "scores.json").read_text())
    card = (root / "model" / "README.md").read_text()
    assert {"val/image_worth", "val/context_worth"} <= scores.keys()
    assert "| image_worth |" in card
    assert scores["val/image_worth"] < 0.05  # after two steps nobody looks
    warned = [text for text in (caplog.text, card) if "nats a word (below 0.05)" in text]
    assert len(warned) == (2 if sees else 0)  # a model made without images is not told so


def test_a_model_that_looks_has_no_warning() -> None:
    assert little(0.05) == ""
    assert "worth 0.049 nats a word (below 0.05)" in little(0.049)
    card = model_card(tiny_captioner(), command="latentcap train", data={}, source={}, scores={"val/image_worth": 0.9},
                      settings={}, epochs=1)  # fmt: skip
    assert "below 0.05" not in card


def test_tokens_of_captions_are_framed_and_padded() -> None:
    texts = [Example("1", (), ("a red circle", "green")), Example("2", (), ("blue star left of the square",))]
    tokens = caption_tokens(tiny_tokenizer(), texts, 6)
    assert tokens.shape == (2, 2, 8)
    assert [int((row > 0).sum()) for row in tokens[0]] == [5, 3]
    assert tokens[1, 1].tolist() == [0] * 8
    assert caption_tokens(tiny_tokenizer(), [Example("1", ())], 8).tolist() == [[[0, 0]]]
