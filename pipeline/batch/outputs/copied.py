"""Images that a format takes along, as they are: whether it may, and their bytes."""

from __future__ import annotations

from latentcap.batch.inputs import Input
from latentcap.data.dicom import is_dicom
from latentcap.data.errors import UserError
from latentcap.data.image import ImageRef
from latentcap.data.kinds import DICOM_SUFFIXES, is_image
from latentcap.data.remote import is_remote


def why_not_copied(item: Input, kind: str) -> str:
    """Why an input's images must not, or cannot, be copied into an output of this format; "" where they can."""
    if any(map(_is_dicom_file, item.images)):
        return (
            f"DICOM, whose header names the patient, and --format {kind} copies files as they are: write .jsonl or .csv"
        )
    in_table = item.images[0].data is not None
    return f"in a table, where --format {kind} takes images from files and archives" if in_table else ""


def copied(image: ImageRef) -> bytes:
    """The encoded image. Raises UserError where it cannot be read any more, or turns out to be DICOM."""
    try:
        encoded = image.read_bytes()
    except OSError as error:
        raise UserError(f"{image.path}: was captioned and cannot be read now ({error.strerror or error}).") from None
    if is_dicom(encoded):
        raise UserError(f"{image}: is DICOM, whose header names the patient: not copied. Choose another --format.")
    return encoded


def _is_dicom_file(image: ImageRef) -> bool:
    name = image.name or image.path
    if name.lower().endswith(DICOM_SUFFIXES):
        return True
    if is_remote(image.path) and is_image(name):
        return False  # as far as is known: a look would be a request, and copying it looks
    return is_dicom(image.start())  # whatever it is called
