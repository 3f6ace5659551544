"""The images that someone names: files, folders and all below them, archives; found one by one, without opening any."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from latentcap.data.archives import is_archive, members_of
from latentcap.data.errors import UserError
from latentcap.data.image import ImageRef
from latentcap.data.kinds import (
    IMAGE_SUFFIXES,
    begins_as_image,
    is_dicom_directory,
    is_image,
    may_be_image,
    what_it_is,
    why_not_read,
)
from latentcap.data.readers.paths import existing, expand_sources, shorten
from latentcap.data.walk import RUN, is_own_output, own_outputs

OWN_OUTPUT = "an output of captioning"


class Listed(NamedTuple):
    """An image and the name it is shown by.

    ``error`` says why there is no image where one should be; ``skipped`` why what looks like one is left out: it is of
    a kind that is not read, or its content is none.
    """

    name: str
    image: ImageRef
    error: str = ""
    skipped: str = ""


def iter_images(paths: str | Path | Sequence[str | Path]) -> Iterator[Listed]:
    """Every image that ``paths`` name, one at a time, in an order that depends on the names alone.

    Of a folder these are the images and archives in it and in all folders below it, links to folders included; of a tar
    or zip, the images in it. Files without a suffix that is known are images if their content begins as one (DICOM from
    a CD). What captioning wrote there (what has a ``.run`` folder beside it) is no input, but for texts among images.
    Hidden files and folders are left out, and every folder is entered once, so that links cannot lead in circles. The
    images of a folder are sorted by their path in it; a broken link or a folder that may not be read is listed as an
    image, and the rest of an archive that is cut off, and what is not read in one, with an ``error``, so that each is
    reported.

    Args:
        paths: files, folders, archives and patterns such as ``photos/*.jpg``. Where one folder or archive is all that
            is given, its images are named by their path in it; otherwise names begin with the path as given, and an
            image in an archive is ``x.tar:member``. What is named twice is listed twice.

    Raises:
        UserError: for a path that does not exist, and where there are no images.
    """
    expanded = expand_sources(paths)
    for path in expanded:
        existing(path, "image path")
    found = False
    for path in expanded:
        for listed in list_path(path, "" if len(expanded) == 1 else path):
            if not listed.skipped:
                found = True
                yield listed
    if not found:
        raise no_images(expanded)


def no_images(paths: Sequence[str]) -> UserError:
    """What is said where nothing was found."""
    where = shorten(", ".join(f"'{path}'" for path in paths))
    if all(path == "-" or (path.startswith("@") and not os.path.exists(path)) for path in paths):
        return UserError(f"no images in {where}: the list is empty. It holds a file's name on each line.")
    return UserError(
        f"no images in {where}. Looked there and in all folders below, hidden ones aside, for "
        f"{', '.join(sorted(IMAGE_SUFFIXES))}, for others that begin as an image does, and for .tar and .zip archives "
        "of them."
    )


def list_path(path: str, inside: str) -> Iterator[Listed]:
    """The images of one path; ``inside`` is what names of images in a folder or archive begin with.

    A ``DICOMDIR`` stands for the medium that it is the directory of: the folder that it lies in.
    """
    if is_dicom_directory(path) and os.path.isfile(path):
        yield from list_path(os.path.dirname(path) or ".", os.path.dirname(inside))
    elif os.path.isdir(path):
        for name in _walk(path):
            shown, file = os.path.join(inside, name), os.path.join(path, name)
            if is_archive(name) and os.path.isfile(file):
                yield from _members(file, shown)
            elif listed := _judged(name, shown, ImageRef(file)):
                yield listed
    elif is_archive(path):
        yield from _members(path, inside)
    else:
        yield Listed(path, ImageRef(path))


def _judged(name: str, shown: str, image: ImageRef) -> Listed | None:
    """A file of a folder or archive, as an image or as skipped; None for what nobody would take for one."""
    if reason := why_not_read(name):
        return Listed(shown, image, skipped=reason)
    if is_image(name):
        return Listed(shown, image)
    if os.path.isdir(image.path):  # a folder that is not entered, so that this is reported
        return Listed(shown, image, skipped=OWN_OUTPUT if is_own_output(image.path) else "")
    if not may_be_image(name):
        return None
    start = image.start()
    return Listed(shown, image) if begins_as_image(start) else Listed(shown, image, skipped=what_it_is(start, name))


def _walk(root: str) -> Iterator[str]:
    """Paths relative to ``root`` of the images and archives below it, sorted, and of folders that are not entered; one
    folder's names are held at a time."""
    top = os.path.realpath(root)
    seen: set[tuple[int, int]] = set()
    waiting = [""]  # the next one last; folders end in "/", as they sort among the files
    while waiting:
        name = waiting.pop()
        if name and not name.endswith("/"):
            yield name
            continue
        folder = os.path.join(root, name)
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            waiting += [name + child for child in sorted(_wanted(folder, top), reverse=True)]
        except OSError:
            yield name.rstrip("/") or "."


def _wanted(folder: str, top: str) -> Iterator[str]:
    """Names in a folder: images, archives, broken links, what may be an image, and folders with a final "/"."""
    with os.scandir(folder) as found:
        entries = [entry for entry in found if not entry.name.startswith(".")]
    ours = own_outputs(folder, [entry.name for entry in entries])
    for entry in entries:
        if entry.name in ours:
            if entry.is_dir() and not entry.name.endswith(RUN):
                yield entry.name
            continue
        if os.path.isdir(entry) if entry.is_symlink() else entry.is_dir():  # links may lead in a circle
            if not (entry.is_symlink() and _is_met_anyway(entry.path, top)):
                yield entry.name + "/"
        elif _is_wanted(entry.name):
            broken = entry.is_symlink() and is_image(entry.name) and not os.path.exists(entry.path)
            if broken or entry.is_file():  # no pipes or devices
                yield entry.name


def _is_wanted(name: str) -> bool:
    return is_archive(name) or is_image(name) or may_be_image(name) or why_not_read(name) != ""


def _is_met_anyway(link: str, top: str) -> bool:
    """Whether a link leads to a folder that is below ``top`` itself, and not hidden there."""
    inside = os.path.relpath(os.path.realpath(link), top)
    return not any(part.startswith(".") for part in inside.split(os.sep)) or inside == "."


def _members(path: str, inside: str) -> Iterator[Listed]:
    """The images in an archive, in its order, by reading headers alone."""
    try:
        for name, image, error in members_of(path):
            shown = f"{inside}:{name}" if inside else name
            if not error:
                if listed := _judged(name, shown, image):
                    yield listed
            elif is_image(name):
                yield Listed(shown, image, error)
            elif may_be_image(name):
                yield Listed(shown, image, skipped=error)
    except OSError as error:
        yield Listed(inside or path, ImageRef(path), str(error))
