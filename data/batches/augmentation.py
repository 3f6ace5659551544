"""How training pictures vary, all from one seed."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from latentcap.data.batches.image_config import ImageConfig
from latentcap.data.batches.transforms import fit_image, fit_rgb, in_channels, normalise, to_image, to_tensor
from latentcap.data.errors import UserError

TURNS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How training pictures vary. Every one is harmless to most captions; flips are off, for left and right are words.

    Args:
        scale: the part of the picture's area that a random crop keeps, from and to.
        ratio: how far the crop's proportions may depart from the picture's, from and to.
        horizontal_flip, vertical_flip: probabilities.
        rotate90: turn by a random multiple of 90 degrees, for pictures without an upper side, such as aerial ones.
        color_jitter: brightness, contrast and saturation each change by a factor of 1 +- this.
        turn: degrees by which the picture is turned at most, either way, for pictures that are taken upright but not
            quite, such as chest films.
        shift: how far the picture is moved at most, as a share of its sides; what is uncovered is black, as around
            turned pictures.
    """

    scale: tuple[float, float] = (0.8, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    horizontal_flip: float = 0.0
    vertical_flip: float = 0.0
    rotate90: bool = False
    color_jitter: float = 0.2
    turn: float = 0.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(f"scale={self.scale} must be two numbers above 0 and at most 1, the smaller first")
        if len(self.ratio) != 2 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise UserError(f"ratio={self.ratio} must be two positive numbers, the smaller first")
        for name in ("horizontal_flip", "vertical_flip", "color_jitter", "shift"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name}={getattr(self, name)} must be from 0 to 1")
        if not 0 <= self.turn <= 180:
            raise UserError(f"turn={self.turn} must be from 0 to 180 degrees")

    @property
    def key(self) -> str:
        """Hex digits that other settings do not have."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class VariedImage:
    """A training picture as a tensor: as for evaluating, or a random part of it, turned and recoloured.

    All randomness comes from the seed, so that it is repeatable in any thread, process and order.
    """

    config: ImageConfig
    augmentation: Augmentation | None = None

    def __call__(self, image: Image.Image, seed: int = 0) -> Tensor:
        """An RGB image to a normalised float tensor (in_chans, H, W). With the seed 0 it is left as it is."""
        if seed == 0 or self.augmentation is None:
            return normalise(fit_image(image, self.config), self.config)
        change = self.augmentation
        draw = torch.rand(13, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tolist()
        if change.turn or change.shift:
            image = _moved(image, change, draw[10:])
        image = image.crop(_random_box(image.size, change, draw[:4]))
        if draw[4] < change.horizontal_flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if draw[5] < change.vertical_flip:
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        if change.rotate90 and (turns := int(draw[6] * 4)):
            image = image.transpose(TURNS[turns - 1])
        # The centre crop is for evaluating: the random crop has taken its place.
        pixels = fit_rgb(image, replace(self.config, crop_pct=1.0))
        if change.color_jitter:
            image = to_image(pixels)
            for enhance, number in zip(ENHANCERS, draw[7:10], strict=True):
                image = enhance(image).enhance(1 + change.color_jitter * (2 * number - 1))
            pixels = to_tensor(image)
        return normalise(in_channels(pixels, self.config), self.config)


def _moved(image: Image.Image, change: Augmentation, draw: list[float]) -> Image.Image:
    """The image turned and shifted by three numbers from 0 to 1, of which 0.5 leaves it as it is."""
    turn, right, down = (2 * number - 1 for number in draw)
    offset = (round(right * change.shift * image.width), round(down * change.shift * image.height))
    return image.rotate(turn * change.turn, Image.Resampling.BILINEAR, translate=offset)


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
