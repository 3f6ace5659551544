"""Images that a format takes along, as they are: whether it may, and their bytes."""

from __future__ import annotations

from latentcap.batch.inputs import Input
from latentcap.data.dicom import is_dicom
from latentcap.data.errors import UserError
from latentcap.data.image import ImageRef
from latentcap.data.kinds import DICOM_SUFFIXES, is_image


def why_not_copied(item: Input, kind: str) -> str:
    """Why an input's image must not, or cannot, be copied into an output of this format; "" where it can."""
    image = item.images[0]
    if _is_dicom_file(image):
        return (
            f"DICOM, whose header names the patient, and --format {kind} copies files as they are: write .jsonl or .csv"
        )
    return f"in a table, where --format {kind} takes images from files and archives" if image.data is not None else ""


def copied(image: ImageRef) -> bytes:
    """The encoded image. Raises UserError where it cannot be read any more."""
    try:
        return image.read_bytes()
    except OSError as error:
        raise UserError(f"{image.path}: was captioned and cannot be read now ({error.strerror or error}).") from None


def _is_dicom_file(image: ImageRef) -> bool:
    name = image.name or image.path
    if is_image(name):
        return name.lower().endswith(DICOM_SUFFIXES)
    return is_dicom(image.start())  # a file named by itself may be called anything
