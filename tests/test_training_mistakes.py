"""What a training is told to do that cannot be done: one sentence with the cause and the way out."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from latentcap.cli.train.lightning_cli import train
from latentcap.data.errors import UserError
from latentcap.training.lightning_messages import explain
from latentcap.training.optim import OptimConfig
from latentcap.training.trainer_settings import unused_parameters_allowed


def told(folder: Path, *arguments: str) -> str:
    """The message of a command that ends before any data is read."""
    given = ("fit", "--data.train", str(folder / "none"), "--trainer.default_root_dir", str(folder / "run"), *arguments)
    with pytest.raises(UserError) as caught:
        train(given)
    message = str(caught.value)
    assert len(message) < 420, message
    assert not re.search(r"<class|Namespace|Traceback|typing\.|\n|Union", message), message
    return message


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--data.batch_size=abc", r"data\.batch_size is 'abc': it must be a whole number"),
        ("--data.batch_size=0", r"data\.batch_size is 0: it must be 1 or more"),
        ("--data.crop_mode=cut", r"data\.crop_mode is 'cut': it must be resize, crop, pad"),
        ("--data.seed=-1", r"data\.seed is -1"),
        ("--model.optim.lr=abc", r"model\.optim\.lr is 'abc': it must be a number"),
        ("--model.optim.lr=-1", r"model\.optim\.lr is -1.0: it must be 0 or more"),
        ("--model.optim.momentum=0.9", r"there is no setting 'model\.optim\.momentum'"),
        ("--model.model.fusion.visual_heads=x", r"model\.model\.fusion\.visual_heads is 'x'"),
        ("--model.model.decoder.dropout=2", r"decoder\.dropout is 2.0"),
        ("--trainer.max_epocs=3", r"no setting 'trainer\.max_epocs'\. Did you mean 'trainer\.max_epochs'"),
        ("--trainer.precision=8", r"trainer\.precision is '8': it must be .*bf16-mixed"),
        ("--trainer.benchmark=maybe", r"trainer\.benchmark is 'maybe': it must be true or false"),
        ("--trainer.logger=Nonsense", r"trainer\.logger is 'Nonsense'.*TensorBoardLogger"),
        ("--trainer.logger=TensorBoardLogger", r"TensorBoardLogger lacks save_dir: add --trainer\.logger\.save_dir"),
        ("--trainer.max_epochs=0", r"trainer\.max_epochs is 0, so nothing would be trained"),
        ("--trainer.check_val_every_n_epoch=0", r"check_val_every_n_epoch is 0: it must be 1 or more"),
        ("--trainer.enable_checkpointing=false", r"enable_checkpointing is false.*Leave the setting out"),
        ("--trainer.devices=0", r"trainer\.devices is 0: give how many to train on, 1 or more"),
        ("--trainer.accelerator=banana", r"banana.*auto"),
        ("--trainer.profiler=nonsense", r"profiler.*simple"),
        ("--trainer.default_root_dir=/dev/null/run", r"default_root_dir '/dev/null/run' cannot be made"),
        ("--early_stopping.mode=up", r"early_stopping\.mode is 'up'"),
        ("--ema.decay=2", r"ema\.decay is 2.0: it must be from 0 to 1"),
        ("--seed_everything=-1", r"seed_everything must be a whole number from 0"),
        ("--ckpt_path=no.ckpt", r"--ckpt_path no\.ckpt does not exist: give the file"),
        ("--config=nowhere.yaml", r"nowhere\.yaml"),
        ("--optimizer=Adam", r"there is no setting 'optimizer'"),
    ],
)
def test_a_setting_that_cannot_work(tmp_path: Path, argument: str, message: str) -> None:
    assert re.search(message, told(tmp_path, argument))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    assert "PyTorch finds no GPU here" in told(tmp_path, "--trainer.accelerator=gpu")


def test_a_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **settings: object) -> None:
        raise ModuleNotFoundError("Requirement 'wandb>=0.12.10' not met. HINT: Try running `pip install -U 'wandb'`")

    monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger.__init__", fail)
    assert "pip install 'wandb>=0.12.10'" in told(tmp_path, "--trainer.logger=WandbLogger")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"trainer: {max_epochs: [}\n", r"is not YAML: .*line 1, column 24"),
        (b"- a\n- b\n", "holds no settings"),
        (b"", "holds no settings"),
        (b"\xff\xd8\xff\xe0", "is no text"),
        (None, "is a folder"),
    ],
)
def test_a_recipe_that_is_none(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.mkdir() if content is None else path.write_bytes(content)
    for given in ([f"--config={path}"], ["--config", str(path)]):
        assert re.search(f"--config {re.escape(str(path))} .*{message}", told(tmp_path, *given))


def test_a_checkpoint_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("hello")
    (tmp_path / "model.safetensors").write_bytes(bytes(50))
    torch.save({"state_dict": {}}, tmp_path / "weights.ckpt")
    for name, message in (
        ("text.ckpt", "is no checkpoint, or is damaged"),
        ("model.safetensors", "is no checkpoint, or is damaged"),
        ("weights.ckpt", "not a checkpoint of a training run"),
        (".", "is a folder"),
    ):
        said = told(tmp_path, f"--ckpt_path={tmp_path / name}")
        assert message in said
        assert "--model.start_from" in said


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space is left on the disk"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 128 vs 22"), "no space is left"),
        (
            PermissionError(errno.EACCES, "Permission denied", "runs/x/metrics.csv"),
            "'runs/x/metrics.csv' cannot be used",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "halve --data.batch_size"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "lower --data.workers"),
        (RuntimeError("Error(s) in loading state_dict for CaptionModule: size mismatch"), "is of another model"),
        (
            MisconfigurationException("You requested to check 0.5 of the `val_dataloader` but 0.5 * 1 < 1. Please ..."),
            r"0\.5 of the val batches is less than one batch: give trainer\.limit_val_batches, .*such as 1",
        ),
        (
            MisconfigurationException("`devices` selected with `CPUAccelerator` should be an int > 0."),
            r"trainer\.devices is a number of processes on a CPU: give 1 or more",
        ),
        (
            MisconfigurationException(
                "`CUDAAccelerator` can not run on your system since the accelerator is not available. The following "
                "accelerator(s) is available and can be passed into `accelerator` argument of `Trainer`: ['cpu']."
            ),
            r"trainer\.accelerator is CUDA, which is not there: .* \('cpu'\)",
        ),
        (
            ValueError("You selected an invalid strategy name: `strategy='x'`. Example choices: auto, ddp. Find a ..."),
            r"trainer\.strategy is 'x': leave the setting out, or give one of auto, ddp\.$",
        ),
        (
            MisconfigurationException("`Trainer(devices='0')` is odd. HINT: ..."),
            r"trainer\.devices '0' is odd\. latentcap",
        ),
    ],
)
def test_what_stops_a_run_is_explained(error: Exception, message: str) -> None:
    assert re.search(message, explain(error) or "")


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    assert explain(AssertionError("oh")) is None
    assert explain(TypeError("'int' object is not iterable")) is None


def test_rates_and_shares_have_ranges() -> None:
    for settings in ({"label_smoothing": 2.0}, {"warmup": 5.0}, {"weight_decay": -1.0}, {"backbone_lr": float("nan")}):
        with pytest.raises(UserError, match=f"model.optim.{next(iter(settings))} is"):
            OptimConfig(**settings)  # type: ignore[arg-type]


def test_processes_may_leave_parameters_unused() -> None:
    assert unused_parameters_allowed("ddp") == "ddp_find_unused_parameters_true"
    assert unused_parameters_allowed("ddp_spawn") == "ddp_spawn_find_unused_parameters_true"
    for given in ("auto", "ddp_find_unused_parameters_false", "fsdp"):
        assert unused_parameters_allowed(given) == given
