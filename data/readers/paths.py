"""Paths as people write them: lists, globs, braces; and what is wrong with those that name nothing."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath

from latentcap.data.errors import UserError, did_you_mean
from latentcap.data.remote import is_remote

HUGGINGFACE_PREFIX = "hf:"
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_SEPARATOR = re.compile(r"[,\s]+(?![^{]*\})")  # a comma or white space outside braces


def shorten(text: str | Path, limit: int = 120) -> str:
    """``text`` with its middle left out where it is longer than ``limit`` characters."""
    text = str(text)
    half = limit // 2 - 3
    return text if len(text) <= limit else f"{text[:half]}[...]{text[-half:]}"


def native(name: str, root: Path) -> str:
    """A path as this system writes it: Windows' ``images\\0.jpg`` is ``images/0.jpg``; a file so called comes first."""
    if "\\" not in name or os.sep == "\\" or os.path.exists(root / name):
        return name
    return PureWindowsPath(name).as_posix()


def expand_sources(source: str | Path | Sequence[str | Path]) -> list[str]:
    """Every existing path (or ``hf:NAME``) that ``source`` names, in order, globs sorted.

    Raises:
        UserError: a path does not exist, a pattern matches nothing, or nothing was given.
    """
    if isinstance(source, str | Path):
        expanded = _expand_text(str(source))
    else:
        expanded = [path for item in source for path in _expand_text(str(item))]
    if not expanded:
        raise UserError(
            "no data was given: name a file, a folder, a pattern such as 'train-{00000..00009}.tar', or several."
        )
    return expanded


def existing(path: str | Path, what: str = "path") -> Path:
    """``path``, known to exist. Raises UserError saying which part is missing and what is there instead."""
    text = str(path)
    if os.path.exists(text):
        return Path(text)
    if isinstance(path, str) and is_remote(path):
        raise UserError(f"the {what} is an address, '{shorten(text)}', where a path on this machine is needed.")
    if len(os.fsencode(text)) >= 4096 or any(len(os.fsencode(part)) > 255 for part in text.split(os.sep)):
        raise UserError(
            f"the {what} is too long for a file name ({len(text):,} characters): '{shorten(text)}'. "
            "Give the path of a file or folder, not its content; several paths go in a list."
        )
    parent = Path(text).absolute().parent
    while not os.path.exists(parent):
        parent = parent.parent
    child = Path(text).absolute().relative_to(parent).parts[0]
    try:
        names = sorted(os.listdir(parent))
    except OSError:
        names = []
    raise UserError(
        f"the {what} does not exist: '{shorten(text)}' ('{shorten(child)}' is not in '{shorten(parent)}')."
        f"{did_you_mean(child, names)}"
    )


def guess_root(bases: Sequence[Path], folders: Sequence[str], first_image: str) -> Path:
    """The first ``base/folder`` that holds ``first_image``, or the first base where none does."""
    candidates = (base / folder for base in bases for folder in folders)
    return next((root for root in candidates if os.path.exists(root / first_image)), bases[0])


def _expand_text(text: str) -> list[str]:
    if os.path.exists(text) or text.startswith(HUGGINGFACE_PREFIX):
        return [text]
    if is_remote(text):
        return list(_expand_braces(text))
    parts = [part for part in _SEPARATOR.split(text) if part]
    if len(parts) > 1 and any(_names_something(part) for part in parts):
        return [path for part in parts for path in _expand_text(part)]
    return [path for pattern in _expand_braces(text) for path in _expand_glob(pattern)] if text.strip() else []


def _names_something(part: str) -> bool:
    return os.path.exists(part) or part.startswith(HUGGINGFACE_PREFIX) or any(sign in part for sign in "*?[{")


def _expand_braces(pattern: str) -> Iterator[str]:
    """``x-{08..10}.tar`` -> x-08.tar, x-09.tar, x-10.tar; ``{a,b}/c`` -> a/c, b/c."""
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    bounds = _RANGE.fullmatch(match[1])
    if bounds:
        first, last = bounds[1], bounds[2]
        choices = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    else:
        choices = match[1].split(",")
    for choice in choices:
        yield from _expand_braces(pattern[: match.start()] + choice + pattern[match.end() :])


def _expand_glob(pattern: str) -> list[str]:
    if os.path.exists(pattern) or not glob.has_magic(pattern):
        return [str(existing(pattern))]
    matches = sorted(glob.glob(pattern, recursive=True))
    if not matches:
        raise UserError(f"no file matches the pattern '{shorten(pattern)}'.")
    return matches
