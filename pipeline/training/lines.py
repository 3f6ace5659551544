"""How far a training is, where there is no terminal to draw a bar on: a line every minute and at each validation."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

SHOWN = ("loss", "image_worth", "BLEU-4", "CIDEr-D")


class Lines(Callback):
    """Writes to standard error. Silent on a terminal, and where another callback of this kind does the same work."""

    def __init__(self, seconds: float = 60.0) -> None:
        self.seconds = seconds
        self.silent = True

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        others = [entry for entry in trainer.callbacks if isinstance(entry, Lines) and entry is not self]  # type: ignore[attr-defined]
        self.silent = sys.stderr.isatty() or not trainer.is_global_zero or bool(others)
        self.start = self.said = time.monotonic()
        self.first = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, *args: Any) -> None:
        if self.silent or time.monotonic() - self.said < self.seconds:
            return
        self.said = time.monotonic()
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        parts = [f"loss {float(loss):.3f}"] if isinstance(loss, torch.Tensor) else []
        rate = max(float(group["lr"]) for group in trainer.optimizers[0].param_groups)
        self._say(trainer, [*parts, f"rate {rate:.1e}"])

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.silent or trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        scores = {name.removeprefix("val/"): value for name, value in trainer.callback_metrics.items()}
        shown = [*SHOWN, *(name for name in scores if name.startswith(("AUC of ", "accuracy of ")))]  # of labels
        parts = [f"{name} {float(scores[name]):.3f}" for name in shown if name in scores]
        self._say(trainer, [f"validation {parts[0]}", *parts[1:]] if parts else ["validated"])

    def _say(self, trainer: L.Trainer, parts: list[str]) -> None:
        step, steps = trainer.global_step, float(trainer.estimated_stepping_batches)
        of = f" of {steps:,.0f}" if math.isfinite(steps) else ""
        done = step - self.first
        if done and math.isfinite(steps):
            left = (time.monotonic() - self.start) / done * (steps - step)
            parts.append(f"{duration(left)} left")
        print(f"epoch {trainer.current_epoch + 1}, step {step:,}{of}: {', '.join(parts)}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """In the unit that says enough: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
