"""Whatever ends a training: after a step or more it leaves a model folder, and never one with broken weights."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from latentcap.captioner import Captioner
from latentcap.data.batches.context import ContextBatch
from latentcap.data.batches.dataset import Batch
from latentcap.data.errors import UserError
from latentcap.data.scenes import render_scenes
from latentcap.training.finite_loss import FiniteLoss, NotFinite
from latentcap.training.module import CaptionModule
from tests.helpers import tiny_captioner
from tests.test_train import Runner

Fit = Callable[..., Path]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    render_scenes(folder, train=16, val=4, test=0, size=64)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def fit(tmp_path: Path, drawn: Path, cache: Path) -> Fit:
    run = Runner(tmp_path, drawn)
    return lambda name, *settings: run("fit", name, f"--data.cache_dir={cache}", *settings)


@pytest.mark.parametrize(
    "settings",
    [
        ("--trainer.max_steps=1",),  # in the middle of the first epoch, before any validation
        ("--trainer.limit_val_batches=0", "--trainer.max_epochs=1"),
        ("--trainer.check_val_every_n_epoch=5", "--trainer.max_epochs=1"),
        ("--trainer.overfit_batches=1", "--trainer.max_epochs=2"),
        ("--trainer.val_check_interval=1", "--trainer.max_steps=1"),
    ],
)
def test_a_run_of_any_length_leaves_its_model(fit: Fit, drawn: Path, settings: tuple[str, ...]) -> None:
    root = fit("run", *settings)
    assert Captioner.from_pretrained(root / "model").caption(sorted((drawn / "val").glob("*.jpg"))[:1])


def test_overfitting_trains_on_the_same_batch_in_every_epoch(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    step = CaptionModule.training_step

    def watched(self: CaptionModule, batch: Batch, index: int) -> object:
        seen.append((sorted(batch.index.tolist()), batch.tokens.sum().item()))
        return step(self, batch, index)

    monkeypatch.setattr(CaptionModule, "training_step", watched)
    fit("run", "--trainer.overfit_batches=1", "--trainer.max_epochs=3", "--trainer.limit_val_batches=0")
    assert len(seen) == 3
    assert seen[0] == seen[1] == seen[2]


def test_a_fault_leaves_the_model_as_far_as_it_came(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = CaptionModule.training_step

    def fail(self: CaptionModule, batch: Batch, index: int) -> object:
        if self.trainer.global_step == 1:
            raise AssertionError("a fault of the program")
        return step(self, batch, index)

    monkeypatch.setattr(CaptionModule, "training_step", fail)
    with pytest.raises(AssertionError, match="a fault of the program"):
        fit("run")
    root = tmp_path / "run"
    Captioner.from_pretrained(root / "model")
    assert (root / "checkpoints" / "last.ckpt").is_file()


def test_no_step_no_model(fit: Fit) -> None:
    with pytest.raises(UserError, match="no step was made"):
        fit("run", "--trainer.limit_train_batches=0")


@pytest.mark.parametrize("setting", ["checkpoint", "early_stopping"])
def test_a_score_that_is_not_measured(fit: Fit, setting: str) -> None:
    with pytest.raises(UserError, match=rf"{setting}\.monitor is 'val/CIDER'.*val/CIDEr-D"):
        fit("run", f"--{setting}.monitor=val/CIDER", "--trainer.max_epochs=1")


def test_a_loss_that_is_no_number_stops_at_once(fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(NotFinite, match=r"epoch 1, step 2.*learning rate 1e\+30 .*--model\.optim\.lr 1e-03"):
        fit("run", "--model.optim.lr=1e30")
    assert not (tmp_path / "run" / "model").exists()
    assert not list((tmp_path / "run").rglob("*.ckpt"))


def test_a_validation_loss_that_is_no_number_stops_too(fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(NotFinite, match=r"validation loss is not a number any more \(epoch 1, step 1\): .*optim\.lr"):
        fit("run", "--model.optim.lr=1e30", "--data.batch_size=16", "--trainer.max_epochs=1")
    assert not (tmp_path / "run" / "model").exists()


def test_what_was_good_before_stays(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = CaptionModule.training_step

    def broken(self: CaptionModule, batch: Batch, index: int) -> Tensor:
        loss = step(self, batch, index)
        return loss * torch.nan if self.current_epoch == 1 else loss  # type: ignore[operator]

    monkeypatch.setattr(CaptionModule, "training_step", broken)
    with pytest.raises(NotFinite, match="epoch 2"):
        fit("run")
    assert re.search(r"epoch 1, step \d+ of \d+: validation loss \d", capsys.readouterr().err)
    for name in ("best", "last"):
        checkpoint = torch.load(tmp_path / "run" / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert checkpoint["epoch"] == 0
    Captioner.from_pretrained(tmp_path / "run" / "model")
    assert "val/CIDEr-D" in json.loads((tmp_path / "run" / "model" / "scores.json").read_text())


def test_the_cause_is_looked_for_in_the_data_and_the_precision() -> None:
    nothing = torch.zeros(2, 0)
    batch = Batch(
        tokens=torch.zeros(2, 1, 3, dtype=torch.long),
        context=ContextBatch(nothing.long(), nothing.bool(), torch.full((2, 1), torch.nan), nothing.long()),
        view_mask=torch.ones(2, 1, dtype=torch.bool),
        index=torch.tensor([4, 1]),
        regions=torch.zeros(2, 3, 5),
    )
    examples = [SimpleNamespace(id=f"x{number}") for number in range(5)]
    trainer = SimpleNamespace(
        datamodule=SimpleNamespace(datasets={"train": SimpleNamespace(examples=examples)}),
        optimizers=[SimpleNamespace(param_groups=[{"initial_lr": 1e-3}])],
        precision="16-mixed",
        global_step=0,
        current_epoch=0,
        log_every_n_steps=20,
    )
    watch = FiniteLoss()
    watch.on_train_batch_start(trainer, None, batch, 0)  # type: ignore[arg-type]
    with pytest.raises(NotFinite, match=r"float16 may be too narrow.*bf16-mixed"):
        watch.on_before_backward(trainer, None, torch.tensor(torch.inf))  # type: ignore[arg-type]
    batch.regions[1, 2, 0] = torch.inf  # type: ignore[index]
    with pytest.raises(NotFinite, match="the data hold values that are no numbers, in 'x1'"):
        watch.on_before_backward(trainer, None, torch.tensor(torch.nan))  # type: ignore[arg-type]


def test_broken_weights_are_neither_written_nor_read(tmp_path: Path) -> None:
    captioner = tiny_captioner()
    captioner.save(tmp_path / "good")
    with torch.no_grad():
        captioner.model.decoder.bias[0] = torch.nan
    with pytest.raises(UserError, match=r"no numbers, first in 'decoder\.bias'"):
        captioner.save(tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
    from safetensors.torch import load_file, save_file

    state = load_file(tmp_path / "good" / "model.safetensors")
    state["decoder.bias"][0] = torch.inf
    save_file(state, tmp_path / "good" / "model.safetensors")
    with pytest.raises(UserError, match=re.escape("decoder.bias")):
        Captioner.from_pretrained(tmp_path / "good")
