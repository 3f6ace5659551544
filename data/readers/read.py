"""``read_examples``: finds out what a source is, and reads it."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from latentcap.data.columns import each, with_field
from latentcap.data.errors import UserError, did_you_mean
from latentcap.data.example import SEVERAL, Example
from latentcap.data.kinds import IMAGE_SUFFIXES, is_image, why_not_read
from latentcap.data.readers import flickr8k, folders, hub, huggingface, medical, webdataset
from latentcap.data.readers.annotations import COCO, KARPATHY, read_json
from latentcap.data.readers.collect import collect, joined
from latentcap.data.readers.delimited import find_separator
from latentcap.data.readers.fields import (
    CACHE,
    CAPTION_COLUMNS,
    FINDINGS,
    IMAGE_COLUMNS,
    WORDS,
    Fields,
    ReadOptions,
    Skipped,
)
from latentcap.data.readers.formats import Format
from latentcap.data.readers.medical.chexpert import findings_in
from latentcap.data.readers.paths import HUGGINGFACE_PREFIX, existing, expand_sources, shorten
from latentcap.data.readers.rows import TABLE_SUFFIXES
from latentcap.data.readers.splits import refuse_leaks, select_split
from latentcap.data.readers.table import read_table
from latentcap.data.report_text import TEXT_STYLES
from latentcap.data.walk import files_below
from latentcap.data.words import content_words

logger = logging.getLogger(__name__)

LABELLERS: dict[str, Callable[[Sequence[str]], str | None]] = {  # of captions; None: nothing is known
    FINDINGS: lambda captions: findings_in("\n".join(captions)) or None,
    WORDS: lambda captions: SEVERAL.join(sorted({*chain(*map(content_words, captions))})) if captions else None,
}

TABLE = Format(
    "table",
    lambda path, options: (read_json if path.suffix.lower() == ".json" else read_table)(path, options),
    kind="file",
)
FOLDERS = (  # in this order they are looked for
    *medical.FORMATS,
    huggingface.FORMAT,
    folders.IMAGEFOLDER,
    flickr8k.FORMAT,
    webdataset.FORMAT,
    folders.SIDECAR,  # before tables named by split, which training writes too (captions_val.jsonl)
    hub.FORMAT,
)
FORMATS = {form.name: form for form in (TABLE, COCO, KARPATHY, *FOLDERS[::-1])}
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib")
SHOWN_REASONS = 5


def read_examples(
    source: str | Path | Sequence[str | Path],
    *,
    format: str = "auto",
    image_root: str | Path | None = None,
    split: str | None = None,
    fields: Fields = Fields(),  # noqa: B008  (frozen)
    allow_leaks: bool = False,
    skipped: list[Skipped] | None = None,
    cache_dir: str | Path = CACHE,
) -> Sequence[Example]:
    """Read a data set, or several one after the other, without opening an image.

    Args:
        source: a file or folder, ``hf:NAME``, a pattern (``x-{00000..00009}.tar``, ``*.tar``), or several: as a
            list, or in one text with commas or spaces between them.
        format: ``auto``, or one of :data:`FORMATS` to force it.
        image_root: the folder that image paths are relative to; by default that of the table.
        split: ``train``, ``val`` or ``test`` (or another usual name of one) to read only that.
        fields: the names of the columns, and how reports are read.
        allow_leaks: read data with a patient or case in two splits, to look at it.
        cache_dir: where data of many examples are kept as columns, so that the next call need not read them again.
        skipped: a list that takes what was seen and is in no example. By default the log says how much that is.

    Returns:
        A list, or, of more than some thousands, :class:`~latentcap.data.columns.ExampleColumns`: examples in the order
        of the source, with ids that are unique: a repeated one gets ``#2``, ``#3``.

    Raises:
        UserError: anything in the source that cannot be read, with what is accepted, and a patient or case that is in
            two splits. Images that do not exist are no error here; ``latentcap.data.check.examples`` reports them.
    """
    if format != "auto" and format not in FORMATS:
        raise UserError(
            f"unknown data format '{format}'.{did_you_mean(format, FORMATS)} Formats: auto, {', '.join(FORMATS)}."
        )
    root = existing(image_root, "image root") if image_root else None
    options = ReadOptions(fields, root, Path(cache_dir).expanduser())
    paths = expand_sources(source)
    examples = joined((_read_one(path, format, options) for path in paths), options.columns)
    where = shorten(", ".join(paths))
    if skipped is None:
        _log(options.skipped, where)
    else:
        skipped += options.skipped
    if not allow_leaks:
        refuse_leaks(examples, where=where)
    return select_split(_with_unique_ids(examples), split, where)


def _read_one(source: str, format: str, options: ReadOptions) -> Sequence[Example]:
    if source.startswith(HUGGINGFACE_PREFIX):
        return huggingface.read_huggingface(source, options)
    path = existing(source)
    if path.suffix.lower() in PICKLES and path.is_file():
        raise UserError(
            f"{path}: a pickle can run any code when it is opened, so it is never read as data. "
            "Write the rows as JSON Lines, CSV or Parquet."
        )
    form = FORMATS[format] if format != "auto" else _form_of_folder(path) if path.is_dir() else _form_of_file(path)
    if form.kind and (form.kind == "folder") != path.is_dir():
        found = "folder" if path.is_dir() else "file"
        raise UserError(f"{path}: a {found}, where the format '{form.name}' needs a {form.kind}.")
    examples = form.read(path, options)
    if told := LABELLERS.keys() & options.fields.labels:
        examples = collect((_with_labels(example, told) for example in examples), options.columns)
    if frame := options.fields.frame:
        examples = collect((_of_frame(example, frame) for example in examples), options.columns)
    style = options.fields.text_style or ("clean" if form.medical else None)
    return collect((_in_style(example, style) for example in examples), options.columns) if style else examples


def _with_labels(example: Example, names: Collection[str]) -> Example:
    """The labels of :data:`LABELLERS`, read from the captions; findings where the data has none of its own."""
    wanted = [name for name in names if name != FINDINGS or FINDINGS not in example.labels]
    found = {name: label for name in wanted if (label := LABELLERS[name](example.captions)) is not None}
    return dataclasses.replace(example, labels={**example.labels, **found}) if found else example


def _of_frame(example: Example, frame: str) -> Example:
    return dataclasses.replace(
        example, images=tuple(dataclasses.replace(image, frame=frame) for image in example.images)
    )


def _in_style(example: Example, style: str) -> Example:
    """The captions cleaned. Context, which is never scored, is what the reader made of it."""
    captions, paraphrases = (tuple(map(TEXT_STYLES[style], texts)) for texts in (example.captions, example.paraphrases))
    return dataclasses.replace(example, captions=captions, paraphrases=paraphrases)


def _form_of_file(path: Path) -> Format:
    suffix = path.suffix.lower()
    if medical.indiana.is_indiana(path):
        return medical.indiana.FORMAT
    if medical.openi_index.is_openi_index(path):
        return medical.openi_index.FORMAT
    if suffix == ".jsonl" and medical.medpix.find_descriptions(path):
        return medical.medpix.FORMAT
    if suffix in (*TABLE_SUFFIXES, ".json"):
        return TABLE
    if suffix == ".tar":
        return webdataset.FORMAT
    if suffix == ".txt" and flickr8k.find_token_file(path):
        return flickr8k.FORMAT
    if suffix == ".txt" and _has_header(path):
        return TABLE
    if reason := why_not_read(path.name):
        raise UserError(f"{path}: {reason}.")
    if is_image(path.name):
        raise UserError(f"{path}: an image alone has no captions. Give the folder or table that holds both.")
    raise UserError(
        f"{path}: not a data set that is known. Accepted files: {', '.join(TABLE_SUFFIXES)}, .json (rows, COCO or "
        f"Karpathy), .tar (WebDataset), Flickr8k's {' or '.join(flickr8k.TOKEN_FILES)}; or a folder."
    )


def _has_header(path: Path) -> bool:
    """Whether the first line of a text names a column of images and one of captions."""
    separator, _ = find_separator(path)
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        names = {name.strip().strip('"').lower() for name in file.readline().split(separator)}
    return bool(names & set(IMAGE_COLUMNS)) and bool(names & set(CAPTION_COLUMNS))


def _listed(folder: Path) -> list[str]:
    """Names in a folder; none where it may not be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _form_of_folder(folder: Path) -> Format:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}).") from None
    if not names:
        raise UserError(f"{folder}: the folder is empty.")
    for form in FOLDERS:
        if form.found(folder):
            return form
    looked = "; ".join(form.looked_for for form in (*FOLDERS[len(medical.FORMATS) :], *medical.FORMATS))
    below = (f"{name}/{file}" for name in names if (folder / name).is_dir() for file in sorted(_listed(folder / name)))
    tables = [name for name in (*names, *below) if name.lower().endswith((*TABLE_SUFFIXES, ".json"))]
    hint = f" If one of these is the table of captions, give its path: {', '.join(tables[:5])}." if tables else ""
    images = sum(map(is_image, files_below(folder)))
    if not images:
        raise UserError(
            f"{folder}: no images ({', '.join(sorted(IMAGE_SUFFIXES))}) and no data set in it.{hint} "
            f"Looked for: {looked}."
        )
    raise UserError(f"{folder}: {images:,} images but no captions in a form that is known.{hint} Looked for: {looked}.")


def _with_unique_ids(examples: Sequence[Example]) -> Sequence[Example]:
    hashes = np.fromiter(map(hash, each(examples, "id")), np.int64, len(examples))
    if len(np.unique(hashes)) == len(examples):  # a tenth of the memory that the ids themselves would take
        return examples
    seen: Counter[str] = Counter()

    def unique(id: str) -> str:
        seen[id] += 1
        return f"{id}#{seen[id]}" if seen[id] > 1 else id

    return with_field(examples, "id", list(map(unique, each(examples, "id"))))


def _log(skipped: Sequence[Skipped], where: str) -> None:
    """Say how much was skipped, by reason, with an example of each."""
    faults = [item for item in skipped if not item.expected]
    if not faults:
        return
    first: dict[str, Skipped] = {}
    for item in faults:
        first.setdefault(item.reason, item)
    counts = Counter(item.reason for item in faults).most_common(SHOWN_REASONS)
    told = "; ".join(f"{count:,} ({first[reason].name}, ...): {reason}" for reason, count in counts)
    more = f"; and for {len(first) - SHOWN_REASONS} more reasons" if len(first) > SHOWN_REASONS else ""
    logger.warning("%s: %s skipped: %s%s. 'latentcap prepare check' names all.", where, f"{len(faults):,}", told, more)
