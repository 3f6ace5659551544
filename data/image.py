"""Images: where their bytes are, and from bytes to 8-bit RGB, upright."""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from latentcap.data.dicom import decode_dicom, dicom_size, frame_place, frames_of, is_dicom
from latentcap.data.jxl import jxl_size
from latentcap.data.kinds import START, is_raw, plugin_of, what_it_is
from latentcap.data.pixels import deep_colour, has_alpha, is_deep_colour, no_data_of, spread
from latentcap.data.raw import decode_raw
from latentcap.data.remote import is_remote, open_binary, read_part
from latentcap.data.tiff import decode_tiff, is_tiff, needs_more_than_pillow, tiff_size
from latentcap.data.zips import read_zipped

GREY_OF_MANY_BITS = ("I", "F")  # how the names of such modes begin


@dataclass(slots=True, unsafe_hash=True)  # frozen, it would take three times as long to make
class ImageRef:
    """Where the bytes of one image are: a file, here or behind an address, a place in an archive, or memory. Never
    changed.

    In a tar it is a byte range. In a zip, ``offset`` is that of the file's header, ``size`` what it takes in the
    archive and ``unpacked`` what that unpacks to. So archives are random access: nothing is unpacked. ``frame`` is
    which one of a DICOM film is meant: ``first``, ``middle`` or a number from 1; other images have one, whatever it
    says.
    """

    path: str
    offset: int | None = None
    size: int | None = None
    name: str = ""
    unpacked: int | None = None
    frame: str = ""
    data: bytes | None = field(default=None, repr=False)

    @property
    def place(self) -> tuple[Any, ...]:
        """All but ``data``: ``ImageRef(*place)`` is the same image."""
        place = (self.path, self.offset, self.size, self.name, self.unpacked)
        return (*place, self.frame) if self.frame else place

    @property
    def in_tar(self) -> bool:
        """Whether it is in a tar on this machine."""
        return self.offset is not None and self.unpacked is None and not is_remote(self.path)

    def __str__(self) -> str:
        return f"{self.path}:{self.name}" if self.name else self.path

    def read_bytes(self) -> bytes:
        """The encoded image; of a film the frame, as PNG. Raises OSError where it cannot be read."""
        encoded = self.encoded()
        if not self.frame or not is_dicom(encoded) or (frames := frames_of(encoded)) == 1:
            return encoded
        content = io.BytesIO()
        picture = decode_dicom(encoded, frame=frame_place(self.frame, frames), name=os.path.basename(str(self)))
        picture.save(content, "PNG", compress_level=1)
        return content.getvalue()

    def encoded(self) -> bytes:
        """The bytes as they are in the file. Raises OSError where it cannot be read."""
        return self._read()

    def start(self, size: int = START) -> bytes:
        """Its first bytes; none where it cannot be read."""
        try:
            return self._read(size)
        except OSError:
            return b""

    def _read(self, most: int | None = None) -> bytes:
        if self.data is not None:
            return self.data[:most]
        limit = min((given for given in (most, self.size) if given is not None), default=None)
        if self.unpacked is None and is_remote(self.path):
            return read_part(self.path, self.offset or 0, limit)
        with open_binary(self.path) as file:
            if self.unpacked is not None:
                place = {"offset": self.offset or 0, "size": self.size or 0, "unpacked": self.unpacked}
                return read_zipped(file, **place, most=most)
            file.seek(self.offset or 0)
            return file.read(-1 if limit is None else limit)

    def open(self) -> Image.Image:
        """The decoded image: RGB, turned by its EXIF orientation. Raises OSError for anything unreadable."""
        return decode_image(self.read_bytes(), name=str(self))


def decode_image(encoded: bytes, *, name: str = "", side: int | None = None) -> Image.Image:
    """Bytes of any kind, DICOM included, to an RGB image turned by its EXIF orientation.

    ``name`` is that of the file, for messages. A JPEG much larger than ``side`` pixels is decoded at a half, a quarter
    or an eighth of its size. Raises OSError, which says what it is instead, for what is no image.
    """
    if is_dicom(encoded):
        return decode_dicom(encoded, name=os.path.basename(name)).convert("RGB")
    if is_raw(name):
        return to_rgb(decode_raw(encoded))
    with _told(encoded, name):
        try:
            with _open(encoded) as image:
                if side is not None:
                    image.draft(None, (side, side))  # the mode stays; formats other than JPEG ignore it
                return decode_tiff(encoded).convert("RGB") if needs_more_than_pillow(image) else to_rgb(image)
        except UnidentifiedImageError:
            if is_tiff(encoded):
                return decode_tiff(encoded).convert("RGB")
            raise


def size_of(encoded: bytes) -> tuple[int, int, int]:
    """Width, height and bands of an image, before any pixel is decoded. Raises OSError for what is no image."""
    if is_dicom(encoded):
        return dicom_size(encoded)
    if plugin_of(encoded) == "pillow_jxl":
        return *jxl_size(encoded), 3
    with _told(encoded):
        try:
            with _open(encoded) as image:
                return *image.size, len(image.getbands())
        except UnidentifiedImageError:
            if is_tiff(encoded):
                return tiff_size(encoded)
            raise


@contextmanager
def _told(encoded: bytes, name: str = "") -> Iterator[None]:
    """What is raised inside as OSError, which says what the file is."""
    try:
        yield
    except UnidentifiedImageError:
        raise OSError(what_it_is(encoded, name)) from None
    except OSError:
        raise
    except Exception as error:  # Pillow's plugins raise many types for broken files
        said = f"cannot decode image: {(str(error).splitlines() or [''])[0]}"
        raise OSError(what_it_is(encoded, name) if plugin_of(encoded) else said) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Orientation applied; more than 8 bits scaled, not clipped; transparency laid on white; any mode to RGB.

    Raises OSError where it cannot be decoded, or no pixel has a value.
    """
    no_data, transparent = no_data_of(image), has_alpha(image)
    if is_deep_colour(image):
        image = deep_colour(image)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(GREY_OF_MANY_BITS):
        return Image.fromarray(spread(np.asarray(image), no_data=no_data)).convert("RGB")
    if image.mode in ("RGBA", "LA", "RGBa", "La") and not transparent:
        bands = image.split()  # the last is infrared or the like
        image = Image.merge("RGB", bands[:3]) if len(bands) > 3 else bands[0]
    elif transparent or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _open(encoded: bytes) -> Image.Image:
    """Pillow's image, opened with a plugin where it needs one that is installed. Raises UnidentifiedImageError."""
    try:
        return Image.open(io.BytesIO(encoded))
    except UnidentifiedImageError:
        plugin = plugin_of(encoded)
        if plugin is None:
            raise
        try:
            module = importlib.import_module(plugin)
        except ImportError:
            raise UnidentifiedImageError from None
        if plugin == "pillow_heif":
            module.register_heif_opener()
        return Image.open(io.BytesIO(encoded))
