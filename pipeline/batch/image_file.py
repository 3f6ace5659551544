"""Which files are read at all."""

from __future__ import annotations

import os
import stat

from latentcap.data.example import ImageRef
from latentcap.data.remote import is_remote

LARGEST_FILE = 1 << 30  # bytes; what is larger is no photograph


def check_file(image: ImageRef, *, most: float = LARGEST_FILE) -> None:
    """Raises OSError for a path that must not be read: a folder, pipe or device, or more than ``most`` bytes."""
    if image.data is not None or is_remote(image.path):
        return
    status = os.stat(image.path)
    if stat.S_ISDIR(status.st_mode):
        os.listdir(image.path)  # says so where the folder may not be read
        raise OSError("a folder, not an image")
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a regular file")
    if max(image.size or status.st_size, image.unpacked or 0) > most:
        raise OSError("larger than 1 GiB: not taken for an image")
    if not (image.size if image.offset is not None else status.st_size):
        raise OSError("the file is empty")
