"""TIFFs that Pillow does not read, or reads wrongly: many bands, bands apart, colours in floating point."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image

from latentcap.data.pixels import LARGEST, NO_DATA_TAG, USUAL_BANDS, spread

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF
BITS, PLANES = 258, 284  # tags
NEEDED = "needs the extra 'tiff': pip install 'latentcap[tiff]'"


def is_tiff(encoded: bytes) -> bool:
    return encoded.startswith(MAGIC)


def needs_more_than_pillow(image: Image.Image) -> bool:
    """Whether Pillow would read the bands of a TIFF, just opened, as what they are not."""
    tags: Any = getattr(image, "tag_v2", {})
    bits = tags.get(BITS, (8,))
    return tags.get(PLANES) == 2 and len(bits) > 1 and max(bits) > 8


def tiff_size(encoded: bytes) -> tuple[int, int, int]:
    """Width, height and bands of its first picture, which is not decoded. Raises OSError."""
    with _first_page(encoded) as page:
        return page.imagewidth, page.imagelength, max(1, page.size // max(1, page.imagewidth * page.imagelength))


def decode_tiff(encoded: bytes) -> Image.Image:
    """The first picture of a TIFF in 8 bits: its only or first band, or its first three. Raises OSError."""
    with _first_page(encoded) as page:
        if page.imagewidth * page.imagelength > LARGEST:
            raise ValueError(f"more than {LARGEST:,} pixels")
        if page.size > USUAL_BANDS * LARGEST:
            raise ValueError(f"more than {USUAL_BANDS * LARGEST:,} values")
        values = page.asarray()
        axes, stated = page.axes, page.tags.get(NO_DATA_TAG)
    if values.ndim == 3 and axes.endswith("YX"):
        values = np.moveaxis(values, 0, -1)
    if values.ndim not in (2, 3) or not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
        raise OSError(f"a TIFF of a kind that is no picture ({values.dtype}, {values.shape})")
    if values.ndim == 3:
        values = values[..., :3] if values.shape[-1] > 2 else values[..., 0]
    try:
        no_data = None if stated is None else float(str(stated.value).strip("\0 "))
    except ValueError:
        no_data = None
    return Image.fromarray(values if values.dtype == np.uint8 else spread(values, no_data=no_data))


@contextmanager
def _first_page(encoded: bytes) -> Iterator[Any]:
    """Its first picture, as tifffile has it. Raises OSError, also for what is raised inside."""
    try:
        import tifffile
    except ImportError:
        raise OSError(f"a TIFF of many bands or of numbers that Pillow does not read; it {NEEDED}") from None
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it prints each broken tag
    try:
        with tifffile.TiffFile(io.BytesIO(encoded)) as file:
            yield file.pages[0]
    except Exception as error:  # decoders raise many types
        raise OSError(f"a TIFF that cannot be decoded ({type(error).__name__}: {error})") from None
