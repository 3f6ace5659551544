"""JSON Lines: one JSON object a line, read one at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from latentcap.data.encoding import open_text
from latentcap.data.errors import UserError

_UNDECODED = re.compile("[\udc80-\udcff]")  # what "surrogateescape" makes of bytes that are no text
_TO_SPELL = re.compile(r"[\udc80-\udcff]|\\(?=udc(?:5c|[89a-f][0-9a-f]))")
_SPELLED = re.compile(r"\\u(dc(?:5c|[89a-f][0-9a-f]))")
_decode = json.JSONDecoder().raw_decode
_LINES = "Every line has to be one JSON object; a file that is one JSON value as a whole ends in .json."


def iter_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Every line that is not blank, one at a time. Raises UserError, with the line's number, for anything else."""
    return (record for _, record in iter_numbered(path))


def iter_numbered(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """:func:`iter_jsonl`, with the number of each line."""
    name = str(path)
    with open_text(path, newline="\n", errors="surrogateescape") as file:
        for number, line in enumerate(file, start=1):
            if not line.isspace():
                yield number, parse_line(line, f"{name}, line {number}")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All of :func:`iter_jsonl`."""
    return list(iter_jsonl(path))


def parse_line(line: str | bytes, where: str) -> dict[str, Any]:
    """One line as a mapping. Raises UserError, beginning with ``where``, where it is no JSON object in UTF-8."""
    if isinstance(line, bytes):
        line = line.decode("utf-8", "surrogateescape")
    if not line.isascii() and _UNDECODED.search(line):
        raise UserError(f"{where}: not UTF-8 text. Save the file as UTF-8.")
    try:
        record = _loads(line)
    except (ValueError, RecursionError) as error:
        fault = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise UserError(f"{where}: not valid JSON ({fault}). {_LINES}") from None
    if not isinstance(record, dict):
        kind = {list: "a list", str: "a text", type(None): "null"}.get(type(record), "a number")
        raise UserError(f"{where}: {kind}, no JSON object. {_LINES}")
    return _each(_unspelled, record) if r"\\udc" in line else record


def _loads(line: str) -> Any:
    """``json.loads``, of a line as programs write it without the search for white space, which takes a third of it."""
    if line.startswith("{"):
        record, end = _decode(line)
        if line[end:] in ("\n", "", "\r\n"):
            return record
    return json.loads(line)


def to_line(record: Mapping[str, Any]) -> bytes:
    """A record as a line of UTF-8.

    A byte of a file name that is not UTF-8 is spelled out: FF is the six characters ``\\udcff``, which every reader of
    JSON takes, and of which :func:`parse_line` makes the byte again. Where a name has such characters itself, their
    backslash is written as ``\\udc5c``.
    """
    return _line(record).encode("utf-8", errors="backslashreplace")


def _line(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, ensure_ascii=False)
    if _TO_SPELL.search(text):
        text = json.dumps(_each(_spelled, record), ensure_ascii=False)
    return text + "\n"


def _spelled(text: str) -> str:
    return _TO_SPELL.sub(lambda found: f"\\udc{ord(found[0]) & 0xFF:02x}", text)


def _unspelled(text: str) -> str:
    return _SPELLED.sub(lambda found: chr(int(found[1], 16)).replace("\udc5c", "\\"), text)


def _each(change: Callable[[str], str], value: Any) -> Any:
    """A JSON value with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(name): _each(change, inner) for name, inner in value.items()}
    return [_each(change, inner) for inner in value] if isinstance(value, list | tuple) else value


def open_jsonl(path: Path, mode: str) -> IO[str]:
    """Open for writing (``w`` or ``a``), in a folder that is made where missing. Raises UserError where it fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, mode, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}).") from None


def write_jsonl(file: IO[str], records: Iterable[Mapping[str, Any]]) -> None:
    """Write records and hand them to the system. Raises UserError where the disk is full or gone."""
    try:
        file.write("".join(map(_line, records)))
        file.flush()
    except OSError as error:
        raise UserError(f"{file.name}: cannot be written ({error.strerror}).") from None
