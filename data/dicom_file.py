"""DICOM files to pydicom datasets of the elements that are asked for. Needs pydicom (extra ``medical``)."""

from __future__ import annotations

import io
import logging
import warnings
import zlib
from collections.abc import Sequence
from typing import Any, BinaryIO

LARGEST_UNPACKED = 1 << 30  # bytes; what is larger is no picture
LARGEST_HEADER = 1 << 24  # bytes before the pixels


def import_pydicom() -> Any:
    """pydicom, told not to report oddities of headers: its messages quote them."""
    try:
        import pydicom
        import pydicom.pixels
    except ImportError:
        raise OSError("a DICOM file, which needs the extra 'medical': pip install 'latentcap[medical]'") from None
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
    return pydicom


def read_dicom(file: BinaryIO, names: Sequence[str], *, pixels: bool = True) -> Any:
    """A dataset of the named elements, without ``pixels`` of those before them. Raises OSError for a damaged file.

    ``pydicom.dcmread`` would unpack the deflated syntax whatever its size: here it ends at ``LARGEST_UNPACKED``, and
    where only the header is read at ``LARGEST_HEADER``.
    """
    pydicom = import_pydicom()
    reader = pydicom.filereader
    try:
        reader.read_preamble(file, True)
        meta = reader._read_file_meta_info(file)  # as dcmread does it, for both have to see the same syntax
        if meta.get("TransferSyntaxUID") != pydicom.uid.DeflatedExplicitVRLittleEndian:
            file.seek(0)
            settings = {"force": True, "stop_before_pixels": not pixels, "specific_tags": list(names)}
            return pydicom.dcmread(file, **settings)
        content = io.BytesIO(_unpacked(file.read(), whole=pixels))
        stop = None if pixels else reader._at_pixel_data
        tags = [pydicom.tag.Tag(name) for name in names]
        dataset = reader.read_dataset(content, False, True, stop_when=stop, specific_tags=tags)
        dataset.file_meta = meta
        return dataset
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"a damaged DICOM file ({type(error).__name__})") from None


def _unpacked(packed: bytes, *, whole: bool) -> bytes:
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    most = LARGEST_UNPACKED if whole else LARGEST_HEADER
    unpacked = unpacker.decompress(packed, most)
    if whole and not unpacker.eof:
        if len(unpacked) == most:
            raise OSError(f"a deflated DICOM file that unpacks to more than {most >> 20:,} MiB: no image is as large")
        raise OSError("a deflated DICOM file that is cut off: copy it again")
    return unpacked
