"""What a backbone expects of its images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from PIL import Image

from latentcap.data.errors import UserError, did_you_mean

CropMode = Literal["resize", "crop", "pad"]

CROP_MODES: tuple[CropMode, ...] = ("resize", "crop", "pad")
INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
GREY = (0.299, 0.587, 0.114)  # how much red, green and blue weigh in a grey value (ITU-R BT.601, as Pillow's "L")


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
