"""DICOM to an 8-bit picture, as a viewer first shows it. Needs pydicom (extra ``medical``).

The chain of PS3.3, C.11: stored values -> modality LUT or rescale (to Hounsfield units, ...) -> VOI LUT or window (the
range that is looked at; without one, all that the stored bits can hold, as far as the picture uses them) -> 0 to 255,
dark for low, inverted for MONOCHROME1. Colour is brought to RGB. Padding is black and sets no range; a window without
width and a rescale by 0, which some machines write, are ignored, which is logged.

pydicom decodes uncompressed, deflated and RLE data; the extra's gdcm and openjpeg decode JPEG (baseline, lossless),
JPEG-LS and JPEG 2000. Lossy JPEG of 12 bits needs the package pylibjpeg-libjpeg, which is used where it is installed;
it is under the GPL and so not part of the extra.

Only the elements that make the picture are ever parsed: names, numbers and dates of patients are skipped unread, so
that none can reach a log, a cache, an output or an error.
"""

from __future__ import annotations

import io
import re
import struct
from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import Image

from latentcap.data.dicom_file import import_pydicom, read_dicom
from latentcap.data.dicom_values import brightness, leave_out_nonsense, padding_of
from latentcap.data.pixels import LARGEST, full_range

READ = (
    "SOPClassUID",
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData", "FloatPixelData"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "DoubleFloatPixelData"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
    *(
        "RedPaletteColorLookupTableDescriptor",
        "RedPaletteColorLookupTableData",
        "SegmentedRedPaletteColorLookupTableData",
    ),
    *("GreenPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableData"),
    *("BluePaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableData"),
    *("SegmentedGreenPaletteColorLookupTableData", "SegmentedBluePaletteColorLookupTableData"),
)
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
GREY = ("MONOCHROME1", "MONOCHROME2")
PREAMBLE = 128
CODESTREAM = re.compile(rb"\xff\x4f\xff\x51.{4}(.{16})", re.DOTALL)  # how JPEG 2000 begins: right, bottom, left, top
VRS = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # whose length has 4 bytes, after 2 of nothing


def is_dicom(encoded: bytes) -> bool:
    """Whether the content is DICOM: ``DICM`` after the preamble, or, as in old files, elements from the first byte on.

    512 bytes of a file are enough to tell.
    """
    return encoded[PREAMBLE : PREAMBLE + 4] == b"DICM" or _begins_with_elements(encoded)


def _begins_with_elements(encoded: bytes, needed: int = 3) -> bool:
    """Whether a file begins with elements of group 0002 or 0008 in ascending order, of known kinds and fitting lengths.

    Two bytes alone would not do: a TGA can begin with them.
    """
    at, before = 0, (0, -1)
    for _ in range(needed):
        head = encoded[at : at + 12]
        if len(head) < 8:
            return False
        tag = struct.unpack_from("<HH", head)
        kind = head[4:6]
        if tag[0] not in (2, 8) or tag <= before or (tag[0] == 2 and kind not in VRS):
            return False
        if kind in LONG_VRS and head[6:8] == b"\0\0" and len(head) == 12:
            length, start = struct.unpack_from("<I", head, 8)[0], 12
        elif kind in VRS:
            length, start = struct.unpack_from("<H", head, 6)[0], 8
        else:  # implicit
            length, start = struct.unpack_from("<I", head, 4)[0], 8
        if length % 2 or length > 4096:
            return False
        at, before = at + start + length, tag
    return True


def frames_of(encoded: bytes) -> int:
    """How many frames a DICOM file has. Raises OSError for a damaged one."""
    return frame_count(read_dicom(io.BytesIO(encoded), READ))


def dicom_size(encoded: bytes) -> tuple[int, int, int]:
    """Width, height and bands, of the header. Raises OSError for a file without an image and a damaged one."""
    dataset = read_dicom(io.BytesIO(encoded), ("Rows", "Columns", "SamplesPerPixel"), pixels=False)
    if "Rows" not in dataset:
        raise OSError("a DICOM file without an image, or cut off before it")
    return _size(dataset)


def _size(dataset: Any) -> tuple[int, int, int]:
    try:
        return int(dataset.Columns), int(dataset.Rows), int(dataset.get("SamplesPerPixel") or 1)
    except Exception as error:
        raise OSError(f"a damaged DICOM file ({type(error).__name__})") from None


def frame_place(frame: str, frames: int) -> int:
    """Which of ``frames`` frames, from 0, is meant by ``first``, ``middle`` or a number from 1. Raises OSError."""
    place = {"first": 0, "middle": frames // 2}.get(frame)
    place = int(frame) - 1 if place is None else place
    if place >= frames:
        raise OSError(f"a DICOM file of {frames} frames, of which frame {frame} was asked for")
    return place


def decode_dicom(encoded: bytes, *, frame: int | None = None, name: str = "") -> Image.Image:
    """One frame as a grey (``L``) or colour (``RGB``) image.

    ``frame`` counts from 0 and has to be given where there are several; ``name`` is the file's, for the log. Raises
    OSError, without any value of the header, for several frames without a choice, files without an image, damaged ones
    and syntaxes that no installed decoder reads.
    """
    pydicom = import_pydicom()
    dataset = read_dicom(io.BytesIO(encoded), READ)
    frames = frame_count(dataset)
    if frames > 1 and frame is None:
        raise OSError(
            f"a DICOM file of {frames} frames, where one picture is needed: --frame first, middle, a number or all (in "
            "training --data.fields.frame, in evaluate --field frame=...) chooses; 'latentcap prepare frames FILE "
            "FOLDER' writes each as a PNG"
        )
    if "Rows" not in dataset or not any(key in dataset for key in PIXELS):
        if is_cut_off(dataset):
            raise OSError("a DICOM file that is cut off before its image: copy it again")
        raise OSError("a DICOM file without an image (a report, a structure or a directory)")
    width, height, _ = _size(dataset)
    if width * height > LARGEST:
        raise OSError(f"a DICOM image of more than {LARGEST:,} pixels")
    try:
        leave_out_nonsense(dataset, name or "a DICOM file")
        return _render(dataset, pydicom, frame if frames > 1 else None)
    except Exception as error:  # decoders raise many types; their messages may quote the file
        raise OSError(f"a DICOM image that cannot be decoded ({_why(error, dataset, pydicom)})") from None


def _why(error: Exception, dataset: Any, pydicom: Any) -> str:
    """Why an image cannot be decoded, in words that hold no value of its header, and what to do about it."""
    syntax = getattr(getattr(dataset, "file_meta", None), "get", lambda *_: None)("TransferSyntaxUID")
    known = getattr(syntax, "name", "") if syntax in pydicom.uid.UID_dictionary else "unknown"
    if syntax and known != "unknown" and not syntax.is_compressed and _lacks_pixels(dataset, pydicom):
        return "it ends before its last pixel: copy it again"
    if isinstance(error, NotImplementedError):
        return f"compressed as pydicom does not read it, {known}: save it uncompressed, as 'gdcmconv --raw' does"
    if syntax == pydicom.uid.JPEGExtended12Bit and find_spec("libjpeg") is None:
        return f"{known}: pip install pylibjpeg-libjpeg, unless it is damaged"
    return f"{type(error).__name__}; {known}: it is damaged, or of a kind that no installed decoder reads"


def _lacks_pixels(dataset: Any, pydicom: Any) -> bool:
    try:
        pixels = next(dataset[name].value for name in PIXELS if name in dataset)
        return len(pixels) < pydicom.pixels.utils.get_expected_length(dataset)
    except Exception:  # what is missing or no number raises many types
        return False


def is_cut_off(dataset: Any) -> bool:
    """Whether a parsed file without pixels is of a kind that has some, and ends before or inside their description."""
    holds_image = "Image Storage" in getattr(dataset.get("SOPClassUID"), "name", "")
    return holds_image and ("Rows" in dataset or "BitsAllocated" not in dataset)


def frame_count(dataset: Any) -> int:
    """How many frames a parsed file has. Raises OSError for a number that is none."""
    try:
        return int(dataset.get("NumberOfFrames") or 1)
    except Exception as error:
        raise OSError(f"a damaged DICOM file ({type(error).__name__})") from None


def _render(dataset: Any, pydicom: Any, frame: int | None) -> Image.Image:
    pixels = pydicom.pixels
    if "TransferSyntaxUID" not in getattr(dataset, "file_meta", {}):
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    _check_codestreams(dataset, pydicom, frame)
    values = dataset.pixel_array if frame is None else pixels.pixel_array(dataset, index=frame)
    kind = str(dataset.get("PhotometricInterpretation") or GREY[1])
    if kind in GREY:
        padding = padding_of(values, dataset)
        shown = brightness(values, dataset, pixels, padding)
        shown = 1 - shown if kind == "MONOCHROME1" else shown
        return _image(np.where(padding, 0, shown))
    if kind == "PALETTE COLOR":
        values = pixels.apply_color_lut(values, dataset)
        return _image(values / (255 if values.dtype == np.uint8 else 65535))
    return _image(values / full_range(values))


def _check_codestreams(dataset: Any, pydicom: Any, frame: int | None) -> None:
    """Raises ValueError for JPEG 2000 of more pixels than the header states: it would be decoded at its own size."""
    if "JPEG 2000" not in dataset.file_meta.TransferSyntaxUID.name:  # high-throughput JPEG 2000, too
        return
    settings: dict[str, Any] = {"number_of_frames": frame_count(dataset)}
    if "ExtendedOffsetTable" in dataset and "ExtendedOffsetTableLengths" in dataset:
        settings["extended_offsets"] = dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths
    encaps, pixels = pydicom.encaps, dataset.PixelData
    one = frame is not None
    for encoded in [encaps.get_frame(pixels, frame, **settings)] if one else encaps.generate_frames(pixels, **settings):
        for start in CODESTREAM.finditer(encoded):
            right, bottom, left, top = struct.unpack(">4I", start[1])
            if (right - left) * (bottom - top) > dataset.Columns * dataset.Rows:
                raise ValueError("a codestream of more pixels than the header states")


def _image(shown: np.ndarray) -> Image.Image:
    """0 to 1, (H, W) or (H, W, 3), to 8 bits."""
    return Image.fromarray(np.round(np.clip(np.nan_to_num(shown), 0, 1) * 255).astype(np.uint8))
