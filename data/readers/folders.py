"""Folders of images: with a metadata table (``imagefolder``), or with a text file beside every image (``sidecar``)."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from latentcap.data.encoding import read_text
from latentcap.data.errors import UserError
from latentcap.data.example import Example, ImageRef
from latentcap.data.readers.fields import ReadOptions
from latentcap.data.readers.paths import is_image
from latentcap.data.readers.splits import known_split
from latentcap.data.readers.table import read_table

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
SIDECARS = (".txt", ".caption")


def find_metadata(folder: Path) -> list[Path]:
    """The metadata table of the folder, or those of its split folders (train/, validation/, test/, ...)."""
    for name in METADATA:
        if (folder / name).is_file():
            return [folder / name]
    splits = sorted(child for child in folder.iterdir() if known_split(child.name) and child.is_dir())
    return [child / name for child in splits for name in METADATA if (child / name).is_file()]


def read_imagefolder(folder: Path, options: ReadOptions) -> list[Example]:
    """Hugging Face's ImageFolder form: ``file_name`` is relative to the table's folder.

    The split is that of the split column, else of the folder that the image is in below ``folder``, else train.
    """
    tables = find_metadata(folder)
    if not tables:
        raise UserError(f"{folder}: no {' or '.join(METADATA)} in it, nor in folders train/, validation/, test/ in it.")
    examples: list[Example] = []
    for table in tables:
        inside = known_split(table.parent.name) if table.parent != folder else None
        prefix = f"{table.parent.name}/" if table.parent != folder else ""
        read = read_table(table, options, split=inside or "unstated", id_prefix=prefix)
        root = options.image_root or folder
        examples += [
            dataclasses.replace(e, split=_split_of_path(e.images[0].path, root)) if e.split == "unstated" else e
            for e in read
        ]
    return examples


def read_sidecar(folder: Path, options: ReadOptions) -> list[Example]:
    """Every image below ``folder``, with one caption a non-empty line of the .txt or .caption file of the same stem.

    An image without such a file has no captions. The split is that of the first folder below ``folder``, else train.
    """
    examples: list[Example] = []
    found = False
    for place, folders, names in os.walk(folder):
        folders.sort()
        present = set(names)
        for name in sorted(filter(is_image, names)):
            stem = os.path.splitext(name)[0]
            sidecar = next((stem + suffix for suffix in SIDECARS if stem + suffix in present), None)
            found = found or sidecar is not None
            path = os.path.join(place, name)
            examples.append(
                Example(
                    id=os.path.relpath(path, folder),
                    images=(ImageRef(path),),
                    captions=caption_lines(read_text(Path(place, sidecar))) if sidecar else (),
                    split=_split_of_path(path, folder),
                )
            )
    if not found and options.fields.caption != "":
        raise UserError(f"{folder}: no image in it has a text file of the same name ({', '.join(SIDECARS)}) beside it.")
    return examples


def caption_lines(text: str) -> tuple[str, ...]:
    """One caption for every line that is not blank."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _split_of_path(path: str, root: Path) -> str:
    parts = os.path.relpath(path, root).split(os.sep)
    return (known_split(parts[0]) if len(parts) > 1 else None) or "train"
