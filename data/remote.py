"""Files behind an address, ``s3://``, ``gs://``, ``https://``, read in place by fsspec (the extra ``cloud``)."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from latentcap.data.errors import UserError

_REASONS: dict[type[OSError], str] = {
    FileNotFoundError: "does not exist, or may not be read",
    IsADirectoryError: "a folder, not a file",
    PermissionError: "may not be read",
}
_ADDRESS = re.compile(r"[a-z][a-z0-9+]+://", re.IGNORECASE)


def is_remote(path: str | os.PathLike[str]) -> bool:
    return _ADDRESS.match(os.fspath(path)) is not None


@contextmanager
def open_binary(path: str) -> Iterator[BinaryIO]:
    """A file here or behind an address, to be read at any place. Raises OSError."""
    if not is_remote(path):
        with open(path, "rb") as file:
            yield file
        return
    with _named():
        system, inside = _place(path)
        remote = system.open(inside, "rb")
    with _named(), remote:
        yield cast(BinaryIO, remote)


def read_part(path: str, start: int, size: int | None) -> bytes:
    """``size`` bytes, or all that there are, from ``start`` on of a file behind an address. Raises OSError."""
    with _named():
        system, inside = _place(path)
        content: bytes = system.cat_file(inside, start=start, end=None if size is None else start + size)
    if size is not None and len(content) > size:
        raise OSError("its server gives whole files alone, where an archive is read in parts: download it first")
    return content


def check_address(address: str) -> None:
    """Raises UserError where nothing can be read there."""
    try:
        with _named():
            system, inside = _place(address)
            found = system.exists(inside)
    except OSError as error:
        raise UserError(f"{address}: cannot be reached ({error}).") from None
    if not found:
        hint = " Several are named as in x-{000..099}.tar." if "*" in address else ""
        raise UserError(f"{address}: does not exist, or may not be read.{hint}")


@cache
def local_copy(address: str) -> Path:
    """A table behind an address, which is read several times, as a file here until the program ends.

    Raises UserError where it cannot be read.
    """
    target = Path(_folder(), str(len(os.listdir(_folder()))), address.rstrip("/").rpartition("/")[2])
    target.parent.mkdir()
    try:
        with open_binary(address) as source, open(target, "wb") as file:
            shutil.copyfileobj(source, file)
    except OSError as error:
        raise UserError(f"{address}: cannot be read ({error}).") from None
    return target


@cache
def _folder() -> str:
    folder = tempfile.mkdtemp(prefix="latentcap-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _place(path: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise UserError(f"{path}: an address needs fsspec: pip install 'latentcap[cloud]'.") from None
    try:
        system, inside = url_to_fs(path)
    except ImportError as error:
        raise UserError(f"{path}: {error} (pip install 'latentcap[cloud]').") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}.") from None
    return system, inside


@contextmanager
def _named() -> Iterator[None]:
    """Whatever a file system raises, as OSError with a reason: each has types of its own, and some say a path alone."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        if error.strerror is None and type(error) in _REASONS:
            raise OSError(_REASONS[type(error)]) from None
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from None
