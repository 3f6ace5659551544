"""Folders of images: with a metadata table (``imagefolder``), or with a text beside every image (``sidecar``)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from latentcap.data.archives import Member
from latentcap.data.columns import each, with_field
from latentcap.data.errors import UserError
from latentcap.data.example import Example
from latentcap.data.image import ImageRef
from latentcap.data.kinds import is_image, may_be_image
from latentcap.data.readers.collect import joined
from latentcap.data.readers.fields import ReadOptions
from latentcap.data.readers.formats import Format
from latentcap.data.readers.samples import SUFFIXES, examples_of, group
from latentcap.data.readers.splits import known_split
from latentcap.data.readers.table import read_table
from latentcap.data.walk import files_below

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


def find_metadata(folder: Path) -> list[Path]:
    """The metadata table of the folder, or those of its split folders (train/, validation/, test/, ...)."""
    for name in METADATA:
        if (folder / name).is_file():
            return [folder / name]
    splits = sorted(child for child in folder.iterdir() if known_split(child.name) and child.is_dir())
    return [child / name for child in splits for name in METADATA if (child / name).is_file()]


def read_imagefolder(folder: Path, options: ReadOptions) -> Sequence[Example]:
    """Hugging Face's ImageFolder form: ``file_name`` is relative to the table's folder.

    The split is that of the split column, else of the folder that the image is in below ``folder``, else train.
    """
    tables = find_metadata(folder)
    if not tables:
        raise UserError(f"{folder}: no {' or '.join(METADATA)} in it, nor in folders train/, validation/, test/ in it.")

    def read(table: Path) -> Sequence[Example]:
        inside = known_split(table.parent.name) if table.parent != folder else None
        prefix = f"{table.parent.name}/" if table.parent != folder else ""
        examples = read_table(table, options, split=inside or "unstated", id_prefix=prefix)
        if inside or "unstated" not in each(examples, "split"):
            return examples
        root, known = options.image_root or folder, zip(each(examples, "split"), each(examples, "images"), strict=True)
        return with_field(
            examples,
            "split",
            [_split_of_path(images[0].path, root) if split == "unstated" else split for split, images in known],
        )

    examples = joined(map(read, tables), options.columns)
    name_unlisted(folder, examples, options, "no row of the metadata names it")
    return examples


def read_sidecar(folder: Path, options: ReadOptions) -> list[Example]:
    """Every image below ``folder``, with one caption a line of the .txt or .caption file of the same name, or with
    what its .json says: an unpacked WebDataset.

    An image without such a file has no captions. The split is that of the JSON, else of the first folder below
    ``folder``, else train.
    """
    samples = group((Member(name, ImageRef(os.path.join(folder, name))) for name in files_below(folder)), options)
    if not samples:
        raise UserError(f"{folder}: no images in it.")
    return examples_of(
        samples,
        options,
        where=str(folder),
        split=lambda key: _split_of_path(os.path.join(folder, key), folder),
        name=lambda key, sample: sample.images[0].name if len(sample.images) == 1 else key,
    )


def has_sidecars(folder: Path) -> bool:
    """Whether any image below ``folder`` has a text or JSON of the same name beside it."""
    texts: set[str] = set()
    keys: set[str] = set()
    for name in files_below(folder):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in SUFFIXES:
            texts.add(stem)
        elif is_image(name) or may_be_image(name):
            keys |= {stem, name, stem.rpartition(".")[0]}
    return bool(texts & keys)


def name_unlisted(folder: Path, examples: Sequence[Example], options: ReadOptions, reason: str) -> None:
    """Take down the images below a folder that are in no example."""
    listed = {os.path.realpath(image.path) for images in each(examples, "images") for image in images}
    for name in files_below(folder):
        if is_image(name) and os.path.realpath(os.path.join(folder, name)) not in listed:
            options.skip(name, reason)


def _split_of_path(path: str, root: Path) -> str:
    parts = os.path.relpath(path, root).split(os.sep)
    return (known_split(parts[0]) if len(parts) > 1 else None) or "train"


IMAGEFOLDER = Format(
    "imagefolder",
    read_imagefolder,
    find_metadata,
    kind="folder",
    looked_for=f"{', '.join(METADATA)} (here or in train/, validation/, test/)",
)
SIDECAR = Format(
    "sidecar",
    read_sidecar,
    has_sidecars,
    kind="folder",
    looked_for=f"a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file of the same name beside each image",
)
