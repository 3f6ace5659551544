"""The label head: what it learns, what it leaves out, and that it goes into and out of the model folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from latentcap.captioner import Captioner
from latentcap.config import LabelPooling
from latentcap.data.errors import UserError
from latentcap.data.example import Example
from latentcap.model.caption_model import CaptionModel
from latentcap.model.label_head import LabelHead
from latentcap.model.label_scores import accuracies, area_under_roc, list_scores
from latentcap.model.label_values import label_classes, list_shares, lists_of
from tests.helpers import tiny_captioner, tiny_config, tiny_tokenizer

CLASSES = {"modality": ["CT", "MR"], "plane": ["axial", "coronal", "sagittal"]}


def test_it_learns_and_missing_labels_teach_nothing() -> None:
    torch.manual_seed(0)
    head = LabelHead(8, CLASSES, dropout=0.0)
    pooled = torch.randn(16, 8)
    regions = pooled.unsqueeze(1)
    labels = [{"modality": "CT" if row[0] > 0 else "MR"} for row in pooled]
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.05, weight_decay=0)
    before = head.heads[1].weight.clone()
    for _ in range(100):
        optimizer.zero_grad()
        head.loss(head(regions), labels).backward()
        optimizer.step()
    guesses = head.predict(head(regions))
    assert [guess["modality"][0] for guess in guesses] == [row["modality"] for row in labels]
    assert all(0.5 < guess["modality"][1] <= 1 for guess in guesses)
    assert torch.equal(head.heads[1].weight, before)
    assert head.loss(head(regions), [{}] * 16) == 0
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
    assert before.labels is not None
    shares = model.labels.probabilities(before.labels)
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


FINDINGS = {"findings": ["Atelectasis", "Edema", "Fracture"], "plane": ["axial", "coronal"]}


def findings(*rows: str | None) -> list[dict[str, str]]:
    return [{} if row is None else {"findings": row} for row in rows]


def test_a_label_may_have_several_values_at_once() -> None:
    torch.manual_seed(0)
    head = LabelHead(8, FINDINGS, dropout=0.0, lists={"findings": [0.5, 0.5, 0.5]})
    targets = head.targets("findings", findings("Edema; Fracture", "", None, "Pneumonia"))
    assert targets.tolist() == [[0, 1, 1], [0, 0, 0], [-1, -1, -1], [0, 0, 0]]
    pooled = torch.randn(32, 8)
    pooled = pooled - pooled.mean(1, keepdim=True)  # as the head's norm makes them
    regions = pooled.unsqueeze(1)
    names = FINDINGS["findings"]
    rows = [";".join(name for name, value in zip(names, row.tolist(), strict=False) if value > 0) for row in pooled]
    labels = findings(*rows)
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.05, weight_decay=0)
    for _ in range(200):
        optimizer.zero_grad()
        head.loss(head(regions), labels).backward()
        optimizer.step()
    assert [guess["findings"][0] for guess in head.predict(head(regions))] == rows
    shares = head.probabilities(head(regions))
    assert shares.shape == (32, 5)
    assert shares[:, head.span("plane")].sum(1) == pytest.approx(torch.ones(32).numpy(), abs=1e-5)
    scores = list_scores(shares[:, :3], head.targets("findings", labels), head.thresholds[:3])
    assert scores == {"AUC": pytest.approx(1), "F1": pytest.approx(1)}
    assert head.loss(head(regions), findings(*[None] * 32)) == 0


@pytest.mark.parametrize("pooling", ["mean", "regions"])
def test_pooling_is_over_the_regions_that_exist(pooling: LabelPooling) -> None:
    torch.manual_seed(0)
    head = LabelHead(8, FINDINGS, dropout=0.5, lists={"findings": [0.5, 0.4, 0.3]}, pooling=pooling).eval()
    torch.nn.init.normal_(head.heads[0].weight)
    regions, mask = torch.randn(3, 7, 8), torch.tensor([7, 4, 1]).unsqueeze(1) > torch.arange(7)
    found = head(regions, mask)
    for row, (own, there) in enumerate(zip(regions, mask, strict=True)):
        torch.testing.assert_close(head(own[there].unsqueeze(0))[0], found[row])
        each = torch.stack([torch.cat([linear(head.norm(cell)) for linear in head.heads]) for cell in own[there]])
        if pooling == "regions":
            torch.testing.assert_close(each.exp().mean(0).log(), found[row])
    torch.testing.assert_close(head(regions), head(regions, torch.ones_like(mask)))
    # One region that shows a finding weighs more than all the others that do not.
    head.heads[0].weight.data[0] = torch.tensor([9.0, -9, 0, 0, 0, 0, 0, 0])
    plain = torch.tensor([[-1.0, 1, 1, -1, 0, 0, 0, 0]]).repeat(1, 9, 1)
    shown = plain.clone()
    shown[0, 4] = -plain[0, 4]
    less, more = head(plain)[0, 0], head(shown)[0, 0]
    assert less < more
    assert (more > 0) == (pooling == "regions")
    # In training the same channels of all regions are left out.
    same = torch.randn(1, 1, 8).repeat(2, 5, 1)
    torch.manual_seed(1)
    several = head.train()(same)
    torch.manual_seed(1)
    torch.testing.assert_close(several, head(same[:, :1]))


def test_which_labels_have_several_values_is_seen_in_the_examples() -> None:
    rows = findings(*["Edema;Atelectasis", "Edema", ""] * 6, "Fracture")
    examples = [Example(str(n), (), labels={**row, "plane": "axial"}) for n, row in enumerate(rows)]
    assert lists_of(examples, ["findings", "plane"]) == ["findings"]
    classes = label_classes(examples, ["findings"])
    assert classes == {"findings": ["Atelectasis", "Edema"]}  # too few fractures
    shares = list_shares([*examples, Example("x", ())], classes)
    assert shares == {"findings": pytest.approx([6 / 19, 12 / 19], abs=1e-6)}
    head = LabelHead(4, classes, dropout=0.0, lists=shares)
    assert head.probabilities(head(torch.randn(1, 9, 4)))[0].tolist() == pytest.approx(shares["findings"], abs=1e-4)
    assert head.readings(head(torch.randn(1, 9, 4)))[0].tolist() == pytest.approx([0, 0], abs=1e-4)
    head.heads[0].bias.data += torch.tensor([2.0, -20.0])
    assert head.readings(head(torch.randn(1, 9, 4)))[0].tolist() == pytest.approx([0.7616, -1], abs=1e-3)


def test_areas_are_those_of_all_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        truth = torch.rand(30, generator=generator) < 0.3
        truth[0] = True
        shares = (torch.rand(30, generator=generator) + 0.3 * truth).mul(10).round() / 10  # with ties
        pairs = [(a > b) + 0.5 * (a == b) for a in shares[truth].tolist() for b in shares[~truth].tolist()]
        assert area_under_roc(shares, truth) == pytest.approx(sum(pairs) / len(pairs))


def test_thresholds_name_a_class_as_often_as_training_examples_have_it() -> None:
    head = LabelHead(4, FINDINGS, dropout=0.0, lists={"findings": [0.5, 0.2, 0.0]})
    shares = torch.rand(100, 5, generator=torch.Generator().manual_seed(0))
    head.set_thresholds(shares)
    assert (shares[:, :3] > head.thresholds[:3]).sum(0).tolist() == [50, 20, 0]
    assert head.thresholds[3:].tolist() == [0.5, 0.5]


def test_thresholds_go_into_the_folder(tmp_path: Path) -> None:
    plain = tiny_captioner()
    model = CaptionModel(
        tiny_config(), vocab_size=len(tiny_tokenizer()), labels=FINDINGS, label_lists={"findings": [0.3, 0.2, 0.1]}
    )
    captioner = Captioner(model, tokenizer=plain.tokenizer, image=plain.image)
    assert model.labels is not None
    model.labels.set_thresholds(torch.rand(9, 5, generator=torch.Generator().manual_seed(0)))
    captioner.save(tmp_path / "model", half=False)
    loaded = Captioner.from_pretrained(tmp_path / "model", dtype=torch.float32)
    assert loaded.model.labels is not None
    assert loaded.model.labels.lists == {"findings": [0.3, 0.2, 0.1]}
    assert torch.equal(loaded.model.labels.thresholds, model.labels.thresholds)
    image = Image.new("RGB", (64, 64), "grey")
    assert loaded.caption([image])[0].labels == captioner.caption([image])[0].labels


def test_words_are_classes_where_three_examples_in_a_thousand_have_them() -> None:
    rows = ["dog;grass"] * 3_000 + ["dog;stick"] * 14 + ["dog;twig"] * 8
    examples = [Example(str(place), (), labels={"words": row}) for place, row in enumerate(rows)]
    assert label_classes(examples, ["words"]) == {"words": ["dog", "grass", "stick"]}
    assert label_classes(examples[2995:], ["words"]) == {"words": ["dog", "grass", "stick", "twig"]}
    few = [Example("one", (), labels={"words": "dog;stick"}), Example("two", (), labels={"words": "dog"})]
    assert label_classes(few, ["words"]) == {"words": ["dog"]}
    assert lists_of(few[1:], ["words"]) == ["words"]
