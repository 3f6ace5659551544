"""Regions of a frozen backbone, computed once and kept: training, fine-tuning and evaluation share them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from latentcap.captioner import Captioner
from latentcap.data.batches.frozen_layers import FrozenLayers
from latentcap.data.batches.image_config import ImageConfig
from latentcap.data.batches.sources import CachedRegions
from latentcap.data.example import Example
from latentcap.inference.engine import Network, inference_backbone, inference_frozen_layers
from latentcap.model.backbone import Backbone
from latentcap.model.split_backbone import SplitBackbone
from latentcap.model_tensors import in_half
from latentcap.progress import Progress


def fingerprint(backbone: Backbone, image: ImageConfig, dtype: torch.dtype, *, stem: nn.Module | None = None) -> str:
    """What cached regions depend on: the architecture, every weight, the transform and the precision.

    With ``stem``, the backbone's frozen layers: what the cells that these give depend on.

    Weights count as they are in half precision, in which model folders store them: fine-tuning reuses the regions that
    the first training computed.
    """
    digest = hashlib.sha256()
    for name, value in (backbone.net if stem is None else stem).state_dict().items():
        digest.update(name.encode())
        value = in_half(value.detach().cpu())
        value = value + 0.0 if value.is_floating_point() else value  # -0.0 and 0.0 are the same weight
        digest.update(value.contiguous().numpy().tobytes())
    settings = {"name": backbone.config.name, "stage": backbone.config.stage, "image": image.to_dict()}
    return json.dumps({**settings, "dtype": str(dtype), "weights": digest.hexdigest()}, sort_keys=True)


def frozen_layers(
    backbone: Backbone,
    image: ImageConfig,
    *,
    split: SplitBackbone | None,
    device: torch.device,
    dtype: torch.dtype,
    engine: str | None = None,
) -> FrozenLayers:
    """The whole backbone, or of its ``split`` the one that is not trained, as they run fastest."""

    @cache
    def network() -> Network:
        make = inference_backbone if split is None else inference_frozen_layers
        return make(backbone, dtype, engine=engine)

    def encode(images: Tensor) -> Tensor:
        images = images.to(device)
        if split is None:
            return network()(images.unsqueeze(1)).cpu()
        return network()(images.contiguous(memory_format=torch.channels_last)).flatten(2).mT.cpu()

    height, width, channels = (*backbone.grid, backbone.num_channels) if split is None else split.shape
    return FrozenLayers(
        encode,
        fingerprint(backbone, image, dtype, stem=None if split is None else split.stem),
        shape=(height * width, channels),
        name="regions" if split is None else "cells",
        batch_size=8 if device.type == "cpu" else 64,
    )


def cached_regions(captioner: Captioner, examples: Sequence[Example], folder: str | Path) -> CachedRegions:
    """The plain regions of all images of ``examples``, from the cache in ``folder`` or computed into it now.

    They are those that training with a frozen backbone computed, where that used the same cache. Images that cannot be
    read are not in it: ``CachedRegions.usable`` says of which examples.
    """
    model, device, dtype = captioner.model, captioner.device, captioner.dtype
    layers = frozen_layers(
        model.backbone.built, captioner.image, split=None, device=device, dtype=dtype, engine=captioner.engine
    )
    with Progress("regions of images", unit="img") as progress:
        return layers.cached(
            examples, Path(folder).expanduser(), image=captioner.image, slots=captioner.slots, progress=progress.update
        )
