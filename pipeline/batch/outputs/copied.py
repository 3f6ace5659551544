"""Images that a format takes along, as they are: whether it may, their bytes, and what if they are gone by then."""

from __future__ import annotations

from collections.abc import Mapping

from latentcap.batch.inputs import Input
from latentcap.batch.journal import Record
from latentcap.batch.outputs.base import Output
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


class Lost(Exception):
    """Images that were captioned could not be copied: their errors, by where in the journal their records begin."""

    def __init__(self, errors: Mapping[int, Record]) -> None:
        super().__init__(f"{len(errors)} images")
        self.errors = errors


def copied(image: ImageRef) -> bytes:
    """The encoded image. Raises OSError where it cannot be read any more, or turns out to be DICOM."""
    try:
        encoded = image.read_bytes()
    except OSError as error:
        raise OSError(f"was captioned and cannot be read now ({error.strerror or error})") from None
    if is_dicom(encoded):
        raise OSError("DICOM, whose header names the patient: not copied. Choose another --format")
    return encoded


def take_back(output: Output, lost: Lost, *, most: int) -> None:
    """Remove the captions of lost images from an output's journal, so that these have failed like any other.

    Raises UserError, and removes nothing, for ``most`` of them: then it is not the images, but their disk that is gone.
    """
    if len(lost.errors) >= most:
        first = next(iter(lost.errors.values()))
        raise UserError(
            f"{first['file']}: {first['error']}, and so it is with the {len(lost.errors) - 1:,} images after it. Where "
            "their disk is not there, bring it back, and the same command goes on. Where they are no more, choose "
            "another --output, or --overwrite this one."
        )
    output.journal.drop(lost.errors.keys())
    output.lost += lost.errors.values()


def _is_dicom_file(image: ImageRef) -> bool:
    name = image.name or image.path
    if name.lower().endswith(DICOM_SUFFIXES):
        return True
    if is_remote(image.path) and is_image(name):
        return False  # as far as is known: a look would be a request, and copying it looks
    return is_dicom(image.start())  # whatever it is called
