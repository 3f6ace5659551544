"""CSV and its relations: tables of text, whatever separates their cells and however they quote."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from latentcap.data.encoding import open_text
from latentcap.data.errors import UserError
from latentcap.data.kinds import IMAGE_SUFFIXES
from latentcap.data.readers.fields import CAPTION_COLUMNS, IMAGE_COLUMNS, Row

SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a |"}
_SUFFIX = "|".join(suffix[1:] for suffix in sorted(IMAGE_SUFFIXES))


def iter_delimited(path: Path) -> Iterator[Row]:
    """The rows of a table of text. An empty cell is null: there is no other way to write it.

    The separator is the one that makes columns of the header, whatever the file is called.

    Raises:
        UserError: rows of another width than the header's, and quotes that do not close, with the line.
    """
    separator, skipped = find_separator(path)
    fault = _fault(path, separator, skipped)
    if fault is None:
        rows = _quoted(path, separator, skipped)
    elif _lines_are_rows(path, separator, skipped):
        rows = _plain(path, separator, skipped)
    else:
        raise UserError(
            f"{path}, line {fault}: a quote opens here that is not closed before the next row. Close it, or double it "
            '("") where it belongs to the text.'
        )
    header: list[str] = []
    for number, cells in rows:
        if not header:
            header = [name.strip() for name in cells]
            double = sorted({name for name in header if name and header.count(name) > 1})
            if double:
                raise UserError(f"{path}: several columns are called {', '.join(double)}. Give each a name of its own.")
        elif len(cells) != len(header):
            raise UserError(f"{path}, line {number}: {_wrong_width(cells, header, separator)}")
        else:
            yield {name: cell if cell.strip() else None for name, cell in zip(header, cells, strict=True)}


def find_separator(path: Path) -> tuple[str, int]:
    """What separates the cells of a table, by its header, and the number of lines before that (``sep=;``)."""
    with open_text(path, newline="\n") as file:
        first = file.readline().rstrip("\r\n")
        stated = re.fullmatch(r"sep=(.)", first.strip(), re.IGNORECASE) if first.strip() else None
    if stated:
        return stated[1], 1
    usual = "\t" if path.suffix.lower() == ".tsv" else ","

    def worth(separator: str) -> tuple[int, bool, int]:
        names = [name.strip().strip('"').lower() for name in first.split(separator)]
        known = sum(name in IMAGE_COLUMNS or name in CAPTION_COLUMNS for name in names) if len(names) > 1 else 0
        return known, separator == usual and len(names) > 1, len(names)

    best = max(SEPARATORS, key=worth)
    return (best if worth(best)[2] > 1 else usual), 0


def _quoted(path: Path, separator: str, skipped: int, *, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
    with open_text(path, newline="") as file:
        for _ in range(skipped):
            file.readline()
        reader = csv.reader(file, delimiter=separator, skipinitialspace=separator != "\t", strict=strict)
        try:
            for cells in reader:
                if cells:
                    yield reader.line_num + skipped, cells
        except csv.Error as error:
            if strict:
                raise
            raise UserError(f"{path}, line {reader.line_num + skipped}: not valid CSV ({error}).") from None


def _plain(path: Path, separator: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """One row a line; a cell may be quoted as a whole, any other quote is text."""
    with open_text(path, newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if number > skipped and line.strip():
                yield number, [_unquoted(cell) for cell in line.rstrip("\r\n").split(separator)]


def _unquoted(cell: str) -> str:
    text = cell.strip()
    if len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1].replace('""', ""):
        return text[1:-1].replace('""', '"')
    return cell


def _fault(path: Path, separator: str, skipped: int) -> int | None:
    """The line of the first quote that does not close where it should: a cell has swallowed rows, or the file's end."""
    swallowed = re.compile(rf"\n[^\n]*\.({_SUFFIX})[\"' ]*{re.escape(separator)}", re.IGNORECASE)
    number = skipped
    try:
        for number, cells in _quoted(path, separator, skipped, strict=True):
            broken = sum(cell.count("\n") for cell in cells)
            if broken and any(swallowed.search(cell) for cell in cells):
                return number - broken
    except csv.Error:
        return number + 1
    return None


def _lines_are_rows(path: Path, separator: str, skipped: int) -> bool:
    """Whether every line has as many separators as the header, so that no cell needs its quotes."""
    with open_text(path, newline="\n") as file:
        counts = {line.count(separator) for number, line in enumerate(file) if number >= skipped and line.strip()}
    return len(counts) == 1


def _wrong_width(cells: list[str], header: list[str], separator: str) -> str:
    name = SEPARATORS.get(separator, f"'{separator}'")
    more = len(cells) > len(header)
    advice = (
        f"A caption that holds {name} needs double quotes around it."
        if more
        else f"{name[0].upper()}{name[1:]} is missing in it: mend the line, or remove it."
    )
    return f"{len(cells)} fields, where the header has {len(header)} ({', '.join(header)}). {advice}"
