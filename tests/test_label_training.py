"""Labels first, from examples without captions too; then captions by a decoder that reads what the head predicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from latentcap.captioner import Captioner
from latentcap.data.errors import UserError
from tests.test_train import Runner

LABELLED = """
trainer: {check_val_every_n_epoch: 2}
model:
  optim: {caption_weight: 0.0, label_weight: 1.0, lr: 0.02}
data:
  fields: {labels: [findings]}
checkpoint: {monitor: val/AUC of findings}
early_stopping: {monitor: val/AUC of findings}
"""


@pytest.fixture
def train(tmp_path: Path) -> Runner:
    return Runner(tmp_path, tmp_path)


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Bright and dark pictures with findings that say so; half of the training ones have no report."""
    rows = []
    for number in range(48):
        bright, split = number % 2 == 0, "val" if number >= 40 else "train"
        Image.new("RGB", (64, 64), (200 + number,) * 3 if bright else (number,) * 3).save(tmp_path / f"{number}.png")
        text = "the lungs are white." if bright else "the lungs are clear."
        # Only films without a report have scars, so that the second stage would have other classes of its own.
        captions = [] if split == "train" and number % 4 < 2 else [text]
        findings = "Edema;Opacity" if bright else "No Finding"
        findings += ";Scar" if split == "train" and not captions else ""
        rows.append({"file_name": f"{number}.png", "captions": captions, "findings": findings, "split": split})
    (tmp_path / "films.json").write_text(json.dumps(rows))
    return tmp_path / "films.json"


def test_labels_first_and_then_the_captions_that_read_them(train: Runner, films: Path, tmp_path: Path) -> None:
    (tmp_path / "labelled.yaml").write_text(LABELLED)
    first = train(
        "fit", "first", f"--config={tmp_path / 'labelled.yaml'}", f"--data.train={films}", "--trainer.max_epochs=8"
    )
    scores = json.loads((first / "model" / "scores.json").read_text())
    assert scores["val/AUC of findings"] == scores["val/F1 of findings"] == 1
    assert "val/loss" not in scores
    checkpoint = torch.load(first / "checkpoints" / "best.ckpt", weights_only=True)
    assert torch.equal(checkpoint["state_dict"]["model.labels.thresholds"], checkpoint["thresholds"])
    for line in (first / "captions_val.jsonl").read_text().splitlines():
        record = json.loads(line)
        number = int(Path(record["file"]).stem)
        assert record["labels"]["findings"].startswith("Edema;Opacity" if number % 2 == 0 else "No Finding")
    assert "train 40" not in (first / "model" / "README.md").read_text()
    assert "| train | films.json | 40 |" in (first / "model" / "README.md").read_text()
    stage = ["--model.optim.label_weight=1", "--model.optim.frozen=[labels]", "--data.fields.labels=[findings]"]
    stage += ["--model.model.reads_labels=true", f"--data.train={films}"]
    second = train("fit", "second", f"--model.start_from={first / 'model'}", *stage)
    assert "| train | films.json | 20 |" in (second / "model" / "README.md").read_text()
    before, after = (Captioner.from_pretrained(root / "model").model.labels for root in (first, second))
    assert before is not None
    assert after is not None
    assert torch.equal(before.heads[0].weight, after.heads[0].weight)
    with pytest.raises(UserError, match=r"no head for findings in model\.start_from \(not set\)"):
        train("fit", "third", *stage)
    image = Image.open(films.parent / "40.png")
    assert (
        Captioner.from_pretrained(second / "model").caption([image])[0].labels["findings"].startswith("Edema;Opacity")
    )


def test_what_cannot_be_learned_is_said(train: Runner, films: Path) -> None:
    with pytest.raises(UserError, match="both 0: nothing would be learned"):
        train("fit", "nothing", "--model.optim.caption_weight=0")
    stage = ["--model.optim.label_weight=1", "--model.optim.frozen=[labels]", "--data.fields.labels=[findings]"]
    with pytest.raises(UserError, match=r"no head for findings in model\.start_from \(not set\)"):
        train("fit", "frozen", *stage, f"--data.train={films}")
    alone = ["--model.optim.caption_weight=0", "--model.optim.label_weight=1"]
    with pytest.raises(UserError, match=r"nothing to learn: .*--data\.fields\.labels"):
        train("fit", "alone", *alone, f"--data.train={films}")


def test_words_of_the_captions_are_labels_without_a_column(train: Runner, films: Path, tmp_path: Path) -> None:
    """Words first, then sentences by a decoder that is told them; stop words and rare ones are no classes."""
    rows = json.loads(films.read_text())
    for number, row in enumerate(rows):
        del row["findings"]
        row["words"] = f"column {number}"  # such as captions that were written as a table have
        row["captions"] = (
            ["It's a bright picture.", "the picture of a rarity"] if number % 2 == 0 else ["a dark picture"]
        )
        row["captions"] = row["captions"][: 2 if number == 4 else 1]
    films.write_text(json.dumps(rows))
    options = [f"--data.train={films}", "--data.fields.labels=[words]", "--model.optim.lr=0.02"]
    first = train("fit", "first", "--config=words", f"--trainer.default_root_dir={tmp_path / 'first'}", *options)
    assert "val/AUC of words" in json.loads((first / "model" / "scores.json").read_text())
    options += [f"--model.start_from={first / 'model'}", "--model.model.reads_labels=true"]
    run = train("fit", "second", *options, "--model.optim.label_weight=1", "--trainer.max_epochs=6")
    captioner = Captioner.from_pretrained(run / "model")
    assert captioner.model.labels is not None
    assert captioner.model.labels.classes == {"words": ["bright", "dark", "picture"]}
    bright, dark = captioner.caption([films.parent / "0.png", films.parent / "1.png"])
    assert "bright" in bright.labels["words"].split(";")
    assert "bright" not in dark.labels["words"].split(";")


def test_validation_examples_that_cannot_tell_how_well_labels_are_predicted(
    train: Runner, films: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As of a handful of images: an epoch cannot be chosen, and the training goes on."""
    rows = [row for row in json.loads(films.read_text()) if row["captions"]]
    films.write_text(json.dumps([row for row in rows if row["split"] == "train"] + rows[-1:]))
    options = [f"--data.train={films}", "--data.fields.labels=[words]", f"--trainer.default_root_dir={tmp_path / 'w'}"]
    run = train("fit", "w", "--config=words", *options)
    assert json.loads((run / "model" / "scores.json").read_text())["val/AUC of words"] == 0.5
    assert "AUC of words is taken to be 0.5 and chooses no epoch: all or none of the valid" in caplog.text
