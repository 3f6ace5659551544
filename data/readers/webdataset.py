"""WebDataset tars: ``KEY.jpg`` with ``KEY.txt`` or ``KEY.json``. Indexed once over the headers, never unpacked."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentcap.data.errors import UserError
from latentcap.data.example import Example, ImageRef
from latentcap.data.readers.fields import CAPTION_COLUMNS, ReadOptions, clean_text
from latentcap.data.readers.folders import caption_lines
from latentcap.data.readers.paths import is_image
from latentcap.data.readers.rows import columns_of
from latentcap.data.readers.splits import known_split, split_in_name


@dataclass
class _Sample:
    images: dict[str, ImageRef] = field(default_factory=dict)  # by suffix: "jpg", or "0.jpg", "1.jpg" for several views
    row: dict[str, Any] = field(default_factory=dict)
    text: str = ""


def read_webdataset(path: Path, options: ReadOptions) -> list[Example]:
    """One tar, or every tar of a folder or of the folders in it.

    The split of a sample is that in its JSON, else that of the folder or of the tar's name (``val-00000.tar``), else
    train. The captions are those in the JSON, else the lines of the text.
    """
    if not path.is_dir():
        return _read_tar(path, options, split_in_name(path.name))
    tars = find_tars(path)
    if not tars:
        raise UserError(f"{path}: no .tar file in it, nor in the folders in it.")
    examples: list[Example] = []
    for tar in tars:
        inside = known_split(tar.parent.name) if tar.parent != path else None
        examples += _read_tar(tar, options, inside or split_in_name(tar.name))
    return examples


def find_tars(folder: Path) -> list[Path]:
    """The tars in ``folder``, or else those in the folders in it."""
    return sorted(folder.glob("*.tar")) or sorted(folder.glob("*/*.tar"))


def _read_tar(path: Path, options: ReadOptions, split: str) -> list[Example]:
    samples = {key: sample for key, sample in _index(path).items() if sample.images}
    if not samples:
        raise UserError(
            f"{path}: no images in the tar. Looked for KEY.jpg, .jpeg, .png or .webp with KEY.txt or KEY.json."
        )
    columns_found = columns_of(sample.row for sample in samples.values())
    if options.fields.caption is None and not set(CAPTION_COLUMNS) & set(columns_found):
        for sample in samples.values():
            if sample.text:
                sample.row["captions"] = caption_lines(sample.text)
        columns_found = columns_of(sample.row for sample in samples.values())
    columns = options.fields.resolve(columns_found, str(path), with_image=False)
    return [
        columns.example(
            sample.row,
            id=(clean_text(sample.row.get(options.fields.id)) if options.fields.id else None) or key,
            images=tuple(sample.images[suffix] for suffix in sorted(sample.images)),
            default_split=split,
            where=f"{path}:{key}.json",
        )
        for key, sample in samples.items()
    ]


def _index(path: Path) -> dict[str, _Sample]:
    """Samples by key, in the order of the tar. Only headers and texts are read."""
    samples: dict[str, _Sample] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                folder, _, base = name.rpartition("/")
                stem, _, suffix = base.partition(".")
                if not (member.isfile() and stem):
                    continue
                sample = samples.setdefault(f"{folder}/{stem}" if folder else stem, _Sample())
                suffix = suffix.lower()
                if suffix in ("txt", "json"):
                    content = archive.extractfile(member).read().decode("utf-8-sig", errors="replace")  # type: ignore[union-attr]
                    if suffix == "txt":
                        sample.text = content
                    else:
                        sample.row = _parse(content, f"{path}:{name}")
                elif is_image(base) and suffix.rpartition(".")[0].isdigit() | ("." not in suffix):
                    sample.images[suffix] = ImageRef(str(path), offset=member.offset_data, size=member.size, name=name)
    except (tarfile.TarError, OSError) as error:
        raise UserError(
            f"{path}: not a complete, uncompressed tar ({error}). Copy or download it again; a compressed one has to "
            "be decompressed first, for its images to be read at random."
        ) from None
    return samples


def _parse(content: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(content)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON ({error.msg}, line {error.lineno}).") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: a {type(row).__name__}, where one JSON object is needed.")
    return row
