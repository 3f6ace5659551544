"""A loss that is not a number stops training: what came of it, and where the last good weights are."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from latentcap.data.errors import UserError


class NotFinite(UserError):
    """The loss is not a number any more: the weights are broken, or were given what is broken."""


class FiniteLoss(Callback):
    """Raises :class:`NotFinite` before such a loss reaches the weights.

    On a GPU the losses are added up and looked at every ``log_every_n_steps`` steps and before each validation and
    checkpoint, for a look at each would make the device wait.
    """

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.batch: Any = None

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        self.batch = batch

    def on_before_backward(self, trainer: L.Trainer, module: L.LightningModule, loss: Tensor) -> None:
        self.total = loss.detach() if self.total is None else self.total + loss.detach()
        every = 1 if loss.device.type == "cpu" else trainer.log_every_n_steps  # type: ignore[attr-defined]
        if trainer.global_step % every == 0:
            self._look(trainer, module)

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._look(trainer, module)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._look(trainer, module)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        loss = trainer.callback_metrics.get("val/loss")
        if trainer.state.fn == "fit" and loss is not None and not torch.isfinite(loss):
            raise self._error(trainer, module, "validation")

    def _look(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.total is None:
            return
        finite, self.total = bool(torch.isfinite(self.total)), None
        if not finite:
            raise self._error(trainer, module, "training")

    def _error(self, trainer: L.Trainer, module: L.LightningModule, what: str) -> NotFinite:
        step = trainer.global_step + (what == "training")  # the one that has begun, or the last one
        where = f"epoch {trainer.current_epoch + 1}, step {step}"
        return NotFinite(f"the {what} loss is not a number any more ({where}): {self._cause(trainer, module)}")

    def _cause(self, trainer: L.Trainer, module: L.LightningModule) -> str:
        examples = _broken(self.batch)
        if examples is not None:
            datasets = trainer.datamodule.datasets["train"].examples  # type: ignore[attr-defined]
            names = ", ".join(f"'{datasets[index].id}'" for index in examples[:3])
            return f"the data hold values that are no numbers, in {names}. Mend or leave out those examples."
        rate = max((float(group["initial_lr"]) for group in trainer.optimizers[0].param_groups), default=0.0)
        lower = f"--model.optim.lr {min(rate / 10, 1e-3):.0e}"
        if str(trainer.precision).startswith("16"):
            return (
                "float16 may be too narrow for it. Give --trainer.precision bf16-mixed or 32-true, or a lower "
                f"learning rate ({lower})."
            )
        return f"the learning rate {rate:g} is most likely too high. Give a lower one ({lower})."


def _broken(batch: Any) -> list[int] | None:
    """Which examples of a batch have images, regions or numbers that are infinite or, but for numbers, NaN."""
    if batch is None:
        return None
    bad = torch.zeros(len(batch), dtype=torch.bool)
    for entry in fields(batch):
        value = getattr(batch, entry.name)
        if isinstance(value, Tensor) and value.is_floating_point():
            bad |= ~value.detach().flatten(1).isfinite().all(1).cpu()
    bad |= batch.context.numbers.isinf().any(1).cpu()  # NaN is a number that is missing
    return batch.index[bad.to(batch.index.device)].tolist() if bad.any() else None
