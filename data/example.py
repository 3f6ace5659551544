"""What every reader yields and everything else consumes: an :class:`Example` with references to its images."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import Image, ImageOps

from latentcap.data.dicom import decode_dicom, is_dicom


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Where the bytes of one image are: a file, a byte range of a tar archive, or memory.

    Holding the byte range makes a tar archive random access: nothing is unpacked.
    """

    path: str
    offset: int | None = None
    size: int | None = None
    name: str = ""
    data: bytes | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.path}:{self.name}" if self.name else self.path

    def read_bytes(self) -> bytes:
        """The encoded image. Raises OSError where the file cannot be read."""
        if self.data is not None:
            return self.data
        with open(self.path, "rb") as file:
            if self.offset is None:
                return file.read()
            file.seek(self.offset)
            return file.read(self.size)

    def open(self) -> Image.Image:
        """The decoded image: RGB, turned by its EXIF orientation. Raises OSError for anything unreadable."""
        return decode_image(self.read_bytes())


@dataclass(frozen=True, slots=True)
class Example:
    """One item: its image views, what is known besides them, and what people wrote about it.

    ``captions`` are the references that scores are computed against. ``paraphrases`` are further texts that may be
    trained on and are never references. A context field that is absent or None is missing, which the model knows.
    ``labels`` are classes that a label head may learn and balanced sampling may count (modality, plane, normal); never
    inputs. ``views`` names the images, one each (``frontal``, ``lateral``), or is empty where nobody knows. ``group``
    is the patient or case: the examples of one belong to one split.
    """

    id: str
    images: tuple[ImageRef, ...]
    captions: tuple[str, ...] = ()
    paraphrases: tuple[str, ...] = ()
    context: str | None = None
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    categories: Mapping[str, str | None] = field(default_factory=dict)
    split: str = "train"
    labels: Mapping[str, str] = field(default_factory=dict)
    views: tuple[str, ...] = ()
    group: str | None = None


def decode_image(encoded: bytes) -> Image.Image:
    """Bytes, DICOM included, to an RGB image turned by its EXIF orientation. Raises OSError for what is no image."""
    if is_dicom(encoded):
        return decode_dicom(encoded).convert("RGB")
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return to_rgb(image)
    except OSError:
        raise
    except Exception as error:  # Pillow's plugins raise many types for broken files
        raise OSError(f"cannot decode image: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Orientation applied; 16-bit scaled, not clipped; transparency laid on white; any mode to RGB."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        low, high = image.getextrema()
        span = (high - low) or 1  # type: ignore[operator]
        image = image.point(lambda value: value * (255 / span) - low * 255 / span).convert("L")  # type: ignore[operator]
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
