"""Captions to score, in every format that ``latentcap caption`` writes, and as COCO's results."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentcap.data.encoding import decode, read_text
from latentcap.data.errors import UserError
from latentcap.data.jsonl import iter_numbered
from latentcap.data.kinds import is_image
from latentcap.data.readers.captions import is_null
from latentcap.data.readers.fields import ID_COLUMNS, IMAGE_COLUMNS, Row
from latentcap.data.readers.paths import existing
from latentcap.data.readers.rows import iter_rows, load_json

FILE_COLUMNS = ("file", *(name for name in IMAGE_COLUMNS if name != "file"))
TEXT_SUFFIXES = (".caption", ".txt")  # a .caption beside a .txt is ours: the other one is what somebody wrote
_ESCAPED = re.compile(r"\\u(dc[89a-f][0-9a-f])")  # a byte of a name that is not UTF-8, in CSV and Parquet
ACCEPTED = (
    'Accepted: JSON Lines of {"file": "photo.jpg", "caption": "a red bridge"}, with "id" or "image_id" in place of or '
    "beside the file; CSV and Parquet with such columns; COCO's results (.json); a folder of Parquet parts, of tars, "
    "or of .txt or .caption files named as the images; a .tar."
)


@dataclass(frozen=True, slots=True)
class Caption:
    """One caption. ``line`` is its number in the source; ``place`` says where it is, if that is no line.

    ``file`` is a path as far as it is known; with ``stem`` it lacks the image's suffix, as text files do.
    """

    text: str
    file: str
    id: str
    line: int
    place: str = ""
    stem: bool = False

    def __str__(self) -> str:
        return f"{self.place or f'line {self.line}'} ({self.file or self.id})"


@dataclass(frozen=True, slots=True)
class Predictions:
    """The captions of one source, and what was left out of it, in words."""

    captions: list[Caption]
    notes: list[str] = field(default_factory=list)


def read_predictions(source: str | Path) -> Predictions:
    """Read captions from a file or folder. Raises UserError, with the line or row, for what is none.

    Records that hold an ``"error"`` and no caption stand for images that could not be read, and are left out, as are
    captions that are there twice word for word; ``notes`` counts them.
    """
    path = existing(source, "file of captions")
    notes: list[str] = []
    found = list(_of_folder(path, notes) if path.is_dir() else _of_file(path))
    captions: dict[tuple[str, str, str], Caption] = {}
    repeated: list[str] = []
    for caption in found:
        if isinstance(caption, Caption) and captions.setdefault(_content(caption), caption) is not caption:
            repeated.append(str(caption))
    failed = [name for name in found if isinstance(name, str)]
    if failed:
        notes.append(f"left out: {len(failed):,} images that could not be captioned: {some(failed)}")
    if repeated:
        notes.append(f"left out: {len(repeated):,} captions that repeat another, word for word: {some(repeated)}")
    if not captions:
        raise UserError(f"{path}: no captions in it. {ACCEPTED}")
    return Predictions(list(captions.values()), notes)


def some(names: Iterable[str], most: int = 3) -> str:
    """The first names of many, for a message."""
    listed = list(names)
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")


def _content(caption: Caption) -> tuple[str, str, str]:
    return caption.file, caption.id, caption.text


def _of_folder(folder: Path, notes: list[str]) -> Iterator[Caption | str]:
    if parts := sorted(folder.glob("*.parquet")) or sorted(folder.glob("data/*.parquet")):
        return (caption for part in parts for caption in _of_file(part))
    if tars := sorted(folder.rglob("*.tar")):
        return (caption for tar in tars for caption in _of_tar(tar, str(tar.relative_to(folder))))
    for suffix in TEXT_SUFFIXES:
        if texts := [path for path in _walk(folder) if path.suffix.lower() == suffix]:
            if suffix == ".caption" and any(path.suffix.lower() == ".txt" for path in _walk(folder)):
                notes.append("captions are those of the .caption files; .txt files beside them are left aside")
            return _of_texts(texts, folder)
    raise UserError(f"{folder}: no captions in it. {ACCEPTED}")


def _of_file(path: Path) -> Iterator[Caption | str]:
    suffix = path.suffix.lower()
    if suffix == ".tar":
        return _of_tar(path, path.name)
    if suffix in (".csv", ".tsv"):  # an empty cell is an empty caption there
        rows = ({**row, "caption": row.get("caption") or ""} if "caption" in row else row for row in iter_rows(path))
        return (_of_row(row, number, f"row {number}", path) for number, row in enumerate(rows, start=1))
    if suffix == ".parquet":
        return (_of_row(row, number, f"row {number}", path) for number, row in enumerate(iter_rows(path), start=1))
    if suffix == ".json" and not _is_json_lines(path):
        return _of_json(path)
    return (_of_row(row, number, f"line {number}", path) for number, row in iter_numbered(path))


def _of_row(row: Row, number: int, place: str, path: Path) -> Caption | str:
    """The caption of a row, or the name of an image that could not be captioned."""
    text = row.get("caption")
    file, id = (
        next((_text(row[name]) for name in names if not is_null(row.get(name))), "")
        for names in (FILE_COLUMNS, ID_COLUMNS)
    )
    file = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), file)
    if text is None and row.get("error") is not None:
        return file or id or place
    if not isinstance(text, str) or not (file or id):
        there = ", ".join(row) or "nothing"
        raise UserError(f"{path}, {place}: needs a caption, as text, and a file or id; has {there}. {ACCEPTED}")
    return Caption(text, file, id, number, place)


def _text(value: Any) -> str:
    """An id or path as text: ids are numbers in one file and text in another, and floats in tables with gaps."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _is_json_lines(path: Path) -> bool:
    """Whether a .json file holds several values, as ``--output captions.json`` writes."""
    try:
        json.loads(read_text(path))
    except json.JSONDecodeError as error:
        return error.msg == "Extra data"
    return False


def _of_json(path: Path) -> Iterator[Caption | str]:
    """A list of records, an object with such a list as ``annotations``, or an object of names and captions."""
    content = load_json(path)
    if isinstance(content, Mapping) and isinstance(content.get("annotations"), list):
        content = content["annotations"]
    if isinstance(content, Mapping) and "caption" not in content:
        content = [{"file": name, "id": name, "caption": _single(value)} for name, value in content.items()]
    for number, row in enumerate([content] if isinstance(content, Mapping) else content, start=1):
        if not isinstance(row, Mapping):
            raise UserError(f"{path}, entry {number}: no JSON object. {ACCEPTED}")
        yield _of_row(row, number, f"entry {number}", path)


def _single(value: Any) -> Any:
    """The caption of ``"a"``, ``["a"]`` or ``[{"caption": "a"}]``."""
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    return value.get("caption") if isinstance(value, Mapping) else value


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not name.endswith(".run"))
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def _of_texts(texts: list[Path], folder: Path) -> Iterator[Caption]:
    for number, path in enumerate(texts, start=1):
        name = str(path.relative_to(folder))
        yield Caption(_first_line(read_text(path)), os.path.splitext(name)[0], "", number, name, stem=True)


def _of_tar(path: Path, name: str) -> Iterator[Caption]:
    """``KEY.txt`` of each image; ``KEY.json`` may say what file it was packed from."""
    texts: dict[str, str] = {}
    records: dict[str, Any] = {}
    images: set[str] = set()
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                key, suffix = os.path.splitext(member.name.removeprefix("./"))
                if is_image(member.name):
                    images.add(key)
                elif member.isfile() and suffix.lower() in (".txt", ".json"):
                    content = decode(archive.extractfile(member).read(), f"{path}:{member.name}")  # type: ignore[union-attr]
                    (texts if suffix.lower() == ".txt" else records)[key] = content
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"{path}: not a complete, uncompressed tar ({error}).") from None
    for number, (key, text) in enumerate(
        ((key, text) for key, text in texts.items() if {key, f"{key}.0"} & images), start=1
    ):
        packed = _packed_from(records.get(key, ""), caption := _first_line(text))
        yield Caption(caption, packed or f"{name}/{key}", "", number, f"{name}:{key}.txt", stem=not packed)


def _packed_from(record: str, caption: str) -> str:
    """The file that a record of ours is of; "" for a record of somebody else, which may hold any caption."""
    try:
        found = json.loads(record) if record else {}
    except ValueError:
        return ""
    return str(found["file"]) if isinstance(found, dict) and "file" in found and found.get("caption") == caption else ""


def _first_line(text: str) -> str:
    """The best caption; the lines after it are the next best ones."""
    return next((line.strip() for line in text.split("\n") if line.strip()), "")
