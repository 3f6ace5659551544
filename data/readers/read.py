"""``read_examples``: finds out what a source is, and reads it."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from latentcap.data.errors import UserError, did_you_mean
from latentcap.data.example import Example
from latentcap.data.readers.annotations import read_json
from latentcap.data.readers.fields import Fields, ReadOptions
from latentcap.data.readers.flickr8k import TOKEN_FILES, find_token_file, read_flickr8k
from latentcap.data.readers.folders import METADATA, SIDECARS, find_metadata, read_imagefolder, read_sidecar
from latentcap.data.readers.huggingface import is_saved_dataset, read_huggingface
from latentcap.data.readers.medical.indiana import is_indiana, read_indiana
from latentcap.data.readers.medical.medpix import find_descriptions, read_medpix
from latentcap.data.readers.medical.mimic import is_mimic, read_mimic
from latentcap.data.readers.medical.openi import find_reports, read_openi
from latentcap.data.readers.paths import HUGGINGFACE_PREFIX, IMAGE_SUFFIXES, existing, expand_sources, is_image, shorten
from latentcap.data.readers.rows import TABLE_SUFFIXES
from latentcap.data.readers.splits import refuse_leaks, select_split
from latentcap.data.readers.table import read_table
from latentcap.data.readers.webdataset import find_tars, read_webdataset
from latentcap.data.report_text import TEXT_STYLES

Reader = Callable[[Path, ReadOptions], list[Example]]
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib")


def read_examples(
    source: str | Path | Sequence[str | Path],
    *,
    format: str = "auto",
    image_root: str | Path | None = None,
    split: str | None = None,
    fields: Fields = Fields(),  # noqa: B008  (frozen)
    allow_leaks: bool = False,
) -> list[Example]:
    """Read a data set, or several one after the other, without opening an image.

    Args:
        source: a file or folder, ``hf:NAME``, a pattern (``x-{00000..00009}.tar``, ``*.tar``), or several: as a
            list, or in one text with commas or spaces between them.
        format: ``auto``, or one of :data:`FORMATS` to force it.
        image_root: the folder that image paths are relative to; by default that of the table.
        split: ``train``, ``val`` or ``test`` (or another usual name of one) to read only that.
        fields: the names of the columns, and how reports are read.
        allow_leaks: read data with a patient or case in two splits, to look at it.

    Returns:
        Examples in the order of the source, with ids that are unique in the list: a repeated one gets ``#2``, ``#3``.

    Raises:
        UserError: anything in the source that cannot be read, with what is accepted, and a patient or case that is in
            two splits. Images that do not exist are no error here; ``latentcap.data.check.examples`` reports them.
    """
    if format != "auto" and format not in FORMATS:
        raise UserError(
            f"unknown data format '{format}'.{did_you_mean(format, FORMATS)} Formats: auto, {', '.join(FORMATS)}."
        )
    options = ReadOptions(fields, existing(image_root, "image root") if image_root else None)
    paths = expand_sources(source)
    examples = [example for path in paths for example in _read_one(path, format, options)]
    where = shorten(", ".join(paths))
    if not allow_leaks:
        refuse_leaks(examples, where)
    return select_split(_with_unique_ids(examples), split, where)


def _read_one(source: str, format: str, options: ReadOptions) -> list[Example]:
    if source.startswith(HUGGINGFACE_PREFIX):
        return read_huggingface(source, options)
    path = Path(source)
    if path.suffix.lower() in PICKLES and path.is_file():
        raise UserError(
            f"{path}: a pickle can run any code when it is opened, so it is never read as data. "
            "Write the rows as JSON Lines, CSV or Parquet."
        )
    _expect_kind(path, format)
    reader = FORMATS[format] if format != "auto" else _detect_folder(path) if path.is_dir() else _detect_file(path)
    examples = reader(path, options)
    style = options.fields.text_style or ("clean" if reader in MEDICAL else None)
    return [_in_style(example, style) for example in examples] if style else examples


def _in_style(example: Example, style: str) -> Example:
    """The captions cleaned. Context, which is never scored, is what the reader made of it."""
    captions, paraphrases = (tuple(map(TEXT_STYLES[style], texts)) for texts in (example.captions, example.paraphrases))
    return dataclasses.replace(example, captions=captions, paraphrases=paraphrases)


def _expect_kind(path: Path, format: str) -> None:
    """Raises UserError where the forced format is one of folders and the path is a file, or the other way round."""
    folders = ("imagefolder", "sidecar", "huggingface", "mimic-cxr")
    if format in folders and not path.is_dir():
        raise UserError(f"{path}: a file, where the format '{format}' needs a folder.")
    if format in ("table", "coco", "karpathy") and path.is_dir():
        raise UserError(f"{path}: a folder, where the format '{format}' needs a file.")


def _detect_file(path: Path) -> Reader:
    suffix = path.suffix.lower()
    if is_indiana(path):
        return read_indiana
    if suffix == ".jsonl" and find_descriptions(path):
        return read_medpix
    if suffix in TABLE_SUFFIXES:
        return read_table
    if suffix == ".json":
        return read_json
    if suffix == ".tar":
        return read_webdataset
    if suffix == ".txt" and find_token_file(path):
        return read_flickr8k
    if path.name.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip")):
        raise UserError(f"{path}: compressed archives are not read. Unpack it; a plain .tar may stay as it is.")
    if is_image(path.name):
        raise UserError(f"{path}: an image alone has no captions. Give the folder or table that holds both.")
    raise UserError(
        f"{path}: not a data set that is known. Accepted files: {', '.join(TABLE_SUFFIXES)}, .json "
        f"(rows, COCO or Karpathy), .tar (WebDataset), Flickr8k's {' or '.join(TOKEN_FILES)}; or a folder."
    )


def _detect_folder(folder: Path) -> Reader:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}).") from None
    if not names:
        raise UserError(f"{folder}: the folder is empty.")
    for found, reader in MEDICAL_FOLDERS:
        if found(folder):
            return reader
    if is_saved_dataset(folder):
        return read_huggingface
    if find_metadata(folder):
        return read_imagefolder
    if find_token_file(folder):
        return read_flickr8k
    if find_tars(folder):
        return read_webdataset
    images = 0
    for _, _, files in os.walk(folder):
        present = set(files)
        for name in filter(is_image, files):
            if any(os.path.splitext(name)[0] + suffix in present for suffix in SIDECARS):
                return read_sidecar
            images += 1
    looked = (
        f"{', '.join(METADATA)} (here or in train/, validation/, test/); a {' or '.join(SIDECARS)} file of the same "
        f"name beside each image; {' or '.join(TOKEN_FILES)} (Flickr8k); .tar files (WebDataset); "
        "a saved Hugging Face data set; MedPix 2.0, the Indiana chest X-rays (Kaggle's CSV or Open-i's XML), MIMIC-CXR"
    )
    tables = [name for name in names if name.lower().endswith((*TABLE_SUFFIXES, ".json"))]
    hint = f" If one of these is the table of captions, give its path: {', '.join(tables[:5])}." if tables else ""
    if not images:
        raise UserError(
            f"{folder}: no images ({', '.join(sorted(IMAGE_SUFFIXES))}) and no data set in it.{hint} "
            f"Looked for: {looked}."
        )
    raise UserError(f"{folder}: {images:,} images but no captions in a form that is known.{hint} Looked for: {looked}.")


def _with_unique_ids(examples: Sequence[Example]) -> list[Example]:
    seen: Counter[str] = Counter()
    unique = []
    for example in examples:
        seen[example.id] += 1
        count = seen[example.id]
        unique.append(dataclasses.replace(example, id=f"{example.id}#{count}") if count > 1 else example)
    return unique


MEDICAL_FOLDERS: tuple[tuple[Callable[[Path], object], Reader], ...] = (
    (is_mimic, read_mimic),
    (is_indiana, read_indiana),
    (find_descriptions, read_medpix),
    (find_reports, read_openi),
)
MEDICAL = tuple(reader for _, reader in MEDICAL_FOLDERS)

FORMATS: dict[str, Reader] = {
    "imagefolder": read_imagefolder,
    "sidecar": read_sidecar,
    "table": lambda path, options: (read_json if path.suffix.lower() == ".json" else read_table)(path, options),
    "coco": partial(read_json, format="coco"),
    "karpathy": partial(read_json, format="karpathy"),
    "flickr8k": read_flickr8k,
    "webdataset": read_webdataset,
    "huggingface": read_huggingface,
    "indiana": read_indiana,
    "openi": read_openi,
    "mimic-cxr": read_mimic,
    "medpix": read_medpix,
}
