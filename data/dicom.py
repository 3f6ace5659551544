"""DICOM to an 8-bit picture, as a viewer first shows it. Needs pydicom (extra ``medical``).

The chain of PS3.3, C.11: stored values -> modality LUT or rescale (to Hounsfield units, ...) -> VOI LUT or window (the
range that is looked at; without one, all that the stored bits can hold, as far as the picture uses them) -> 0 to 255,
dark for low, inverted for MONOCHROME1. Colour is brought to RGB.

pydicom decodes uncompressed, deflated and RLE data; the extra's gdcm and openjpeg decode JPEG (baseline, lossless),
JPEG-LS and JPEG 2000. Lossy JPEG of 12 bits needs the package pylibjpeg-libjpeg, which is used where it is installed;
it is under the GPL and so not part of the extra.

Only the elements that make the picture are ever parsed: names, numbers and dates of patients are skipped unread, so
that none can reach a log, a cache, an output or an error.
"""

from __future__ import annotations

import io
import logging
import warnings
from typing import Any

import numpy as np
from PIL import Image

READ = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData", "FloatPixelData"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "DoubleFloatPixelData"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *(
        "RedPaletteColorLookupTableDescriptor",
        "RedPaletteColorLookupTableData",
        "SegmentedRedPaletteColorLookupTableData",
    ),
    *("GreenPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableData"),
    *("BluePaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableData"),
    *("SegmentedGreenPaletteColorLookupTableData", "SegmentedBluePaletteColorLookupTableData"),
)
GREY = ("MONOCHROME1", "MONOCHROME2")
PREAMBLE = 128


def is_dicom(encoded: bytes) -> bool:
    """Whether the content is DICOM: ``DICM`` after the preamble, or, as in old files, a bare group 0002 or 0008."""
    bare = encoded[:2] in (b"\x02\x00", b"\x08\x00") and encoded[3:4] == b"\x00" and len(encoded) > PREAMBLE
    return encoded[PREAMBLE : PREAMBLE + 4] == b"DICM" or bare


def decode_dicom(encoded: bytes) -> Image.Image:
    """One frame as a grey (``L``) or colour (``RGB``) image. Raises OSError, without any value of the header, for
    several frames, files without an image, damaged ones and syntaxes that no installed decoder reads."""
    pydicom = _import_pydicom()
    try:
        dataset = pydicom.dcmread(io.BytesIO(encoded), force=True, specific_tags=list(READ))
        frames = int(dataset.get("NumberOfFrames") or 1)
    except Exception as error:
        raise OSError(f"a damaged DICOM file ({type(error).__name__})") from None
    if frames > 1:
        raise OSError(f"a DICOM file of {frames} frames; one frame a file is read: split it, or choose a frame")
    if "Rows" not in dataset or "PixelData" not in dataset:
        raise OSError("a DICOM file without an image (a report, a structure or a directory)")
    try:
        return _render(dataset, pydicom)
    except Exception as error:  # decoders raise many types; their messages may quote the file
        syntax = getattr(getattr(dataset, "file_meta", None), "get", lambda *_: None)("TransferSyntaxUID")
        name = getattr(syntax, "name", None) if syntax in pydicom.uid.UID_dictionary else None
        raise OSError(f"a DICOM image that cannot be decoded ({type(error).__name__}; {name or 'unknown'})") from None


def _render(dataset: Any, pydicom: Any) -> Image.Image:
    pixels = pydicom.pixels
    if "TransferSyntaxUID" not in getattr(dataset, "file_meta", {}):
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    values = dataset.pixel_array
    kind = str(dataset.PhotometricInterpretation)
    if kind in GREY:
        shown = _window(values, dataset, pixels)
        return _image(1 - shown if kind == "MONOCHROME1" else shown)
    if kind == "PALETTE COLOR":
        values = pixels.apply_color_lut(values, dataset)
        return _image(values / (255 if values.dtype == np.uint8 else 65535))
    return _image(values / (2.0 ** int(dataset.BitsStored) - 1))


def _window(stored: np.ndarray, dataset: Any, pixels: Any) -> np.ndarray:
    """Stored values (H, W) to brightness from 0 to 1 (H, W): modality, then values of interest."""
    values = pixels.apply_modality_lut(stored, dataset)
    if dataset.get("VOILUTSequence"):
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        return pixels.apply_voi(values.astype(np.int64), dataset) / (2.0**bits - 1)
    values = values.astype(np.float64)
    if dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        centre, width = (_first(dataset[name].value) for name in ("WindowCenter", "WindowWidth"))
        function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
        if function == "SIGMOID":
            return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
        if function == "LINEAR_EXACT":
            return (values - centre) / width + 0.5
        return (values - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5
    low, high = _range(stored, dataset)
    return (values - low) / (high - low)


def _range(stored: np.ndarray, dataset: Any) -> tuple[float, float]:
    """The least and greatest value that the stored bits can hold, after the modality's rescale.

    Upper bits that no pixel uses do not count: a CT often has 12 bits of values in 16, and would be all grey.
    """
    if dataset.get("ModalityLUTSequence"):
        return 0.0, 2.0 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    least, greatest = int(stored.min()), int(stored.max())
    signed = least < 0
    used = max(abs(least), abs(greatest)).bit_length() + signed
    bits = min(int(dataset.BitsStored), max(8, used))
    low, high = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    slope, intercept = float(dataset.get("RescaleSlope") or 1), float(dataset.get("RescaleIntercept") or 0)
    low, high = sorted((low * slope + intercept, high * slope + intercept))
    return low, high


def _first(value: Any) -> float:
    """The first of several windows: a viewer's own choice."""
    return float(value if isinstance(value, int | float | str) else value[0])


def _image(brightness: np.ndarray) -> Image.Image:
    """0 to 1, (H, W) or (H, W, 3), to 8 bits."""
    return Image.fromarray(np.round(np.clip(brightness, 0, 1) * 255).astype(np.uint8))


def _import_pydicom() -> Any:
    """pydicom, told not to report oddities of headers: its messages quote them."""
    try:
        import pydicom
        import pydicom.pixels
    except ImportError:
        raise OSError("a DICOM file, which needs the extra 'medical': pip install 'latentcap[medical]'") from None
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
    return pydicom
