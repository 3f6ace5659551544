"""Pictures to tensors: decode no more pixels than needed, resize on bytes, normalise last.

Everything here is Pillow and torch, so that a program that captions starts without importing torchvision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor
from torch.nn.functional import interpolate

from latentcap.data.errors import UserError, did_you_mean
from latentcap.data.image import ImageRef, decode_image

CropMode = Literal["resize", "crop", "pad"]

CROP_MODES: tuple[CropMode, ...] = ("resize", "crop", "pad")
INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
VECTORISED = ("bilinear", "bicubic")  # by torch, on bytes: as Pillow but for roundings, several times as fast
TURNS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
GREY = (0.299, 0.587, 0.114)  # how much red, green and blue weigh in a grey value (ITU-R BT.601, as Pillow's "L")
DRAFT_MARGIN = 2  # a JPEG is decoded no smaller than this many times the size it is resized to


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What a backbone expects of its images.

    Args:
        size: height and width in pixels.
        mean, std: of each channel, in units of 0 to 1; one value each makes the images grey.
        interpolation: ``nearest``, ``bilinear``, ``bicubic`` or ``lanczos``; all but the first with antialiasing.
        crop_mode: ``"resize"`` squashes the whole picture to ``size``, for a caption is about the whole picture;
            ``"crop"`` keeps proportions and the centre, as timm evaluates; ``"pad"`` keeps proportions and the whole
            picture, on a ground of the mean colour.
        crop_pct: for ``"crop"``: how much of the shorter side the centre keeps, 0 to 1.
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bicubic"
    crop_mode: CropMode = "resize"
    crop_pct: float = 1.0

    def __post_init__(self) -> None:
        for name, valid in (("interpolation", INTERPOLATIONS), ("crop_mode", CROP_MODES)):
            value = getattr(self, name)
            if value not in valid:
                raise UserError(f"{name}='{value}' must be one of {', '.join(valid)}.{did_you_mean(value, valid)}")
        if len(self.size) != 2 or min(self.size) < 1:
            raise UserError(f"size={self.size} must be height and width in pixels, such as (224, 224)")
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
            raise UserError(f"mean={self.mean} and std={self.std} must have 3 values each, or 1 each for grey images")
        if min(self.std) <= 0:
            raise UserError(f"std={self.std} must be positive")
        if not 0 < self.crop_pct <= 1:
            raise UserError(f"crop_pct={self.crop_pct} must be above 0 and at most 1")

    @property
    def in_chans(self) -> int:
        """3 for colour, 1 for grey."""
        return len(self.mean)

    @classmethod
    def from_timm(
        cls,
        data_config: Mapping[str, Any],
        *,
        size: tuple[int, int] | None = None,
        crop_mode: CropMode = "resize",
        in_chans: int = 3,
    ) -> ImageConfig:
        """From what ``timm.data.resolve_model_data_config(model)`` returns.

        Args:
            data_config: timm's ``input_size``, ``mean``, ``std``, ``interpolation`` and ``crop_pct``.
            size: height and width in place of timm's.
            crop_mode: the geometry; timm's own choice is for classifying the centre and is not taken over.
            in_chans: 1 for a backbone of grey images: colour statistics become those of grey.
        """
        mean, std = tuple(data_config["mean"]), tuple(data_config["std"])
        if in_chans == 1 and len(mean) == 3:
            mean, std = ((math.fsum(w * x for w, x in zip(GREY, values, strict=True)),) for values in (mean, std))
        interpolation = data_config["interpolation"]
        return cls(
            size=size or tuple(data_config["input_size"][-2:]),
            mean=mean,
            std=std,
            interpolation=interpolation if interpolation in INTERPOLATIONS else "bicubic",  # timm also has "random"
            crop_mode=crop_mode,
            crop_pct=min(float(data_config.get("crop_pct", 1.0)), 1.0),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and YAML; :meth:`from_dict` reads them back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ImageConfig:
        """The inverse of :meth:`to_dict`. Raises UserError for unknown names and impossible values."""
        names = [field.name for field in fields(cls)]
        for name in values:
            if name not in names:
                raise UserError(
                    f"unknown image setting '{name}'; known are {', '.join(names)}.{did_you_mean(name, names)}"
                )
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**settings)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How training pictures vary. Every one is harmless to most captions; flips are off, for left and right are words.

    Args:
        scale: the part of the picture's area that a random crop keeps, from and to.
        ratio: how far the crop's proportions may depart from the picture's, from and to.
        horizontal_flip, vertical_flip: probabilities.
        rotate90: turn by a random multiple of 90 degrees, for pictures without an upper side, such as aerial ones.
        color_jitter: brightness, contrast and saturation each change by a factor of 1 +- this.
    """

    scale: tuple[float, float] = (0.8, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    horizontal_flip: float = 0.0
    vertical_flip: float = 0.0
    rotate90: bool = False
    color_jitter: float = 0.2

    def __post_init__(self) -> None:
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(f"scale={self.scale} must be two numbers above 0 and at most 1, the smaller first")
        if len(self.ratio) != 2 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise UserError(f"ratio={self.ratio} must be two positive numbers, the smaller first")
        for name in ("horizontal_flip", "vertical_flip", "color_jitter"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name}={getattr(self, name)} must be from 0 to 1")


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


def train_transform(config: ImageConfig, *, augmentation: Augmentation) -> TrainTransform:
    """A function like :func:`eval_transform`'s whose picture varies at random; see :class:`TrainTransform`."""
    return TrainTransform(config, augmentation)


@dataclass(frozen=True, slots=True)
class TrainTransform:
    """A random part of the picture, turned and recoloured, and then the geometry of :func:`eval_transform`.

    All randomness is one draw, from ``generator`` or else from torch's global state, so that it is repeatable in
    threads too.
    """

    config: ImageConfig
    augmentation: Augmentation

    def __call__(self, image: Image.Image, generator: torch.Generator | None = None) -> Tensor:
        """An RGB image to a normalised float tensor (in_chans, H, W)."""
        change = self.augmentation
        draw = torch.rand(10, generator=generator, dtype=torch.float64).tolist()
        image = image.crop(_random_box(image.size, change, draw[:4]))
        if draw[4] < change.horizontal_flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if draw[5] < change.vertical_flip:
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        if change.rotate90 and (turns := int(draw[6] * 4)):
            image = image.transpose(TURNS[turns - 1])
        # The centre crop is for evaluating: the random crop has taken its place.
        pixels = _fit(image, replace(self.config, crop_pct=1.0))
        if change.color_jitter:
            image = _picture(pixels)
            for enhance, number in zip(ENHANCERS, draw[7:], strict=True):
                image = enhance(image).enhance(1 + change.color_jitter * (2 * number - 1))
            pixels = _pixels(image)
        return normalise(_in_channels(pixels, self.config), self.config)


def _random_box(size: tuple[int, int], change: Augmentation, draw: list[float]) -> tuple[int, int, int, int]:
    """Left, upper, right and lower edge of a crop of an image of ``size`` (W, H), by four numbers from 0 to 1."""
    low, high = change.scale
    area = low + draw[0] * (high - low)
    low, high = map(math.log, change.ratio)
    stretch = math.exp(low + draw[1] * (high - low))
    # A stretch that leaves the picture would lose area: the part may be as long as the picture, but no longer.
    stretch = min(max(stretch, area), 1 / area)
    width = max(1, round(size[0] * math.sqrt(area * stretch)))
    height = max(1, round(size[1] * math.sqrt(area / stretch)))
    left, upper = round(draw[2] * (size[0] - width)), round(draw[3] * (size[1] - height))
    return left, upper, left + width, upper + height


def fit_image(image: Image.Image, config: ImageConfig) -> Tensor:
    """An RGB image at the size and in the channels that are wanted: bytes (in_chans, H, W), for :func:`normalise`."""
    return _in_channels(_fit(image, config), config)


def normalise(pixels: Tensor, config: ImageConfig) -> Tensor:
    """Bytes (..., in_chans, H, W) to float32: (value / 255 - mean) / std."""
    mean, std = (torch.tensor(values, device=pixels.device).view(-1, 1, 1) for values in (config.mean, config.std))
    return pixels.contiguous().float().mul_(1 / 255).sub_(mean).div_(std)


def _evaluate(image: Image.Image, *, config: ImageConfig) -> Tensor:
    return normalise(fit_image(image, config), config)


def _fit(image: Image.Image, config: ImageConfig) -> Tensor:
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
        return _pixels(image.resize(size, INTERPOLATIONS[interpolation]))
    return interpolate(_pixels(image).unsqueeze(0), size=size[::-1], mode=interpolation, antialias=True)[0]


def _keep_ratio(size: tuple[int, int], target: tuple[int, int], *, cover: bool) -> tuple[int, int]:
    """The size (W, H) of ``size``'s proportions that just covers ``target``, or just fits into it."""
    by_width = (target[0] * size[1] >= target[1] * size[0]) == cover
    if by_width:
        return target[0], max(1, target[0] * size[1] // size[0])
    return max(1, target[1] * size[0] // size[1]), target[1]


def _in_channels(pixels: Tensor, config: ImageConfig) -> Tensor:
    """RGB bytes (3, H, W) as they are, or as grey values (1, H, W)."""
    if config.in_chans == 3:
        return pixels
    return torch.from_numpy(np.array(_picture(pixels).convert("L"))).unsqueeze(0)


def _pixels(image: Image.Image) -> Tensor:
    """RGB as bytes (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _picture(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())
