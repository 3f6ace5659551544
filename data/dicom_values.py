"""DICOM's stored values to brightness: modality, window or look-up table, padding; and what of a header is nonsense."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from latentcap.data.pixels import DEPTHS, outliers_aside

logger = logging.getLogger(__name__)


def leave_out_nonsense(dataset: Any, name: str) -> None:
    """Remove what no picture can be made with, and say so."""
    if "WindowWidth" in dataset:
        width = _number(dataset.WindowWidth)
        linear = str(dataset.get("VOILUTFunction") or "LINEAR").upper() == "LINEAR"
        if width is None or _number(dataset.get("WindowCenter")) is None or width <= 0 or (linear and width < 1):
            logger.warning("%s: its window has no width (or no centre) and is ignored", name)
            del dataset.WindowWidth
    for key, usual, useless in (("RescaleSlope", 1, (None, 0.0)), ("RescaleIntercept", 0, (None,))):
        if key in dataset and _number(dataset[key].value) in useless:
            logger.warning("%s: its %s is 0 or no number and is ignored", name, key)
            setattr(dataset, key, usual)
    if ("RescaleSlope" in dataset) != ("RescaleIntercept" in dataset):
        dataset.RescaleSlope, dataset.RescaleIntercept = (
            dataset.get("RescaleSlope", 1),
            dataset.get("RescaleIntercept", 0),
        )


def padding_of(stored: np.ndarray, dataset: Any) -> np.ndarray:
    """Which stored values, (H, W), stand for no pixel: the padding value, or all from it to the range's limit."""
    first = _number(dataset.get("PixelPaddingValue"))
    if first is None:
        return np.zeros(stored.shape, bool)
    signed = stored.dtype.kind == "i"
    first = _as_stored(first, stored.dtype) if signed or first < 0 else first
    last = _number(dataset.get("PixelPaddingRangeLimit"))
    last = first if last is None else _as_stored(last, stored.dtype) if signed or last < 0 else last
    found = (stored >= min(first, last)) & (stored <= max(first, last))
    return np.zeros(stored.shape, bool) if found.all() else found


def _as_stored(value: float, kind: np.dtype) -> float:
    """A padding value as the pixels hold it: files may state -2000 as 63536, or the other way round."""
    return float(np.array(int(value)).astype(kind)) if kind.kind in "iu" else value


def brightness(stored: np.ndarray, dataset: Any, pixels: Any, padding: np.ndarray) -> np.ndarray:
    """Stored values (H, W) to brightness from 0 to 1 (H, W): modality, then values of interest."""
    for name in ("ModalityLUTSequence", "VOILUTSequence"):
        for table in dataset.get(name) or ():
            _unpack(table)
    values = pixels.apply_modality_lut(stored, dataset)
    if dataset.get("VOILUTSequence"):
        shown = pixels.apply_voi(values.astype(np.int64), dataset)
        return shown / _lut_range(dataset.VOILUTSequence[0])
    values = values.astype(np.float64)
    centre, width = _number(dataset.get("WindowCenter")), _number(dataset.get("WindowWidth"))
    if centre is not None and width is not None:
        function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
        if function == "SIGMOID":
            return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
        if function == "LINEAR_EXACT":
            return (values - centre) / width + 0.5
        return (values - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5
    low, high = _range(stored[~padding], dataset)
    return (values - low) / ((high - low) or 1)


def _unpack(table: Any) -> None:
    """Make whole numbers of the entries of a look-up table that has a byte for each, which pydicom takes for words."""
    data, entries = table.LUTData, int(table.LUTDescriptor[0]) or 65536
    if isinstance(data, bytes) and entries <= len(data) < 2 * entries:
        table.add_new("LUTData", "US", list(data[:entries]))


def _lut_range(lut: Any) -> float:
    """The brightest value of a look-up table: its bits, or fewer where none of its entries needs as many."""
    bits, data = int(lut.LUTDescriptor[2]), lut.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, np.dtype("<u2"))
    used = int(np.max(data)).bit_length()
    return 2.0 ** max(1, min(bits, next((depth for depth in DEPTHS if depth >= used), bits))) - 1


def _range(stored: np.ndarray, dataset: Any) -> tuple[float, float]:
    """The least and greatest value that the stored bits can hold, after the modality's rescale.

    Upper bits that hardly a pixel uses do not count: a CT often has 12 bits of values in 16, and would be all grey.
    """
    if dataset.get("ModalityLUTSequence"):
        return 0.0, 2.0 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    least, greatest = outliers_aside(stored[np.isfinite(stored)])
    if stored.dtype.kind == "f":
        low, high = least, greatest
    else:
        signed = least < 0
        used = int(max(abs(least), abs(greatest))).bit_length() + signed
        bits = min(int(dataset.BitsStored), max(8, used))
        low, high = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    slope, intercept = _number(dataset.get("RescaleSlope")), _number(dataset.get("RescaleIntercept")) or 0
    slope = 1 if slope is None else slope
    low, high = sorted((low * slope + intercept, high * slope + intercept))
    return low, high


def _number(value: Any) -> float | None:
    """A number of the header, the first of several (of windows: a viewer's own choice); None for none."""
    try:
        number = float(value if isinstance(value, int | float | str) else value[0])
    except (TypeError, ValueError, IndexError):
        return None
    return number if np.isfinite(number) else None
