"""The demo's training: ``latentcap train`` with one bar. Apart from the demo, for lightning takes long to import."""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from typing import Any

import lightning as L

from latentcap.cli.train import main
from latentcap.progress import Progress
from latentcap.training.lines import Lines


class OneBar(Lines):
    """All steps of the training as one count with the time left, and the scores of every validation."""

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.first = trainer.global_step
        self.progress = Progress("training", unit="step").__enter__()

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *args: Any) -> None:
        steps = int(trainer.estimated_stepping_batches)
        self.progress.update(trainer.global_step - self.first, steps - self.first)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        scores = {name: float(trainer.callback_metrics[f"val/{name}"]) for name in ("BLEU-4", "CIDEr-D")}
        shown = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
        print(f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}: {shown} on the val scenes", flush=True)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.progress.__exit__(None, None, None)

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        if hasattr(self, "progress"):
            self.progress.__exit__(None, None, None)


def train(config: Path, *, folder: Path, epochs: int | None, resume: bool) -> None:
    """Train on ``folder/scenes`` into ``folder``; go on from the last checkpoint there with ``resume``.

    Raises KeyboardInterrupt when interrupted, after the checkpoint is written.
    """
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    arguments = ["fit", "--config", str(config), "--data.train", str(folder / "scenes")]
    arguments += ["--data.cache_dir", str(folder / "cache"), "--trainer.default_root_dir", str(folder)]
    arguments += ["--trainer.enable_progress_bar", "false", "--trainer.callbacks", f"{__name__}.{OneBar.__name__}"]
    if epochs is not None:
        arguments += ["--trainer.max_epochs", str(epochs)]
    if resume and (folder / "checkpoints" / "last.ckpt").is_file():
        print("going on from the last checkpoint")
        arguments += ["--ckpt_path", "last"]
    handler = signal.getsignal(signal.SIGINT)
    try:
        main(arguments)
    except SystemExit:  # what Lightning makes of an interruption
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, handler)  # which Lightning sets to be ignored
