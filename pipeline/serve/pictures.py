"""Images as clients send them: data URIs, base64 and uploads, checked before they are decoded."""

from __future__ import annotations

import base64
import binascii
import re

from torch import Tensor

from latentcap.captioner import Captioner
from latentcap.data.batches.transforms import load_image
from latentcap.data.image import ImageRef, size_of
from latentcap.data.pixels import USUAL_BANDS
from latentcap.serve.errors import ApiError
from latentcap.serve.limits import Limits

DATA_URI = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[^;,]*)*)(;base64)?", re.IGNORECASE)


def from_address(address: object, param: str) -> bytes:
    """The bytes of ``data:image/...;base64,...``. Raises ApiError; a web address is refused, for nothing is fetched."""
    if not isinstance(address, str):
        raise ApiError(400, "an image is a text: data:image/jpeg;base64,...", code="invalid_image", param=param)
    head, _, content = address.partition(",")
    match = DATA_URI.fullmatch(_without_spaces(head))
    if match is None:
        shown = address[:60].split("?")[0]
        raise ApiError(
            400,
            f"'{shown}' is no data URI. This server fetches nothing: send the image itself, as "
            "data:image/jpeg;base64,...",
            code="invalid_image_url",
            param=param,
        )
    kind = (match[1] or "text/plain").lower()
    if not (kind.startswith("image/") or kind in ("application/dicom", "application/octet-stream")):
        raise ApiError(400, f"a data URI of type {kind}, where an image is needed.", code="invalid_image", param=param)
    if not match[3]:
        raise ApiError(400, "send data:image/...;base64,..., with base64.", code="invalid_image", param=param)
    return _decoded(content, param)


def from_base64(text: object, param: str) -> bytes:
    """The bytes of a base64 text, or of a data URI. Raises ApiError where it is neither."""
    if isinstance(text, str) and text.lstrip()[:5].lower() == "data:":
        return from_address(text, param)
    return _decoded(text if isinstance(text, str) else "", param)


def _decoded(text: str, param: str) -> bytes:
    """Base64, which programs break into lines and leave without its padding."""
    plain = _without_spaces(text).rstrip("=")
    try:
        encoded = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, "the image is no base64, or was cut off.", code="invalid_image", param=param) from None
    if not encoded:
        raise ApiError(400, "the image is empty.", code="invalid_image", param=param)
    return encoded


def _without_spaces(text: str) -> str:
    return "".join(text.split())


def to_tensor(encoded: bytes, captioner: Captioner, limits: Limits, param: str) -> Tensor:
    """Bytes of an image to the model's input, (C, H, W). Raises ApiError for what is none, or is too large."""
    try:
        width, height, bands = size_of(encoded)
        if width * height * max(bands, USUAL_BANDS) > limits.pixels * USUAL_BANDS:
            many = f" in {bands:,} bands" if bands > USUAL_BANDS else ""
            message = f"an image of {width:,} x {height:,} pixels{many}; at most {limits.pixels:,} in all are accepted."
            raise ApiError(413, message, code="image_too_large", param=param)
        return captioner.transform(load_image(ImageRef("the image", data=encoded), captioner.image))
    except (OSError, MemoryError, ValueError) as error:
        raise ApiError(400, f"the image cannot be read: {error}", code="invalid_image", param=param) from None
