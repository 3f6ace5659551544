"""Pixels of more than 8 bits to 8: what has no value is left out, and what stands far apart does not set the range."""

from __future__ import annotations

import io
import math
import re
import sys
from typing import Any

import numpy as np
from PIL import Image, ImageFile

LARGEST = 2 * (Image.MAX_IMAGE_PIXELS or 1 << 30)  # pixels of a picture, as Pillow has it
USUAL_BANDS = 4  # of a picture of the most pixels
MOSTLY = (0.5, 99.5)  # per cent: what lies outside may be a hot pixel
FAR = 0.5  # of the range of most pixels: further out than this, an extreme is cut off
ENOUGH = 1_000_000  # values
DEPTHS = (8, 10, 12, 14, 16, 32)  # bits that cameras and sensors fill
_GREATEST = float(np.finfo(np.float32).max)
NO_DATA = (-9999.0, -99999.0, -999.0, -32768.0, -32767.0, -1e20, 1e20, -_GREATEST, _GREATEST)
"""Values that commonly stand for "no data". They count as such where they are apart from all others."""
ALPHA = (1, 2)  # of TIFF's ExtraSamples: transparency, with colours multiplied by it or not
EXTRA_SAMPLES, NO_DATA_TAG = 338, 42113


def is_deep_colour(image: Image.Image) -> bool:
    """Whether a file just opened holds colours of 16 bits, of which Pillow would keep the upper 8."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    return bool(tiles) and re.fullmatch("RGB[AX]?;16[LBN]", _raw_mode(tiles[0])) is not None


def deep_colour(image: Image.Image) -> Image.Image:
    """A file for which :func:`is_deep_colour` holds, as RGB or RGBA of 8 bits, the range of its bits used."""
    assert isinstance(image, ImageFile.ImageFile)
    image.fp.seek(0)  # type: ignore[union-attr]
    encoded = image.fp.read()  # type: ignore[union-attr]
    lower, upper = (_half(encoded, order) for order in _byte_orders(_raw_mode(image.tile[0])))
    values = np.asarray(upper).astype(np.uint16) << 8 | np.asarray(lower)
    bands = len(upper.getbands())
    shown = spread(values[..., :3] if bands > 2 else values[..., :1], no_data=no_data_of(image))
    if bands in (2, 4) and has_alpha(image):
        shown = np.concatenate([np.broadcast_to(shown, (*shown.shape[:2], 3)), np.asarray(upper)[..., -1:]], axis=-1)
    result = Image.fromarray(shown if shown.shape[-1] > 1 else shown[..., 0])
    result.getexif().update({0x0112: upper.getexif().get(0x0112, 1)})
    return result


def has_alpha(image: Image.Image) -> bool:
    """Whether the last band is transparency. In a TIFF a tag says so; else it is a further band, such as infrared."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return image.mode in ("RGBA", "LA", "PA", "RGBa", "La")
    extra = tags.get(EXTRA_SAMPLES, ())
    kinds = extra if isinstance(extra, tuple) else (extra,)
    return image.mode in ("RGBA", "LA", "RGBa", "La") and kinds[:1] in [(kind,) for kind in ALPHA]


def no_data_of(image: Image.Image) -> float | None:
    """The value that a GeoTIFF's own tag, or a PNG's transparency, says to be none."""
    tags: Any = getattr(image, "tag_v2", {})
    stated = tags.get(NO_DATA_TAG, image.info.get("transparency"))
    try:
        return float(stated.strip("\0 ") if isinstance(stated, str) else stated)
    except (TypeError, ValueError):
        return None


def spread(values: np.ndarray, *, no_data: float | None = None) -> np.ndarray:
    """Values of any kind, (H, W) or (H, W, C), to 8 bits; black where there is none.

    Colours of whole numbers keep their brightness: only upper bits that hardly a pixel uses are left out. Anything
    else is stretched from its least to its greatest value, far outliers aside.

    Raises OSError where no pixel has a value.
    """
    known = np.isfinite(values)
    if no_data is not None and math.isfinite(no_data):
        known &= ~np.isclose(values.astype(np.float64), no_data, rtol=1e-6, atol=0)
    if values.ndim == 3:
        known &= np.broadcast_to(known.any(axis=-1, keepdims=True), known.shape)
    known = _without_markers(values, known)
    found = values[known]
    if not found.size:
        raise OSError("not one of its pixels has a value: all are missing (not a number, or the value for no data)")
    colour = values.ndim == 3 and values.shape[-1] > 1 and values.dtype.kind == "u"
    low, high = (0.0, full_range(found)) if colour else outliers_aside(found)
    with np.errstate(invalid="ignore", over="ignore"):
        shown = (values.astype(np.float64) - low) / ((high - low) or 1) * 255
    return np.where(known, np.clip(np.round(np.nan_to_num(shown)), 0, 255), 0).astype(np.uint8)


def outliers_aside(found: np.ndarray) -> tuple[float, float]:
    """The least and the greatest value, but for those that are far from nearly all others."""
    low, high = float(found.min()), float(found.max())
    near_low, near_high = (float(value) for value in np.percentile(_some_of(found), MOSTLY))
    far = FAR * (near_high - near_low)
    if far > 0:
        low = near_low if near_low - low > far else low
        high = near_high if high - near_high > far else high
    return low, high


def full_range(found: np.ndarray, depths: tuple[int, ...] = DEPTHS) -> float:
    """The greatest value of the fewest bits that nearly all of these whole numbers, 0 or more, fit into."""
    most = float(np.percentile(_some_of(found), MOSTLY[1]))
    return next(2.0**bits - 1 for bits in depths if most < 2**bits)


def _without_markers(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """``known`` without the usual values for "no data", where they are the extreme and far from the next."""
    while (found := values[known]).size:
        markers = [
            end for end in (found.min(), found.max()) if np.isclose(float(end), NO_DATA, rtol=1e-6, atol=0).any()
        ]
        for marker in markers:
            here = known & (values == marker)
            rest = values[known & ~here]
            if rest.size:
                low, high = float(rest.min()), float(rest.max())
                if not 2 * low - high <= float(marker) <= 2 * high - low:
                    known = known & ~here
                    break
        else:
            return known
    return known


def _some_of(found: np.ndarray) -> np.ndarray:
    """Enough of many values to tell their range by."""
    return found[:: max(1, found.size // ENOUGH)]


def _raw_mode(tile: Any) -> str:
    args = tile.args
    return str(args if isinstance(args, str) else args[0]) if args else ""


def _byte_orders(raw_mode: str) -> tuple[str, str]:
    """The raw modes that make Pillow keep the lower and the upper byte of each colour."""
    little = raw_mode[-1] == "L" or (raw_mode[-1] == "N" and sys.byteorder == "little")
    lower, upper = ("B", "L") if little else ("L", "B")
    return raw_mode[:-1] + lower, raw_mode[:-1] + upper


def _half(encoded: bytes, raw_mode: str) -> Image.Image:
    image = Image.open(io.BytesIO(encoded))
    assert isinstance(image, ImageFile.ImageFile)
    image.tile = [
        tile._replace(args=raw_mode if isinstance(tile.args, str) else (raw_mode, *(tile.args or ())[1:]))
        for tile in image.tile
    ]
    image.load()
    return image
