"""The folded copies of a model's CNN and decoder, kept as long as the weights stay what they are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import torch
from torch import nn

from latentcap.inference.engine import Network, inference_backbone
from latentcap.inference.folded_decoder import FoldedDecoder, fold_decoder
from latentcap.model.caption_model import CaptionModel
from latentcap.model.decoder import Decoder


class FoldedModel:
    """What captions in place of a model, for it is faster; made when first asked for. Threads may share one."""

    def __init__(self, model: CaptionModel) -> None:
        self.model = model
        self._folded: dict[str, tuple[Hashable, Any]] = {}
        self._lock = threading.Lock()

    def backbone(self, dtype: torch.dtype, engine: str | None = None) -> Network:
        """Images (B, V, C, H, W) to regions (B, V * cells, C) by an engine, the fastest that is installed."""
        make = partial(inference_backbone, self.model.backbone, dtype, engine=engine)
        return self._current("backbone", self.model.backbone, (dtype, engine), make)

    def decoder(self, dtype: torch.dtype) -> Decoder | FoldedDecoder:
        make = partial(fold_decoder, self.model.decoder, dtype)
        return self._current("decoder", self.model.decoder, dtype, make)

    def _current(self, name: str, network: nn.Module, settings: Hashable, make: Callable[[], Any]) -> Any:
        """The folded copy, made again where weights, batch statistics or settings have changed since."""
        state = _weights_as_they_are(network), settings
        with self._lock:
            if name not in self._folded or self._folded[name][0] != state:
                self._folded[name] = state, make()
            return self._folded[name][1]


def _weights_as_they_are(module: nn.Module) -> Hashable:
    """Differs from an earlier value once a weight or statistic was written to. Those made for inference never are."""
    tensors = (*module.parameters(), *module.buffers())
    return tuple((value.data_ptr(), 0 if value.is_inference() else value._version) for value in tensors)
