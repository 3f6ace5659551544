"""What a training run does besides training: model folder, exact resume."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from latentcap.captioner import Captioner
from latentcap.data.errors import UserError, did_you_mean
from latentcap.training.card import as_typed, model_card
from latentcap.training.finite_loss import NotFinite
from latentcap.training.module import CaptionModule, describe

logger = logging.getLogger(__name__)


def check_monitor(setting: str, monitor: str | None, trainer: L.Trainer) -> None:
    """Raises UserError where validation has not measured what a setting watches."""
    known = sorted(name for name in trainer.callback_metrics if name.startswith("val/"))
    if trainer.sanity_checking or monitor is None or monitor in trainer.callback_metrics:
        return
    raise UserError(
        f"{setting}.monitor is '{monitor}', which validation does not measure.{did_you_mean(monitor, known)} "
        f"It measures {', '.join(known)}."
    )


class RandomState(Callback):
    """Keeps torch's random state in checkpoints, so that a resumed run draws what the uninterrupted one would have.

    Where several processes train together, each draws from (seed, step, rank) instead: dropout differs between them,
    and there is nothing to keep.
    """

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.seed = torch.initial_seed()

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["random_state"] = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}

    def on_load_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.loaded = checkpoint.get("random_state")

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        state = getattr(self, "loaded", None)
        if trainer.world_size > 1:
            place = (self.seed, trainer.current_epoch, batch_idx, trainer.global_rank)
            torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
        elif state is not None:
            torch.set_rng_state(state["cpu"].cpu())
            if len(state["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all([entry.cpu() for entry in state["cuda"]])
            self.loaded = None


class Stopping(EarlyStopping):
    """Stops where validation has not got better for long; an epoch without validation says nothing."""

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        check_monitor("early_stopping", self.monitor, trainer)
        super().on_validation_end(trainer, module)


class Checkpoints(ModelCheckpoint):
    """The best checkpoint, and the last: of every epoch, validated or not, better or not.

    A run interrupted while it trains saves ``last`` and leaves ``best`` alone. It waits for no other process then,
    which may have ended, or know of nothing.
    """

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        check_monitor("checkpoint", self.monitor, trainer)
        super().on_validation_end(trainer, module)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        super().on_train_epoch_end(trainer, module)
        if self._last_global_step_saved != trainer.global_step:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, NotFinite):
            return
        trainer.strategy.barrier = lambda *args, **settings: None  # type: ignore[method-assign]
        if trainer.training and trainer.global_step > 0:  # while validating, the weights are the averaged ones
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))


class ModelFolder(Callback):
    """Writes the model folder from the best checkpoint when training ends, whatever ends it, after a step or more.

    Args:
        half: store weights in half precision.
        notice: terms of the data, and what else the model card has to say under limits.
        state_findings: of chest X-ray reports: a draft gets a plain sentence for each finding of the label head that it
            does not state.
    """

    def __init__(self, half: bool = True, notice: str = "", state_findings: bool = False) -> None:
        self.half, self.notice, self.state_findings = half, notice, state_findings
        self.folder: Path | None = None

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.global_step > 0:
            self._write(trainer, module)

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.global_step == 0:
            return
        try:
            self._write(trainer, module, broken=isinstance(exception, NotFinite))
        except Exception as error:  # what stopped the training is what is told
            logger.warning("no model folder could be written: %s", error)
        if self.folder is not None:
            logger.info("model folder: %s", self.folder)

    def _write(self, trainer: L.Trainer, module: L.LightningModule, *, broken: bool = False) -> None:
        """``broken``: the weights as they are now are not to be used."""
        assert isinstance(module, CaptionModule)
        if not trainer.is_global_zero or module.model is None:
            return
        scores = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        best = next((entry for entry in trainer.checkpoint_callbacks if isinstance(entry, ModelCheckpoint)), None)
        state, thresholds = None, module.thresholds
        path = "" if best is None else best.best_model_path or (best.last_model_path if broken else "")
        if path:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            state, scores = checkpoint["state_dict"], checkpoint.get("scores", scores)
            thresholds = checkpoint.get("thresholds")
        elif broken:
            logger.warning("no model folder is written: there is no checkpoint from before")
            return
        current = {name: value.clone() for name, value in module.state_dict().items()}
        if state is not None:
            module.load_state_dict(state)
        if thresholds is not None and module.model.labels is not None:
            module.model.labels.thresholds.copy_(thresholds)
        captioner: Captioner = module.captioner()
        self.folder = Path(trainer.default_root_dir) / "model"
        data = trainer.datamodule  # type: ignore[attr-defined]
        captioner.state_findings = self.state_findings and captioner.model.labels is not None
        card = model_card(
            captioner,
            command=as_typed(sys.argv),
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
        assert isinstance(module, CaptionModule)
        checkpoint["thresholds"] = module.thresholds
        checkpoint["scores"] = {
            name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")
        }
