"""The images that someone names: files, folders and all below them, tars; each with the name that it is shown by."""

from __future__ import annotations

import os
import tarfile
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from data.errors import UserError
from data.example import ImageRef
from data.readers.paths import IMAGE_SUFFIXES, existing, expand_sources, shorten

SUFFIXES = IMAGE_SUFFIXES | {
    *(".apng", ".avif", ".dib", ".ico", ".j2k", ".jfif", ".jp2", ".jpe", ".jpx"),
    *(".pbm", ".pgm", ".pnm", ".ppm", ".qoi", ".tga"),
}
"""What is taken for an image in a folder or tar. A file that is given by itself may be called anything."""


class Listed(NamedTuple):
    """An image and its name, which no other image of the list has."""

    name: str
    image: ImageRef


def list_images(paths: str | Path | Sequence[str | Path]) -> list[Listed]:
    """Every image that ``paths`` name, without opening any.

    Of a folder these are the images and tars in it and in all folders below it, links to folders included; of a tar,
    the images in it. Hidden files and folders are skipped, and every folder is entered once, so that links cannot lead
    in circles. The images of a folder are sorted by name; a broken link or a folder that may not be read is listed as
    an image, so that it is reported as one that cannot be read.

    Args:
        paths: files, folders, tars and patterns such as ``photos/*.jpg``. Where one folder or tar is all that is given,
            its images are named by their path in it; otherwise names begin with the path as given, and an image in a
            tar is ``x.tar:member``.

    Raises:
        UserError: for a path that does not exist, a tar that cannot be read, and where there are no images.
    """
    expanded = expand_sources(paths)
    images: dict[str, ImageRef] = {}
    for path in expanded:
        inside = "" if len(expanded) == 1 else path
        existing(path, "image path")
        for name, image in _list_one(path, inside):
            images.setdefault(name, image)
    if not images:
        where = shorten(", ".join(f"'{path}'" for path in expanded))
        raise UserError(
            f"no images in {where}. Looked there and in all folders below, hidden ones aside, for "
            f"{', '.join(sorted(SUFFIXES))}, and for .tar archives of them."
        )
    return [Listed(name, image) for name, image in images.items()]


def is_listed(name: str) -> bool:
    """Whether a file is taken for an image by its name."""
    base = os.path.basename(name)
    return os.path.splitext(base)[1].lower() in SUFFIXES and not base.startswith(".")


def _list_one(path: str, inside: str) -> Iterator[tuple[str, ImageRef]]:
    """Names and images of one path; ``inside`` is what names of images in a folder or tar begin with."""
    if os.path.isdir(path):
        for name in sorted(_walk(path)):
            shown, file = os.path.join(inside, name), os.path.join(path, name)
            if name.lower().endswith(".tar"):
                yield from ((f"{shown}:{member}", image) for member, image in _members(file))
            else:
                yield shown, ImageRef(file)
    elif path.lower().endswith(".tar"):
        yield from ((f"{inside}:{member}" if inside else member, image) for member, image in _members(path))
    else:
        yield path, ImageRef(path)


def _walk(root: str) -> Iterator[str]:
    """Paths relative to ``root`` of the images and tars below it: real folders first, then what links lead to."""
    seen: set[tuple[int, int]] = set()
    links = deque([root])
    unreadable: list[str] = []
    while links:
        for folder, folders, files in os.walk(links.popleft(), onerror=lambda e: unreadable.append(e.filename)):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            links.extend(path for name in folders if os.path.islink(path := os.path.join(folder, name)))
            for name in files:
                path = os.path.join(folder, name)
                wanted = is_listed(name) or (name.lower().endswith(".tar") and not name.startswith("."))
                if wanted and (os.path.isfile(path) or not os.path.exists(path)):  # no pipes or devices
                    yield os.path.relpath(path, root)
    yield from (os.path.relpath(path, root) for path in unreadable)


def _members(path: str) -> Iterator[tuple[str, ImageRef]]:
    """The images in a tar, in its order, by reading headers alone."""
    try:
        if os.path.getsize(path) % tarfile.BLOCKSIZE:
            raise tarfile.ReadError("its end is missing")
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                hidden = any(part.startswith(".") for part in name.split("/"))
                if member.isfile() and is_listed(name) and not hidden:
                    yield name, ImageRef(path, offset=member.offset_data, size=member.size, name=name)
    except (tarfile.TarError, OSError) as error:
        raise UserError(
            f"{shorten(path)}: not a complete, uncompressed tar ({error}). Copy it again, or decompress it first: its "
            "images are read at random."
        ) from None
