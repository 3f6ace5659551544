"""A run that goes on from a checkpoint: exactly as if it had never stopped, and with the checkpoint's vocabulary."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from latentcap.captioner import Captioner
from latentcap.data.batches.datamodule import CaptionData
from latentcap.data.batches.vocabulary import TokenizerConfig
from latentcap.data.errors import UserError
from latentcap.data.example import Example, ImageRef
from latentcap.data.readers import Fields
from latentcap.data.scenes import render_scenes
from latentcap.training.learned import KEY, Learned
from tests.test_train import Runner, weights


@pytest.fixture
def train(tmp_path: Path) -> Runner:
    render_scenes(tmp_path / "scenes", train=40, val=6, test=0, size=64)
    return Runner(tmp_path, tmp_path / "scenes")


LIVE = [
    "--model.model.backbone.trainable=all",
    "--data.workers=1",
    "--data.augmentation.horizontal_flip=0.5",
    "--model.optim.backbone_lr=0.01",
    "--trainer.max_epochs=2",
    "--trainer.check_val_every_n_epoch=2",
]


STAGED = ["--model.optim.start_epoch={fusion: 2}", "--trainer.check_val_every_n_epoch=3"]


@pytest.mark.parametrize(
    ("stop", "settings"),
    [(6, []), (8, []), (7, LIVE), (8, STAGED)],
    ids=["epoch", "middle", "live", "before a part is to learn"],
)
def test_a_resumed_run_is_the_uninterrupted_one(
    train: Runner, stop: int, settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of five batches an epoch, stopped before one of them; with images from the cache, and decoded by a worker."""
    settings = ["--trainer.max_epochs=3", *settings]
    whole = train("fit", "whole", *settings)
    from latentcap.training.module import CaptionModule

    original, batches = CaptionModule.training_step, []

    def interrupted(self: CaptionModule, batch: object, index: int) -> object:
        batches.append(index)
        if len(batches) == stop and not done:
            raise KeyboardInterrupt
        return original(self, batch, index)  # type: ignore[arg-type]

    done: list[int] = []
    monkeypatch.setattr(CaptionModule, "training_step", interrupted)
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        train("fit", "parts", *settings)
    done.append(1)
    parts = train("fit", "parts", *settings, "--ckpt_path=last")
    expected, found = weights(whole), weights(parts)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=name)


def test_a_run_is_gone_on_with_or_left_alone(train: Runner) -> None:
    settings = ["--trainer.check_val_every_n_epoch=2", "--trainer.log_every_n_steps=2"]
    run = train("fit", "run", "--trainer.max_epochs=2", *settings)
    before, model = (run / "metrics.csv").read_text(), weights(run)
    for wrong in (["--data.train=nowhere"], []):
        with pytest.raises(UserError, match=r"nowhere|run holds a run already: add --ckpt_path last"):
            train("fit", "run", *wrong)
    with pytest.raises(UserError, match="nowhere"):
        train("fit", "run", "--ckpt_path=last", "--data.train=nowhere")
    assert (run / "metrics.csv").read_text() == before
    assert all(torch.equal(value, model[name]) for name, value in weights(run).items())
    # Three epochs are not a multiple of two, and the last is scored all the same.
    train("fit", "run", "--trainer.max_epochs=3", "--ckpt_path=last", *settings)
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(steps)
    old = list(csv.DictReader(before.splitlines()))
    assert [{name: row[name] for name in old[0]} for row in rows[: len(old)]] == old
    assert [int(row["epoch"]) for row in rows if row["val/loss"]] == [1, 2]


def test_other_data_are_trained_on_with_the_checkpoints_words(train: Runner, caplog: pytest.LogCaptureFixture) -> None:
    """Also where they give a vocabulary of the same size, whose rows would be taken for those of other words."""
    train("fit", "run", "--trainer.max_epochs=1")
    before = Captioner.from_pretrained(train.folder / "run" / "model").tokenizer.vocab
    assert "red" in before
    table = train.scenes / "metadata.jsonl"
    table.write_text(table.read_text().replace("red", "aardvark"))
    root = train("fit", "run", "--ckpt_path=last")
    assert Captioner.from_pretrained(root / "model").tokenizer.vocab == before
    assert "the training data have changed since" in caplog.text
    assert "which lacks 1 word of theirs (aardvark)" in caplog.text


def data(*captions: str, kind: str = "word", **settings: object) -> CaptionData:
    found = CaptionData("x", tokenizer=TokenizerConfig(kind=kind, min_frequency=1), **settings)  # type: ignore[arg-type]
    found.examples["train"] = [
        Example(str(place), (ImageRef("x.png"),), (text,), numbers={"age": place}, views=("pa",))
        for place, text in enumerate(captions)
    ]
    return found


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    learned = Learned.from_data(
        data("a red circle", "a star", fields=Fields(numbers=("age",))), start_from=None, labels=(), max_views=2
    )
    torch.save({KEY: learned.to_checkpoint()}, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def test_what_was_learned_comes_back_whole(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    same = data("a red circle", "a star", fields=Fields(numbers=("age",)))
    found = Learned.from_checkpoint(checkpoint, same, labels=(), max_views=2)
    expected = Learned.from_data(same, start_from=None, labels=(), max_views=2)
    assert found is not None
    assert found.tokenizer.content_hash == expected.tokenizer.content_hash
    assert (found.fields, found.slots, found.labels) == (expected.fields, expected.slots, {})
    assert found.slots.names == ("frontal",)
    assert not caplog.text


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"kind": "bpe"}, r"data.tokenizer.kind is bpe and was word when .*last.ckpt was written.*model.start_from"),
        ({"fields": Fields()}, r"data.fields.numbers is \[\] and was \['age'\]"),
    ],
)
def test_settings_that_the_weights_are_made_for_cannot_change(
    checkpoint: Path, other: dict[str, object], message: str
) -> None:
    settings = {"fields": Fields(numbers=("age",)), **other}
    with pytest.raises(UserError, match=message):
        Learned.from_checkpoint(checkpoint, data("a red circle", **settings), labels=(), max_views=2)  # type: ignore[arg-type]


def test_a_file_that_holds_nothing_of_ours_is_left_to_the_trainer(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_text(json.dumps({}))
    torch.save({"state_dict": {}}, tmp_path / "old.ckpt")
    for name in ("last.ckpt", "old.ckpt", "none.ckpt"):
        assert Learned.from_checkpoint(tmp_path / name, data("a"), labels=(), max_views=1) is None
