"""The label head: what it learns, what it leaves out, and that it goes into and out of the model folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from latentcap.captioner import Captioner
from latentcap.data.errors import UserError
from latentcap.data.example import Example
from latentcap.model.caption_model import CaptionModel
from latentcap.model.label_head import LabelHead, accuracies, label_classes
from tests.helpers import tiny_captioner, tiny_config, tiny_tokenizer

CLASSES = {"modality": ["CT", "MR"], "plane": ["axial", "coronal", "sagittal"]}


def test_it_learns_and_missing_labels_teach_nothing() -> None:
    torch.manual_seed(0)
    head = LabelHead(8, CLASSES, dropout=0.0)
    pooled = torch.randn(16, 8)
    labels = [{"modality": "CT" if row[0] > 0 else "MR"} for row in pooled]
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.05, weight_decay=0)
    before = head.heads[1].weight.clone()
    for _ in range(100):
        optimizer.zero_grad()
        head.loss(pooled, labels).backward()
        optimizer.step()
    guesses = head.predict(pooled)
    assert [guess["modality"][0] for guess in guesses] == [row["modality"] for row in labels]
    assert all(0.5 < guess["modality"][1] <= 1 for guess in guesses)
    assert torch.equal(head.heads[1].weight, before)
    assert head.loss(pooled, [{}] * 16) == 0
    assert head.targets("plane", [{"plane": "axial"}, {"plane": "oblique"}, {}]).tolist() == [0, -1, -1]


def test_classes_come_from_the_training_examples() -> None:
    examples = [Example(str(n), (), labels={"modality": "CT" if n % 2 else "MR"}) for n in range(12)]
    examples += [Example("x", (), labels={"modality": "drawing"})]
    assert label_classes(examples, ["modality"]) == {"modality": ["CT", "MR"]}
    with pytest.raises(UserError, match=r"label 'modalitty'.*Did you mean 'modality'"):
        label_classes(examples, ["modalitty"])
    with pytest.raises(UserError, match="at least 2 are needed"):
        label_classes(examples[:6], ["modality"])


def test_accuracy_is_told_with_that_of_the_most_frequent_class() -> None:
    predicted = [{"plane": "axial"}, {"plane": "axial"}, {"plane": "coronal"}]
    truth = [{"plane": "axial"}, {}, {"plane": "sagittal"}]
    assert accuracies(predicted, truth) == {"plane": (0.5, 0.5, 2)}


def test_labels_are_printed_with_captions_and_kept_in_the_folder(tmp_path: Path) -> None:
    plain = tiny_captioner()
    model = CaptionModel(tiny_config(), vocab_size=len(tiny_tokenizer()), labels=CLASSES)
    captioner = Captioner(model, tokenizer=plain.tokenizer, image=plain.image)
    image = Image.new("RGB", (64, 64), "grey")
    caption = captioner.caption([image])[0]
    assert set(caption.labels) == set(caption.label_scores) == {"modality", "plane"}
    captioner.save(tmp_path / "with", half=False)
    loaded = Captioner.from_pretrained(tmp_path / "with", dtype=torch.float32).caption([image])[0]
    assert loaded.labels == caption.labels
    plain.save(tmp_path / "without")
    assert "labels" not in json.loads((tmp_path / "without" / "config.json").read_text())
    assert plain.caption([image])[0].labels == {}


def test_the_decoder_is_told_what_the_head_predicts() -> None:
    torch.manual_seed(0)
    size = len(tiny_tokenizer())
    model = CaptionModel(tiny_config(reads_labels=True), vocab_size=size, labels=CLASSES).eval()
    assert model.labels is not None
    images = torch.rand(2, 1, 3, 64, 64)
    before = model.encode(images=images)
    assert before.pooled is not None
    shares = model.labels.probabilities(before.pooled)
    assert shares.shape == (2, 5)
    assert torch.allclose(shares.sum(1), torch.tensor(2.0))
    before.summary.sum().backward()
    assert model.labels.heads[1].weight.grad is None  # captions do not bend what is predicted
    with torch.no_grad():
        model.labels.heads[1].bias[2] += 10
    assert not torch.allclose(model.encode(images=images).summary, before.summary)
    with pytest.raises(UserError, match=r"reads_labels is true, and there is no label head.*data\.fields\.labels"):
        CaptionModel(tiny_config(reads_labels=True), vocab_size=size)


def test_a_model_that_sees_no_image_writes_the_same_for_all() -> None:
    torch.manual_seed(0)
    blind = tiny_captioner(sees_image=False)
    images = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    first, second = blind.caption(images, "a red circle")
    assert first.score == pytest.approx(second.score, abs=1e-6)
    seeing = tiny_captioner()
    first, second = seeing.caption(images, "a red circle")
    assert first.score != pytest.approx(second.score, abs=1e-6)
