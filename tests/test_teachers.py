"""Trained models as teachers: their mean probabilities, what becomes of the loss, and which may teach."""

from __future__ import annotations

import csv
from dataclasses import replace
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
from latentcap.training.teachers import Lesson, Teachers
from tests.helpers import seeing_captioner, tiny_captioner
from tests.test_train import Runner

CPU = torch.device("cpu")
FROZEN = BackboneConfig(name="test_efficientnet", weights="random", image_size=64, trainable="none")
LEARNS = BackboneConfig(name="test_efficientnet", weights="random", image_size=64, trainable="3")


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
        lesson=Lesson(captions=True, labels=False),
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
    taught = teachers(batch)
    found = taught.words
    assert found is not None
    assert taught.labels is None
    torch.testing.assert_close(found, (each[0] + each[1]) / 2)
    assert not found.requires_grad
    memory = model.encode(**batch.inputs())
    loss, _ = next_word_loss(model.decoder, inputs, targets, memory, smoothing=0.1, taught=found, teacher_weight=0.7)
    logits = model.decoder.logits(model.decoder(inputs, memory)[0])[words]
    true = cross_entropy(logits, targets[words], label_smoothing=0.1)
    torch.testing.assert_close(loss, 0.3 * true - 0.7 * (found * logits.log_softmax(-1)).sum(-1).mean())


def test_teachers_of_labels_have_upper_layers_of_their_own_and_a_share_of_the_loss(tmp_path: Path) -> None:
    learner, teachers = seeing_captioner(backbone=LEARNS), [seeing_captioner(backbone=LEARNS) for _ in range(2)]
    split = learner.model.backbone.built.split
    assert split is not None
    for seed, teacher in enumerate(teachers, 1):
        torch.manual_seed(seed)
        head, own = teacher.model.labels, teacher.model.backbone.built.split
        assert head is not None
        assert own is not None
        own.stem.load_state_dict(split.stem.state_dict())
        torch.nn.init.normal_(head.heads[1].weight)
        torch.nn.init.normal_(next(own.tail.parameters()), std=0.2)
    folders = [str(tmp_path / str(place)) for place in range(2)]
    for folder, teacher in zip(folders, teachers, strict=True):
        teacher.save(folder, half=False)
    teach = partial(Teachers, lesson=Lesson(captions=False, labels=True), device=CPU)
    # Its words do not matter: they are not taught.
    lessons = teach(folders, learner.model, tokenizer=CaptionTokenizer.train(["other words"]))
    height, width, channels = split.shape
    cells = torch.randn(3, height * width, channels)
    taught = lessons(replace(batch_of(learner.model), regions=None, cells=cells))
    each = []
    for teacher in teachers:
        head, own = teacher.model.eval().labels, teacher.model.backbone.built.split
        assert head is not None
        assert own is not None
        each.append(head.probabilities(head(own.regions_from(cells))))
    assert taught.words is None
    assert taught.labels is not None
    assert not each[0].allclose(each[1], atol=1e-3)
    torch.testing.assert_close(taught.labels, (each[0] + each[1]) / 2)

    head = learner.model.labels
    assert head is not None
    logits = torch.randn(3, head.num_classes)
    labels = [{"words": "red;star", "plane": "axial"}, {"plane": "coronal"}, {"words": "green"}]
    several, one = logits.split([6, 2], -1)
    taught_several, taught_one = taught.labels.split([6, 2], -1)
    rows = [[0, 0, 0, 0, 1, 1], [0, 1, 0, 0, 0, 0]]  # of the examples with words: circle, green, kangaroo, left, ...
    wanted = 0.4 * torch.tensor(rows) + 0.6 * taught_several[[0, 2]]
    sums = -(wanted * several[[0, 2]].sigmoid().log() + (1 - wanted) * (-several[[0, 2]]).sigmoid().log()).sum(1)
    planes = -((0.4 * torch.eye(2) + 0.6 * taught_one[:2]) * one[:2].log_softmax(-1)).sum(1)
    loss = head.loss(logits, labels, taught=taught.labels, teacher_weight=0.6)
    torch.testing.assert_close(loss, (sums.mean() + planes.mean()) / 2)

    fewer = CaptionModel(
        learner.model.config,
        vocab_size=len(learner.tokenizer),
        labels={"words": head.classes["words"][1:]},
        label_lists={"words": head.lists["words"][1:]},
    )
    with pytest.raises(UserError, match=r"other labels than this run.*data\.fields\.labels"):
        teach(folders, fewer, tokenizer=learner.tokenizer)
    with torch.no_grad():
        next(split.stem.parameters()).add_(1)
    with pytest.raises(UserError, match="other layers below those of the CNN that learn"):
        teach(folders, learner.model, tokenizer=learner.tokenizer)


def test_who_cannot_teach_is_refused(tmp_path: Path) -> None:
    learner = tiny_captioner(backbone=FROZEN)
    folder = saved(sibling(learner.model, 1), learner, tmp_path / "teacher")
    teach = partial(Teachers, [folder], lesson=Lesson(captions=True, labels=False), device=CPU)
    with pytest.raises(UserError, match="other words than this run"):
        teach(learner.model, tokenizer=CaptionTokenizer.train(["other words"]))
    reads = tiny_captioner(backbone=FROZEN, fields=ContextFields(numbers={"age": (50.0, 10.0)}))
    with pytest.raises(UserError, match="another context than this run"):
        teach(reads.model, tokenizer=reads.tokenizer)
    with torch.no_grad():
        next(learner.model.backbone.parameters()).add_(1)
    with pytest.raises(UserError, match=r"another CNN than this run.*model\.start_from"):
        teach(learner.model, tokenizer=learner.tokenizer)
    with pytest.raises(UserError, match="this run learns from rewards alone"):
        OptimConfig(teachers=[folder], self_critical=5)
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


def test_words_are_learned_from_models_that_know_them(tmp_path: Path) -> None:
    """A first stage: the label head and the CNN's last layers learn, captions do not."""
    render_scenes(tmp_path / "scenes", train=16, val=4, test=0, size=64)
    train = Runner(tmp_path, tmp_path / "scenes")
    words = ["--model.optim.caption_weight=0", "--model.optim.label_weight=1", "--data.fields.labels=[words]"]
    words += ["--model.model.backbone.trainable=3", "--model.optim.start_epoch={}", "--trainer.max_epochs=1"]
    words += ["--checkpoint.monitor=val/AUC of words", "--early_stopping.monitor=val/AUC of words"]
    words += ["--model.model.decoder.dropout=0"]
    teacher = train("fit", "teacher", *words) / "model"

    def losses(name: str, *more: str) -> list[float]:
        with open(train("fit", name, *words, *more) / "metrics.csv", encoding="utf-8") as file:
            return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]

    alone, taught = losses("alone"), f"--model.optim.teachers=[{teacher}]"
    assert losses("unheard", taught, "--model.optim.teacher_weight=0") == pytest.approx(alone)
    assert losses("heard", taught)[0] != pytest.approx(alone[0], abs=1e-3)
