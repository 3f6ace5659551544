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
from latentcap.data.batches.dataset import CachedRegions
from latentcap.data.batches.transforms import ImageConfig, decode_for, eval_transform
from latentcap.data.cache.extract import extract
from latentcap.data.cache.store import FeatureCache
from latentcap.data.example import Example
from latentcap.inference.engine import inference_backbone
from latentcap.model.backbone import Backbone
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


def cached_regions(captioner: Captioner, examples: Sequence[Example], folder: str | Path) -> CachedRegions:
    """The plain regions of all images of ``examples``, from the cache in ``folder`` or computed into it now.

    They are those that training with a frozen backbone computed, where that used the same cache. Images that cannot be
    read are not in it: ``CachedRegions.usable`` says of which examples.
    """
    backbone, device, dtype = captioner.model.backbone, captioner.device, captioner.dtype
    shape = (backbone.grid[0] * backbone.grid[1], backbone.num_channels)
    store = FeatureCache(Path(folder).expanduser(), key=fingerprint(backbone, captioner.image, dtype), shape=shape)
    fast = cache(lambda: inference_backbone(backbone, dtype, engine=captioner.engine))

    def encode(images: Tensor) -> Tensor:
        return fast()(images.to(device).unsqueeze(1)).cpu()

    with Progress("regions of images", unit="img") as progress:
        extract(
            [ref for example in examples for ref in example.images],
            cache=store,
            encode=encode,
            transform_for=lambda variant: eval_transform(captioner.image),
            decode=lambda encoded: decode_for(encoded, captioner.image),
            batch_size=8 if device.type == "cpu" else 64,
            progress=progress.update,
        )
    store.refresh()
    return CachedRegions(store, examples)
