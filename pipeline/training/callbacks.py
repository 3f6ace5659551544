"""What a training run does besides training: model folder, exact resume."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, WeightAveraging
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from latentcap.captioner import Captioner
from latentcap.training.card import model_card
from latentcap.training.module import CaptionModule, describe


class EMA(WeightAveraging):
    """Exponential moving average of the weights, which validation and the model folder use.

    The average warms up, d_n = min(decay, (1 + n) / (10 + n)), so that it never drags the random initial weights along:
    Lightning's ``EMAWeightAveraging`` does, for hundreds of steps of a short run.

    Args:
        decay: how much of the average stays at each step, once warm; 0 turns the average off.
    """

    def __init__(self, decay: float = 0.998) -> None:
        def average(averaged: Tensor, current: Tensor, count: int | Tensor) -> Tensor:
            keep = min(decay, (1 + int(count)) / (10 + int(count)))
            return averaged.lerp(current.to(averaged.dtype), 1 - keep) if averaged.is_floating_point() else current

        super().__init__(avg_fn=average)


class RandomState(Callback):
    """Keeps torch's random state in checkpoints, so that a resumed run draws what the uninterrupted one would have."""

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["random_state"] = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}

    def on_load_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.loaded = checkpoint.get("random_state")

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        state = getattr(self, "loaded", None)
        if state is not None:
            torch.set_rng_state(state["cpu"].cpu())
            if len(state["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all([entry.cpu() for entry in state["cuda"]])
            self.loaded = None


class Checkpoints(ModelCheckpoint):
    """The best checkpoint, and the last: of every epoch, validated or not, better or not.

    A run interrupted while it trains saves ``last`` and leaves ``best`` alone.
    """

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        super().on_train_epoch_end(trainer, module)
        if self._last_global_step_saved != trainer.global_step:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        if trainer.training and trainer.global_step > 0:  # while validating, the weights are the averaged ones
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))


class ModelFolder(Callback):
    """Writes the model folder from the best checkpoint when training ends or is interrupted.

    Args:
        half: store weights in half precision.
        notice: terms of the data, and what else the model card has to say under limits.
    """

    def __init__(self, half: bool = True, notice: str = "") -> None:
        self.half, self.notice = half, notice
        self.folder: Path | None = None

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._write(trainer, module)

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt | SIGTERMException):
            self._write(trainer, module)

    def _write(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, CaptionModule)
        if not trainer.is_global_zero or module.model is None:
            return
        scores = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        best = next((entry for entry in trainer.checkpoint_callbacks if isinstance(entry, ModelCheckpoint)), None)
        state = None
        if best is not None and best.best_model_path:
            checkpoint = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
            state, scores = checkpoint["state_dict"], checkpoint.get("scores", scores)
        current = {name: value.clone() for name, value in module.state_dict().items()}
        if state is not None:
            module.load_state_dict(state)
        captioner: Captioner = module.captioner()
        self.folder = Path(trainer.default_root_dir) / "model"
        data = trainer.datamodule  # type: ignore[attr-defined]
        card = model_card(
            captioner,
            command=" ".join(["python", *sys.argv]),
            data={split: len(dataset) for split, dataset in data.datasets.items()},
            source=data.sources,
            scores=scores,
            settings=describe(module.config, module.optim, module.search),
            epochs=trainer.current_epoch,
            started=module.started,
            notice=self.notice,
        )
        captioner.save(self.folder, half=self.half, card=card)
        if scores:
            (self.folder / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
        module.load_state_dict(current)

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["scores"] = {
            name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")
        }
