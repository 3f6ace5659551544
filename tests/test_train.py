"""Training through the command line: what it writes, exact resume, and what a mistake is told."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from latentcap.captioner import Captioner
from latentcap.cli.train import main
from latentcap.data.batches.datamodule import CaptionData
from latentcap.data.errors import UserError
from latentcap.data.readers import read_examples
from latentcap.data.scenes import render_scenes
from latentcap.inference.precision import fast_dtype

TINY = """
trainer:
  accelerator: cpu
  max_epochs: 2
  log_every_n_steps: 1
  precision: 32-true
  enable_progress_bar: false
model:
  model:
    backbone: {name: test_efficientnet, weights: random, image_size: 64}
    decoder: {embed_dim: 32, hidden_dim: 32, max_length: 16}
    fusion: {visual_heads: 2, text_heads: 2}
  search: {max_length: 16}
data:
  batch_size: 8
  tokenizer: {min_frequency: 1}
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    render_scenes(folder, train=40, val=10, test=6, size=64)
    return folder


class Runner:
    def __init__(self, folder: Path, scenes: Path) -> None:
        self.folder, self.scenes = folder, scenes
        (folder / "tiny.yaml").write_text(TINY)

    def __call__(self, command: str, name: str, *args: str, code: int = 0) -> Path:
        root = self.folder / name
        given = [f"--trainer.default_root_dir={root}", f"--data.train={self.scenes}"]
        given += [f"--data.cache_dir={self.folder / 'cache'}", *args]
        assert main([command, "--config", str(self.folder / "tiny.yaml"), *given]) == code
        return root


@pytest.fixture
def train(tmp_path: Path, scenes: Path) -> Runner:
    return Runner(tmp_path, scenes)


def weights(root: Path) -> dict[str, torch.Tensor]:
    return torch.load(root / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_fit_leaves_a_model_folder_and_scores(train: Runner, scenes: Path) -> None:
    root = train("fit", "run")
    assert {path.name for path in (root / "model").iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    captioner = Captioner.from_pretrained(root / "model")
    images = sorted((scenes / "val").glob("*.jpg"))
    assert captioner.caption(images[:3], context=["what is on the left", None, None])[0].text
    card = (root / "model" / "README.md").read_text()
    assert "| CIDEr-D |" in card
    assert "not for clinical use" in card
    assert str(root) not in card
    header = (root / "metrics.csv").read_text().splitlines()[0]
    assert {"train/loss", "val/loss", "val/BLEU-4", "val/ROUGE-L", "val/CIDEr-D"} <= set(header.split(","))
    captions = [json.loads(line) for line in (root / "captions_val.jsonl").read_text().splitlines()]
    assert len(captions) == 10
    assert set(captions[0]) == {"index", "id", "file", "caption", "score"}
    assert [caption["index"] for caption in captions] == list(range(10))


@pytest.mark.parametrize(("given", "seed"), [(["--seed_everything=7"], 7), (["--data.seed=3"], 3), ([], 0)])
def test_the_seed_of_a_run_is_that_of_its_data_too(
    train: Runner, given: list[str], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that trainings with several seeds differ in the order of their batches, not in their first weights alone."""

    def stop(data: CaptionData, stage: str) -> None:
        raise UserError(f"the seed is {data.seed}")

    monkeypatch.setattr(CaptionData, "setup", stop)
    with pytest.raises(UserError, match=f"the seed is {seed}"):
        train("fit", "run", *given)


def test_validate_and_test_score_a_model_folder(train: Runner) -> None:
    folder = train("fit", "run") / "model"
    for command, split, count in (("validate", "val", 10), ("test", "test", 6)):
        root = train(command, command, f"--model.start_from={folder}")
        assert len((root / f"captions_{split}.jsonl").read_text().splitlines()) == count


def test_the_last_checkpoint_is_of_the_last_epoch(train: Runner) -> None:
    """Also where that epoch was not validated: who pulls the plug loses no more than the epoch under way."""
    limits = ["--trainer.max_epochs=-1", "--trainer.max_steps=15"]
    root = train("fit", "run", *limits, "--trainer.check_val_every_n_epoch=2")
    epochs = {
        name: torch.load(root / "checkpoints" / f"{name}.ckpt", weights_only=True)["epoch"] for name in ("best", "last")
    }
    assert epochs == {"best": 1, "last": 2}


def test_a_terminated_run_leaves_its_model_and_goes_on(train: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    from latentcap.training.module import CaptionModule

    original, batches = CaptionModule.training_step, []

    def terminated(self: CaptionModule, batch: object, index: int) -> object:
        batches.append(index)
        if len(batches) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, index)  # type: ignore[arg-type]

    monkeypatch.setattr(CaptionModule, "training_step", terminated)
    handler = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray leaves one of its own behind in this process
    try:
        root = train("fit", "run", "--trainer.max_epochs=1", code=143)
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert Captioner.from_pretrained(root / "model").caption(sorted((train.scenes / "val").glob("*.jpg"))[:1])
    train("fit", "run", "--trainer.max_epochs=1", "--ckpt_path=last")
    assert len(batches) == 5


def test_training_does_not_run_a_frozen_backbone(train: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    train("fit", "first")
    from latentcap.model.backbone import Backbone

    def fail(self: Backbone, images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the backbone ran on cached images")

    monkeypatch.setattr(Backbone, "forward", fail)
    train("fit", "second")


def test_a_trainable_backbone_is_trained(train: Runner) -> None:
    root = train("fit", "run", "--model.model.backbone.trainable=all", "--data.workers=0", "--trainer.max_epochs=1")
    start = train("fit", "frozen", "--trainer.max_epochs=1")
    name = "model.backbone.net.conv_stem.weight"
    assert not torch.equal(weights(root)[name], weights(start)[name])


def test_the_frozen_layers_of_a_backbone_trained_in_part_run_once(
    train: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their output is cached; the layers after them learn, and what is saved captions pictures as validation did."""
    settings = ("--model.model.backbone.trainable=2", "--model.optim.backbone_lr=0.01", "--trainer.max_epochs=1")
    first = train("fit", "first", *settings)
    from latentcap.model.backbone import Backbone

    def fail(self: Backbone, images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the whole backbone ran")

    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "forward", fail)
        second = train("fit", "second", *settings)
    start, found = train("fit", "frozen", "--trainer.max_epochs=1"), weights(second)
    changed = {name for name, value in weights(start).items() if not torch.equal(found[name], value)}
    assert "model.backbone.net.bn2.weight" in changed
    assert "model.backbone.net.conv_stem.weight" not in changed
    assert all(torch.equal(value, found[name]) for name, value in weights(first).items())
    captions = {
        record["file"]: record["caption"]
        for record in map(json.loads, (second / "captions_val.jsonl").read_text().splitlines())
    }
    captioner = Captioner.from_pretrained(second / "model")
    context = {example.images[0].path: example.context for example in read_examples(str(train.scenes))}
    written = captioner.caption(list(captions), context=[context[name] for name in captions])
    assert [caption.text for caption in written] == list(captions.values())


def test_more_of_the_loss(train: Runner) -> None:
    train(
        "fit",
        "run",
        "--model.optim.attention_penalty=0.5",
        "--model.optim.scheduled_sampling=0.5",
        "--data.captions_per_image=2",
        "--data.tokenizer.kind=bpe",
        "--data.tokenizer.vocab_size=300",
        f"--trainer.precision={'bf16-mixed' if fast_dtype(torch.device('cpu')) == torch.bfloat16 else '32-true'}",
        "--trainer.accumulate_grad_batches=2",
    )


def test_a_model_reads_context_only_where_some_was_learned_from(train: Runner, tmp_path: Path) -> None:
    """Weights that nothing taught would make noise of it."""
    own = tmp_path / "own"
    own.mkdir()
    for index, image in enumerate(sorted((train.scenes / "train").glob("*.jpg"))[:8]):
        (own / f"{index}.jpg").write_bytes(image.read_bytes())
        (own / f"{index}.txt").write_text("a red circle")
    data = f"--data.train={own}", f"--data.val={own}", "--trainer.max_epochs=1"
    root = train("fit", "plain", *data)
    with pytest.raises(UserError, match="reads no context: it was trained without any"):
        Captioner.from_pretrained(root / "model").caption([own / "0.jpg"], context=["what is on the left"])
    assert not any("context" in name for name in weights(root))
    train("fit", "plain", *data, "--trainer.max_epochs=2", "--ckpt_path=last")
    # What a model was taught before, it keeps; what it never was, new data teach.
    asking = train("fit", "asking", "--trainer.max_epochs=1") / "model"
    for name, folder, given in (("kept", asking, data), ("taught", root / "model", ())):
        found = train("fit", name, *given, f"--model.start_from={folder}", "--trainer.max_epochs=1") / "model"
        assert Captioner.from_pretrained(found).model.context is not None


def test_fine_tuning_keeps_extends_or_replaces_the_vocabulary(
    train: Runner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = train("fit", "base") / "model"
    old = Captioner.from_pretrained(base).tokenizer.vocab
    data = tmp_path / "own"
    data.mkdir()
    for index in range(8):
        (data / f"{index}.jpg").write_bytes(next((train.scenes / "train").glob("*.jpg")).read_bytes() + bytes([index]))
        (data / f"{index}.txt").write_text("a red zeppelin above a circle")
    sizes = {}
    for mode in ("keep", "extend", "replace"):
        caplog.clear()
        with caplog.at_level("INFO"):
            root = train(
                "fit",
                mode,
                f"--data.train={data}",
                f"--data.val={data}",
                f"--model.start_from={base}",
                f"--data.vocabulary={mode}",
            )
        vocab = Captioner.from_pretrained(root / "model").tokenizer.vocab
        sizes[mode] = len(vocab)
        assert ("zeppelin" in vocab) == (mode != "keep")
        assert re.search(r"start from .*: words: \d+ kept, \d+ new, \d+ dropped", caplog.text)
        if mode != "replace":
            assert vocab[: len(old)] == old
    assert sizes["keep"] == len(old)
    assert sizes["extend"] == len(old) + 1 + ("above" not in old)
    assert sizes["replace"] == 4 + 5  # special tokens; "a" counts once


def test_corrupt_images_and_empty_captions_are_named_and_skipped(
    train: Runner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "broken"
    data.mkdir()
    good = next((train.scenes / "train").glob("*.jpg")).read_bytes()
    for index in range(8):
        (data / f"{index}.jpg").write_bytes(good + bytes([index]) if index else b"not an image")
        (data / f"{index}.txt").write_text("a red circle" if index != 1 else " ... !")
    for trainable in ("none", "all"):
        caplog.clear()
        train(
            "fit",
            trainable,
            f"--data.train={data}",
            f"--data.val={data}",
            f"--model.model.backbone.trainable={trainable}",
            "--data.workers=0",
        )
        assert "skipped: " in caplog.text
        assert "0.jpg" in caplog.text
        assert "1 of 8 examples have no caption" in caplog.text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model.optim.lrr=1"], "lrr.*[Dd]id you mean '.*lr'"),
        (["--trainer.max_epocs=1"], "max_epocs.*Did you mean 'trainer.max_epochs'"),
        (["--model.model.fusion.visual_heads=3"], "does not split into 5 heads"),
        (["--data.vocabulary=both"], "replace, keep, extend"),
        (["--data.train=nowhere"], "nowhere"),
        (["--model.start_from=nowhere"], "nowhere.*does not exist"),
        (["--ckpt_path=last"], "no run to go on with"),
        (["--data.variants=2"], "augmentation is not set"),
        (["--model.model.backbone.name=tf_efficientnet_light0"], "Did you mean"),
    ],
)
def test_a_mistake_is_one_short_message(train: Runner, args: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        train("fit", "run", *args)
    text = str(caught.value)
    assert re.search(message, text, re.DOTALL), text
    assert len(text) < 700
    assert "Traceback" not in text
    assert text.count("\n") < 3


@pytest.mark.slow
def test_two_processes_validate_every_example_once(train: Runner) -> None:
    """Distributed: each rank captions its share, and the scores are those of one process on the same weights."""
    base = train("fit", "base", "--trainer.max_epochs=1") / "model"
    alone = train("validate", "alone", f"--model.start_from={base}")
    together = train.folder / "together"
    command = [sys.executable, "-m", "latentcap.cli.main", "train", "fit", "--config", str(train.folder / "tiny.yaml")]
    command += [f"--trainer.default_root_dir={together}", f"--data.train={train.scenes}"]
    command += [f"--data.cache_dir={train.folder / 'cache'}", f"--model.start_from={base}"]
    command += ["--trainer.devices=2", "--model.optim.lr=0", "--trainer.max_epochs=1", "--data.vocabulary=keep"]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    captions = [
        [json.loads(line)["caption"] for line in (folder / "captions_val.jsonl").read_text().splitlines()]
        for folder in (alone, together)
    ]
    assert captions[0] == captions[1]
    scores = json.loads((together / "model" / "scores.json").read_text())
    expected = dict(
        zip(*[line.split(",") for line in (alone / "metrics.csv").read_text().splitlines()[:2]], strict=True)
    )
    for name in ("val/BLEU-4", "val/CIDEr-D", "val/ROUGE-L", "val/distinct"):
        assert scores[name] == pytest.approx(float(expected[name]), abs=1e-4)


def test_a_run_ends_with_rewards(train: Runner) -> None:
    settings = ["--model.optim.self_critical=2", "--model.optim.self_critical_epoch=1"]
    root = train("fit", "rewarded", *settings)
    with open(root / "metrics.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert {row["epoch"] for row in rows if row["train/reward"]} == {"1"}
    assert {row["epoch"] for row in rows if not row["train/reward"]} == {"0"}
