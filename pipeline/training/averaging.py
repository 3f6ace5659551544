"""A moving average of the weights, which validation and the model folder use."""

from __future__ import annotations

from itertools import chain
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from latentcap.training.trainer_settings import check_range


class EMA(Callback):
    """Exponential moving average of the weights, which validation and the model folder use.

    The average warms up, d_n = min(decay, (1 + n) / (10 + n)), so that it never drags the random initial weights along:
    Lightning's ``EMAWeightAveraging`` does, for hundreds of steps of a short run. Weights that never learn have none.

    A checkpoint's ``state_dict`` has the averages; ``current_model_state`` what they are of.

    Args:
        decay: how much of the average stays at each step, once warm; 0 turns the average off.
    """

    def __init__(self, decay: float = 0.998) -> None:
        check_range("ema.decay", decay, 0, 1)
        self.decay = decay
        self.averages: dict[str, Tensor] = {}
        self.updates = 0
        self._step = 0  # of the last update

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Keep the averages where the weights will be: the module is on the CPU still."""
        if stage == "fit":
            module.configure_model()  # which says what learns
            device = trainer.strategy.root_device
            learning = (named for named in module.named_parameters() if named[1].requires_grad)
            # Thresholds of labels are chosen anew at each validation, not learned.
            statistics = (named for named in module.named_buffers() if not named[0].endswith("labels.thresholds"))
            changing = chain(learning, statistics)
            self.averages = {name: value.detach().clone().to(device) for name, value in changing}

    @torch.no_grad()
    def update(self, module: L.LightningModule) -> None:
        """Take the weights as they are now into the averages."""
        values = self._current(module)
        floats = [name for name, average in self.averages.items() if average.is_floating_point()]
        if self.updates:
            keep = min(self.decay, (1 + self.updates) / (10 + self.updates))
            torch._foreach_lerp_([self.averages[name] for name in floats], [values[name] for name in floats], 1 - keep)
        for name in self.averages.keys() - (floats if self.updates else ()):
            self.averages[name].copy_(values[name])
        self.updates += 1

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step > self._step:
            self.update(module)
            self._step = trainer.global_step

    def on_validation_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._exchange(module)

    def on_validation_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._exchange(module)

    @torch.no_grad()
    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        for name, value in self._current(module).items():
            value.copy_(self.averages[name])

    @torch.no_grad()
    def _exchange(self, module: L.LightningModule) -> None:
        for name, value in self._current(module).items():
            held = value.clone()
            value.copy_(self.averages[name])
            self.averages[name].copy_(held)

    def _current(self, module: L.LightningModule) -> dict[str, Tensor]:
        """What the averages are of."""
        values = chain(module.named_parameters(), module.named_buffers())
        return {name: value for name, value in values if name in self.averages}

    # Checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {"latest_update_step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._step = state["latest_update_step"]

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.averages:
            current = checkpoint["state_dict"]
            checkpoint["current_model_state"] = {
                name: value for name, value in current.items() if name in self.averages
            }
            checkpoint["state_dict"] = {name: self.averages.get(name, value) for name, value in current.items()}
            checkpoint["averaging_state"] = {"n_averaged": torch.tensor(self.updates)}

    def on_load_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """The module has the weights of ``state_dict`` already, which are the averages."""
        if self.averages and "current_model_state" in checkpoint:
            for name, value in checkpoint["state_dict"].items():
                if name in self.averages:
                    self.averages[name].copy_(value)
            self.updates = int(checkpoint["averaging_state"]["n_averaged"])
            module.load_state_dict(checkpoint["current_model_state"], strict=False)
