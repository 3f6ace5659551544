"""Nested training: the first k heads of each kind learn to work alone, so one model runs with any number of heads."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from latentcap.data.errors import UserError
from latentcap.training.module import CaptionModule


class RandomHeadBudget(Callback):
    """Draws for every training example how many of the first heads of each kind are on, through the fusion's gate.

    After Matryoshka representations (arXiv 2205.13147) and slimmable networks (arXiv 1812.08928): each head learns to
    add to those before it. Numbers of visual and text heads are drawn independently, each equally likely from one up.
    The gates are an argument of the decoder while it trains, never a state of the model: validation, averaged weights
    and checkpoints see all heads on. Draws depend on the seed, the epoch, the batch and the process alone, so that a
    resumed run draws what the uninterrupted one would have.

    Use it in a recipe, or with ``--trainer.callbacks+=latentcap.training.nested_heads.RandomHeadBudget``.

    Args:
        full: share of the examples that train with all heads whatever is drawn, so that the largest budget, which is
            one of many, loses little.
        seed: of the draws.
    """

    def __init__(self, full: float = 0.25, seed: int = 0) -> None:
        if not 0 <= full <= 1:
            raise UserError(f"RandomHeadBudget: full is {full}: it is a share of the examples, 0 to 1.")
        self.full, self.seed = full, seed
        self._gate: Tensor | None = None
        self._hook: Any = None

    def draw(self, heads: tuple[int, int], size: int, *, key: tuple[int, ...]) -> Tensor:
        """Gates of ``size`` examples for (visual, text) heads, (B, 1, 1, H) of zeros and ones; the same for a key."""
        random = np.random.default_rng((self.seed, *key))
        whole = random.random(size) < self.full
        kinds = []
        for count in heads:
            budget = random.integers(1, max(count, 1), size, endpoint=True)
            kinds.append(np.arange(count) < np.where(whole, count, budget)[:, None])
        return torch.from_numpy(np.concatenate(kinds, 1).astype(np.float32))[:, None, None]

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        assert isinstance(module, CaptionModule)
        if module.config.fusion.routed_top_k:
            raise UserError("RandomHeadBudget and routed heads exclude each other: set fusion.routed_top_k to 0.")

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, CaptionModule)
        assert module.model is not None
        self._hook = module.model.decoder.register_forward_pre_hook(self._switch, with_kwargs=True)

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        assert isinstance(module, CaptionModule)
        fusion = module.config.fusion
        key = (trainer.current_epoch, batch_idx, trainer.global_rank)
        gate = self.draw((fusion.visual_heads, fusion.text_heads), len(batch), key=key)
        self._gate = gate.to(module.device)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._remove()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        self._remove()

    def _switch(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before the decoder runs: the drawn gates, times the model's own, where it trains and nobody gave others."""
        if not decoder.training or kwargs.get("gate") is not None or self._gate is None:
            return None
        return args, {**kwargs, "gate": self._gate * decoder.fusion.head_gate}  # type: ignore[operator, union-attr]

    def _remove(self) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._hook, self._gate = None, None
