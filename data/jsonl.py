"""JSON Lines files that can be stopped while they are written, and gone on with."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from data.errors import UserError


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Every line that is not blank, as a mapping. Raises UserError, with the line's number, for anything else."""
    return list(_parse(path, _read(path)))


def resume_jsonl(path: Path) -> list[dict[str, Any]]:
    """The lines of a file that is to be gone on with: none where it does not exist.

    A last line that a crash has cut off is removed from the file. Raises UserError, and leaves the file as it is, where
    it is not one of ours.
    """
    if not path.is_file():  # a pipe or terminal has no lines yet; a folder cannot be opened
        return []
    text = _read(path)
    whole, _, rest = text.rpartition("\n")
    if not rest or _is_json(rest):
        records = list(_parse(path, text))
        if rest:
            _append_bytes(path, b"\n")
        return records
    if not rest.startswith("{"):
        raise UserError(f"{path}: exists and is not a JSON Lines file. Choose another output.")
    records = list(_parse(path, whole))
    os.truncate(path, len(whole.encode("utf-8")) + bool(whole))
    return records


def open_jsonl(path: Path, mode: str) -> IO[str]:
    """Open for writing (``w`` or ``a``); the folder is made where missing. Raises UserError where that is impossible.

    File names that are not UTF-8 are written as JSON escapes (``\\udcff``), which read back as the same name.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, mode, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}).") from None


def write_jsonl(file: IO[str], records: Iterable[Mapping[str, Any]]) -> None:
    """Write records and hand them to the system, so that none is lost when the program is stopped after this.

    Raises:
        UserError: the disk is full or gone.
    """
    try:
        file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
        file.flush()
    except OSError as error:
        raise UserError(f"{file.name}: cannot be written ({error.strerror}).") from None


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"{path}: cannot be read as JSON Lines ({reason}).") from None


def _parse(path: Path, text: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error}).") from None
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number}: {type(record).__name__}, where a JSON object is needed.")
        yield record


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except json.JSONDecodeError:
        return False
    return True


def _append_bytes(path: Path, data: bytes) -> None:
    with open(path, "ab") as file:
        file.write(data)
