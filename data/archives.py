"""What is in a tar or a zip, by its headers alone; it is read in place and never unpacked."""

from __future__ import annotations

import os
import re
import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from latentcap.data.image import ImageRef
from latentcap.data.remote import open_binary

ARCHIVES = (".tar", ".zip")
LINK = "a link in an archive: links are not followed"
LEADS_OUT = "its name leads out of the archive: pack it again with names that do not"
CUT_OFF = "its end is missing"
ENCRYPTED = "encrypted: unpack the archive with its password first"

_INSIDE = re.compile(r"(\.(?:tar|zip)):", re.IGNORECASE)


class Member(NamedTuple):
    """A file of a folder or archive: its path there, where its bytes are, and why it is not read, if so."""

    name: str
    place: ImageRef
    error: str = ""


def is_archive(name: str) -> bool:
    return name.lower().endswith(ARCHIVES)


def as_path(name: str) -> str:
    """``x.zip:a/b.jpg``, as an image in an archive is called, as a path: ``x.zip/a/b.jpg``."""
    return _INSIDE.sub(r"\1/", name)


def members_of(path: str | os.PathLike[str]) -> Iterator[Member]:
    """The files in a tar or zip, in its order, hidden ones left out.

    Raises OSError, which says what is wrong with it, where it is not whole; a tar is read up to there.
    """
    path = os.fspath(path)
    for member in _zipped(path) if path.lower().endswith(".zip") else _tarred(path):
        parts = member.name.split("/")
        if not any(part.startswith(".") and part != ".." for part in parts):
            leads_out = parts[0] == "" or ".." in parts or re.match("[A-Za-z]:", member.name)
            yield member._replace(error=LEADS_OUT) if leads_out else member


def _tarred(path: str) -> Iterator[Member]:
    try:
        with open_binary(path) as file:
            yield from _headers(path, file)
    except (tarfile.TarError, OSError) as error:
        raise OSError(
            f"not a complete, uncompressed tar ({error}). Copy it again, or decompress it first: its images are read "
            "at random"
        ) from None


def _headers(path: str, file: BinaryIO) -> Iterator[Member]:
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for header in archive:
            if header.offset_data + header.size > end:
                raise tarfile.ReadError(CUT_OFF)
            name = header.name.removeprefix("./")
            if header.isfile() or header.issym() or header.islnk():
                place = ImageRef(path, offset=header.offset_data, size=header.size, name=name)
                yield Member(name, place, "" if header.isfile() else LINK)
            archive.members = []  # type: ignore[attr-defined]  # tarfile would keep every header
    if end % tarfile.BLOCKSIZE:  # within a header, which tarfile takes for the end
        raise tarfile.ReadError(CUT_OFF)


def _zipped(path: str) -> Iterator[Member]:
    try:
        with open_binary(path) as file, zipfile.ZipFile(file) as archive:
            headers = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OSError) as error:
        raise OSError(f"not a complete zip ({error}). Copy it again: the list of its files is at its end") from None
    for header in headers:
        if header.is_dir():
            continue
        name = header.filename.replace("\\", "/").removeprefix("./")
        place = ImageRef(path, header.header_offset, header.compress_size, name, header.file_size)
        link = stat.S_ISLNK(header.external_attr >> 16)
        yield Member(name, place, LINK if link else ENCRYPTED if header.flag_bits & 1 else "")
