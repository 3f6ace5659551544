"""Cameras' raw files, by the JPEG preview that the camera put into them (rawpy, which is the extra ``raw``)."""

from __future__ import annotations

import io

from PIL import Image

ORIENTATION = 0x0112  # of Exif
TURNS = {3: Image.Transpose.ROTATE_180, 5: Image.Transpose.ROTATE_90, 6: Image.Transpose.ROTATE_270}  # LibRaw's flips


def decode_raw(encoded: bytes) -> Image.Image:
    """The preview; a JPEG without an orientation of its own is turned as the raw file says.

    Raises OSError for a file that is damaged or has no preview, and where rawpy is not installed.
    """
    try:
        import rawpy
    except ImportError:
        raise OSError("a camera's raw file; it needs the extra 'raw': pip install 'latentcap[raw]'") from None
    try:
        with rawpy.imread(io.BytesIO(encoded)) as raw:
            flip = raw.sizes.flip
            preview = raw.extract_thumb()
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
        raise OSError("a camera's raw file without a preview: develop it, as JPEG or PNG") from None
    except rawpy.LibRawError as error:
        raise OSError(
            f"a camera's raw file that is damaged, or of a kind that LibRaw does not read ({error})"
        ) from None
    if isinstance(preview.data, bytes):
        image: Image.Image = Image.open(io.BytesIO(preview.data))
        if ORIENTATION in image.getexif():
            return image
    else:
        image = Image.fromarray(preview.data)
    return image.transpose(TURNS[flip]) if flip in TURNS else image
