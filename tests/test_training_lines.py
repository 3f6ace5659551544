"""What a log file of a training tells."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from latentcap.training.lines import Lines, duration


def trainer(**changes: Any) -> Any:
    settings = {
        "callbacks": [],
        "is_global_zero": True,
        "global_step": 0,
        "current_epoch": 1,
        "estimated_stepping_batches": 400,
        "optimizers": [SimpleNamespace(param_groups=[{"lr": 1e-4}, {"lr": 2e-3}])],
        "callback_metrics": {
            "val/loss": torch.tensor(2.5),
            "val/image_worth": torch.tensor(0.125),
            "val/AUC of words": torch.tensor(0.875),
            "val/CIDEr-D": torch.tensor(0.75),
            "val/F1 of words": torch.tensor(0.5),
        },
        "state": SimpleNamespace(fn=TrainerFn.FITTING),
        "sanity_checking": False,
    }
    return SimpleNamespace(**{**settings, **changes})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_a_line_a_minute_and_one_for_each_validation(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    lines, run = Lines(), trainer()
    lines.on_train_start(run, None)  # type: ignore[arg-type]
    for step in range(1, 101):
        clock[0] += 1.5
        run.global_step = step
        lines.on_train_batch_end(run, None, {"loss": torch.tensor(3.25)}, None, step)  # type: ignore[arg-type]
    lines.on_validation_end(run, None)  # type: ignore[arg-type]
    assert capsys.readouterr().err.splitlines() == [
        "epoch 2, step 40 of 400: loss 3.250, rate 2.0e-03, 9 min left",
        "epoch 2, step 80 of 400: loss 3.250, rate 2.0e-03, 8 min left",
        "epoch 2, step 100 of 400: validation loss 2.500, image_worth 0.125, CIDEr-D 0.750, AUC of words 0.875, "
        "8 min left",
    ]


def test_silence_on_a_terminal_and_beside_another_of_its_kind(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = Lines(seconds=0)
    runs = [trainer(callbacks=[lines, Lines()]), trainer(is_global_zero=False)]
    for run in runs:
        lines.on_train_start(run, None)  # type: ignore[arg-type]
        lines.on_train_batch_end(run, None, {"loss": torch.tensor(1.0)})  # type: ignore[arg-type]
        lines.on_validation_end(run, None)  # type: ignore[arg-type]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run = trainer()
    lines.on_train_start(run, None)  # type: ignore[arg-type]
    lines.on_validation_end(run, None)  # type: ignore[arg-type]
    assert capsys.readouterr().err == ""


def test_a_run_without_an_end_has_no_time_left(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    lines, run = Lines(seconds=0), trainer(estimated_stepping_batches=float("inf"))
    lines.on_train_start(run, None)  # type: ignore[arg-type]
    run.global_step = 7
    lines.on_train_batch_end(run, None, {"loss": torch.tensor(1.0)})  # type: ignore[arg-type]
    assert re.fullmatch(r"epoch 2, step 7: loss 1\.000, rate 2\.0e-03\n", capsys.readouterr().err)


def test_durations() -> None:
    assert [duration(value) for value in (40, 720, 12600)] == ["40 s", "12 min", "3.5 h"]
