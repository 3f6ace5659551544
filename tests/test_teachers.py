"""Trained models as teachers: their mean probabilities, what becomes of the loss, and which may teach."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from latentcap.captioner import Captioner
from latentcap.config import BackboneConfig
from latentcap.data.batches.context import ContextBatch, ContextFields
from latentcap.data.batches.dataset import Batch
from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.data.errors import UserError
from latentcap.data.scenes import render_scenes
from latentcap.model.caption_model import CaptionModel
from latentcap.training.losses import next_word_loss
from latentcap.training.optim import OptimConfig
from latentcap.training.teachers import Teachers
from tests.helpers import tiny_captioner
from tests.test_train import Runner

CPU = torch.device("cpu")
FROZEN = BackboneConfig(name="test_efficientnet", weights="random", image_size=64, trainable="none")


def sibling(model: CaptionModel, seed: int) -> CaptionModel:
    """The same CNN and words, all else as another seed has it."""
    torch.manual_seed(seed)
    other = CaptionModel(model.config, vocab_size=len(model.decoder.bias))
    torch.nn.init.normal_(other.decoder.embedding.weight)
    other.backbone.load_state_dict(model.backbone.state_dict())
    return other.eval()


def saved(model: CaptionModel, like: Captioner, folder: Path) -> str:
    Captioner(model, tokenizer=like.tokenizer, image=like.image).save(folder, half=False)
    return str(folder)


def batch_of(model: CaptionModel) -> Batch:
    """Three images with two captions each, of 1 to 5 words."""
    tokens = torch.randint(4, len(model.decoder.bias), (3, 2, 7))
    tokens[..., 0] = 1
    tokens = tokens * (torch.arange(7) <= torch.tensor([[2, 5], [6, 3], [4, 6]]).unsqueeze(-1))
    none = torch.zeros(3, 0)
    height, width = model.backbone.grid
    return Batch(
        tokens=tokens,
        context=ContextBatch(none.long(), none.bool(), none, none.long()),
        view_mask=torch.ones(3, 1, dtype=torch.bool),
        index=torch.arange(3),
        references=[["a b"]] * 3,
        regions=torch.randn(3, height * width, model.backbone.num_channels),
    )


def test_teachers_give_their_mean_probabilities_and_a_share_of_the_loss(tmp_path: Path) -> None:
    learner = tiny_captioner(backbone=FROZEN)
    model = learner.model
    others = [sibling(model, seed) for seed in (1, 2)]
    teachers = Teachers(
        [saved(other, learner, tmp_path / str(place)) for place, other in enumerate(others)],
        model,
        tokenizer=learner.tokenizer,
        device=CPU,
    )
    batch = batch_of(model)
    inputs, targets = batch.tokens[..., :-1], batch.tokens[..., 1:]
    words = targets != 0
    with torch.no_grad():
        each = [
            other.decoder.logits(other.decoder(inputs, other.encode(**batch.inputs()))[0])[words].softmax(-1)
            for other in others
        ]
    found = teachers.probabilities(batch)
    torch.testing.assert_close(found, (each[0] + each[1]) / 2)
    assert not found.requires_grad
    memory = model.encode(**batch.inputs())
    loss, _ = next_word_loss(model.decoder, inputs, targets, memory, smoothing=0.1, taught=found, teacher_weight=0.7)
    logits = model.decoder.logits(model.decoder(inputs, memory)[0])[words]
    true = cross_entropy(logits, targets[words], label_smoothing=0.1)
    torch.testing.assert_close(loss, 0.3 * true - 0.7 * (found * logits.log_softmax(-1)).sum(-1).mean())


def test_who_cannot_teach_is_refused(tmp_path: Path) -> None:
    learner = tiny_captioner(backbone=FROZEN)
    folder = saved(sibling(learner.model, 1), learner, tmp_path / "teacher")
    teach = partial(Teachers, [folder], device=CPU)
    with pytest.raises(UserError, match="other words than this run"):
        teach(learner.model, tokenizer=CaptionTokenizer.train(["other words"]))
    learns = tiny_captioner(backbone=BackboneConfig(**{**vars(FROZEN), "trainable": "all"}))
    with pytest.raises(UserError, match=r"a CNN that stays as it is.*--config sentences"):
        teach(learns.model, tokenizer=learns.tokenizer)
    reads = tiny_captioner(backbone=FROZEN, fields=ContextFields(numbers={"age": (50.0, 10.0)}))
    with pytest.raises(UserError, match="another context than this run"):
        teach(reads.model, tokenizer=reads.tokenizer)
    with torch.no_grad():
        next(learner.model.backbone.parameters()).add_(1)
    with pytest.raises(UserError, match=r"another CNN than this run.*model\.start_from"):
        teach(learner.model, tokenizer=learner.tokenizer)
    for without_true_words in ({"caption_weight": 0.0, "label_weight": 1.0}, {"self_critical": 5}):
        with pytest.raises(UserError, match="teach the words of true captions, and this run learns from none"):
            OptimConfig(teachers=[folder], **without_true_words)
    OptimConfig(teachers=[folder], self_critical=5, self_critical_epoch=1)


def test_a_training_learns_from_a_model_folder(tmp_path: Path) -> None:
    render_scenes(tmp_path / "scenes", train=16, val=4, test=0, size=64)
    train = Runner(tmp_path, tmp_path / "scenes")
    teacher = train("fit", "teacher") / "model"
    taught = [f"--model.start_from={teacher}", f"--model.optim.teachers=[{teacher}]", "--trainer.max_epochs=1"]
    taught += ["--model.model.decoder.dropout=0", "--model.model.fusion.latent_dropout=0"]

    def losses(name: str, *more: str) -> list[float]:
        with open(train("fit", name, *taught, *more) / "metrics.csv", encoding="utf-8") as file:
            return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]

    alone = losses("alone", "--model.optim.teachers=[]")
    assert losses("unheard", "--model.optim.teacher_weight=0") == pytest.approx(alone)
    assert losses("heard")[0] != pytest.approx(alone[0], abs=1e-3)
    with pytest.raises(UserError, match="other words than this run"):
        train("fit", "other", f"--model.optim.teachers=[{teacher}]", "--data.tokenizer.min_frequency=9")
