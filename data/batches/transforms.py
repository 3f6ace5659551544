"""Pictures to tensors: decode no more pixels than needed, resize on bytes, normalise last.

Everything here is Pillow and torch, so that a program that captions starts without importing torchvision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from latentcap.data.batches.image_config import INTERPOLATIONS, ImageConfig
from latentcap.data.image import ImageRef, decode_image

VECTORISED = ("bilinear", "bicubic")  # by torch, on bytes: as Pillow but for roundings, several times as fast
DRAFT_MARGIN = 2  # a JPEG is decoded no smaller than this many times the size it is resized to


def decode_for(encoded: bytes, config: ImageConfig, *, name: str = "") -> Image.Image:
    """Bytes to an RGB image, upright. A JPEG much larger than ``config`` needs is decoded at 1/2, 1/4 or 1/8 size.

    Raises:
        OSError: for anything that is no image.
    """
    return decode_image(encoded, name=name, side=math.ceil(DRAFT_MARGIN * max(config.size)))


def load_image(ref: ImageRef, config: ImageConfig) -> Image.Image:
    """:func:`decode_for` of what ``ref`` refers to. Raises OSError for anything unreadable."""
    return decode_for(ref.read_bytes(), config, name=str(ref))


def eval_transform(config: ImageConfig) -> Callable[[Image.Image], Tensor]:
    """A function from an RGB image to a normalised float tensor (in_chans, H, W)."""
    return partial(_evaluate, config=config)


def fit_image(image: Image.Image, config: ImageConfig) -> Tensor:
    """An RGB image at the size and in the channels that are wanted: bytes (in_chans, H, W), for :func:`normalise`."""
    return in_channels(fit_rgb(image, config), config)


def normalise(pixels: Tensor, config: ImageConfig) -> Tensor:
    """Bytes (..., in_chans, H, W) to float32: (value / 255 - mean) / std."""
    mean, std = (torch.tensor(values, device=pixels.device).view(-1, 1, 1) for values in (config.mean, config.std))
    return pixels.contiguous().float().mul_(1 / 255).sub_(mean).div_(std)


def _evaluate(image: Image.Image, *, config: ImageConfig) -> Tensor:
    return normalise(fit_image(image, config), config)


def fit_rgb(image: Image.Image, config: ImageConfig) -> Tensor:
    """The image at ``config.size`` by ``config.crop_mode``: bytes (3, H, W)."""
    height, width = config.size
    if config.crop_mode == "resize":
        return _resize(image, (width, height), config.interpolation)
    if config.crop_mode == "crop":
        shape = math.floor(width / config.crop_pct), math.floor(height / config.crop_pct)
        pixels = _resize(image, _keep_ratio(image.size, shape, cover=True), config.interpolation)
        upper, left = round((pixels.shape[1] - height) / 2), round((pixels.shape[2] - width) / 2)
        return pixels[:, upper : upper + height, left : left + width]
    pixels = _resize(image, _keep_ratio(image.size, (width, height), cover=False), config.interpolation)
    upper, left = (height - pixels.shape[1]) // 2, (width - pixels.shape[2]) // 2
    colour = torch.tensor([round(255 * x) for x in config.mean], dtype=torch.uint8)
    ground = colour.view(-1, 1, 1).repeat(3 // len(colour), height, width)
    ground[:, upper : upper + pixels.shape[1], left : left + pixels.shape[2]] = pixels
    return ground


def _resize(image: Image.Image, size: tuple[int, int], interpolation: str) -> Tensor:
    """RGB at ``size`` (W, H): bytes (3, H, W). By torch's vectorised loops where it has them, else by Pillow's."""
    if interpolation not in VECTORISED or image.size == size:
        return to_tensor(image.resize(size, INTERPOLATIONS[interpolation]))
    return interpolate(to_tensor(image).unsqueeze(0), size=size[::-1], mode=interpolation, antialias=True)[0]


def _keep_ratio(size: tuple[int, int], target: tuple[int, int], *, cover: bool) -> tuple[int, int]:
    """The size (W, H) of ``size``'s proportions that just covers ``target``, or just fits into it."""
    by_width = (target[0] * size[1] >= target[1] * size[0]) == cover
    if by_width:
        return target[0], max(1, target[0] * size[1] // size[0])
    return max(1, target[1] * size[0] // size[1]), target[1]


def in_channels(pixels: Tensor, config: ImageConfig) -> Tensor:
    """RGB bytes (3, H, W) as they are, or as grey values (1, H, W)."""
    if config.in_chans == 3:
        return pixels
    return torch.from_numpy(np.array(to_image(pixels).convert("L"))).unsqueeze(0)


def to_tensor(image: Image.Image) -> Tensor:
    """RGB as bytes (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def to_image(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())
