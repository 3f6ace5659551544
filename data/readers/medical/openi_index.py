"""Open-i's chest X-rays as one image a line: ``index_*.jsonl`` beside ``images_*.tar``, and R2Gen's annotation of them.

An index row has ``image`` (a name in the tar), ``uid``, ``projection``, ``findings``, ``impression``, ``indication``,
``comparison`` and ``problems``. Two files can be read:

- R2Gen's annotation (Chen et al., EMNLP 2020), ``{"train": [{"id", "report", "image_path": [...]}], ...}``, whose
  images are in those tars: an example a study, in R2Gen's split. What else is known of a study comes from the indices.
- an index: an example a study. A study outside R2Gen's split has no captions: it may teach findings, and its
  reports stay out of comparisons with published numbers.

Context: indication and comparison; age and sex where the indication says them. Labels: ``findings`` (the CheXpert
observations that the rules find in findings and impression; doubt counts), ``problems`` (the set's own MeSH terms) and
``normality``.

Where R2Gen's own ``annotation.json`` lies beside them, a study of its test split that is called anything else is an
error.
"""

from __future__ import annotations

import tarfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from latentcap.data.errors import UserError
from latentcap.data.example import Example, ImageRef
from latentcap.data.readers.captions import to_captions
from latentcap.data.readers.fields import ReadOptions, Row, clean_text
from latentcap.data.readers.formats import Format
from latentcap.data.readers.medical.chexpert import findings_in
from latentcap.data.readers.medical.indiana import ANNOTATION, labels_of
from latentcap.data.readers.medical.patient import age_in_text, sex_in_text
from latentcap.data.readers.medical.study import context_of, known, one_of_each_view, report_of
from latentcap.data.readers.rows import load_json, load_rows
from latentcap.data.readers.splits import normalise_split

INDEX, IMAGES = "index_", "images_"
NEEDED = ("image", "uid", "projection", "findings", "impression", "indication", "comparison", "problems")


def is_openi_index(path: Path) -> bool:
    """Whether ``path`` is an index with its tar, or an annotation whose images are in such tars."""
    if path.suffix == ".jsonl":
        return path.name.startswith(INDEX) and tar_of(path).is_file()
    indices = find_indices(path.parent) if path.suffix == ".json" else []
    if not indices:
        return False
    name = _first_image(load_json(path))
    return name is not None and any(row.get("image") == name for index in indices for row in load_rows(index))


def find_indices(folder: Path) -> list[Path]:
    """The indices in a folder that have their tar."""
    return [path for path in sorted(folder.glob(f"{INDEX}*.jsonl")) if tar_of(path).is_file()]


def tar_of(index: Path) -> Path:
    """``index_train.jsonl`` to ``images_train.tar``."""
    return index.with_name(IMAGES + index.stem.removeprefix(INDEX) + ".tar")


def read_openi_index(path: Path, options: ReadOptions) -> list[Example]:
    """The studies of an index or of an annotation.

    Raises:
        UserError: a table lacks a column, an image is in no tar, or a test study is in another split.
    """
    if path.suffix == ".jsonl":
        examples = _by_study(path, options.fields.report)
    else:
        examples = _annotated(path, options.fields.report)
    _refuse_test_studies(examples, path)
    return examples


def _annotated(path: Path, target: str) -> list[Example]:
    content = load_json(path)
    rows: dict[str, Row] = {}
    images: dict[str, ImageRef] = {}
    for index in find_indices(path.parent):
        found = _rows(index)
        rows |= {str(row["image"]): row for row in found}
        images |= _members(tar_of(index))
    examples = []
    for split, studies in content.items():
        for study in studies:
            try:
                id, names, report = str(study["id"]), list(study["image_path"]), study["report"]
            except KeyError as error:
                raise UserError(f"{path}, '{split}': a study without {error}.") from None
            lacking = [name for name in names if name not in images or name not in rows]
            if lacking or not names:
                what = f"the image '{lacking[0]}' is in no {INDEX}*.jsonl or no {IMAGES}*.tar" if names else "no image"
                raise UserError(f"{path}, study {id}: {what}.")
            captions = to_captions(report) if target == "findings" else _captions(rows[names[0]], target)
            views = [(str(rows[name]["projection"]).lower(), images[name]) for name in names]
            examples.append(_example(rows[names[0]], id, views, captions, normalise_split(split, str(path))))
    return examples


def _by_study(path: Path, target: str) -> list[Example]:
    images = _members(tar_of(path))
    studies: dict[str, list[Row]] = defaultdict(list)
    for row in _rows(path):
        studies[str(row["uid"])].append(row)
    examples = []
    for uid, rows in studies.items():
        first = rows[0]
        lacking = [row["image"] for row in rows if row["image"] not in images]
        if lacking:
            raise UserError(f"{path}, study {uid}: the image '{lacking[0]}' is not in {tar_of(path).name}.")
        split = clean_text(first.get("r2gen_split"))
        refs, names = one_of_each_view((str(row["projection"]).lower(), images[row["image"]]) for row in rows)
        views = list(zip(names, refs, strict=True))
        id = clean_text(first.get("r2gen_id")) or f"CXR{uid}"
        captions = _captions(first, target) if split else ()
        examples.append(_example(first, id, views, captions, normalise_split(split, str(path)) if split else "train"))
    return examples


def _example(
    row: Row, id: str, views: Iterable[tuple[str, ImageRef]], captions: tuple[str, ...], split: str
) -> Example:
    names, refs = zip(*views, strict=True)
    indication = clean_text(row["indication"])
    labels = labels_of(known(clean_text(row["problems"])))
    if found := findings_in(f"{row['findings'] or ''}\n{row['impression'] or ''}"):
        labels["findings"] = found
    return Example(
        id=id,
        images=refs,
        views=names,
        captions=captions,
        context=context_of(indication=indication, comparison=clean_text(row["comparison"])),
        numbers={"age": age_in_text(indication)},
        categories={"sex": sex_in_text(indication)},
        split=split,
        labels=labels,
        group=f"CXR{row['uid']}",
    )


def _captions(row: Row, target: str) -> tuple[str, ...]:
    return report_of({name: clean_text(row[name]) for name in ("findings", "impression")}, target)


def _rows(index: Path) -> list[Row]:
    rows = load_rows(index)
    lacking = [name for name in NEEDED if name not in rows[0]]
    if lacking:
        raise UserError(f"{index}: no column {', '.join(lacking)}. Columns found: {', '.join(rows[0])}.")
    return rows


def _members(tar: Path) -> dict[str, ImageRef]:
    """The images of a tar by name: where their bytes are, read from the headers alone."""
    try:
        with tarfile.open(tar, "r:") as archive:
            return {
                member.name.removeprefix("./"): ImageRef(
                    str(tar), offset=member.offset_data, size=member.size, name=member.name.removeprefix("./")
                )
                for member in archive
                if member.isfile()
            }
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"{tar}: not a complete, uncompressed tar ({error}). Copy it again.") from None


def _refuse_test_studies(examples: Iterable[Example], path: Path) -> None:
    file = path.with_name(ANNOTATION)
    if not file.is_file():
        return
    content: Mapping[str, Any] = load_json(file)
    test = {"CXR" + str(row["id"]).removeprefix("CXR").partition("_")[0] for row in content.get("test", ())}
    wrong = [example for example in examples if example.group in test and example.split != "test"]
    if wrong:
        raise UserError(
            f"{path}: {len(wrong):,} studies of R2Gen's test split are in another split here, first {wrong[0].id} "
            f"({wrong[0].split}). A model that has read them cannot be measured on them: take them out."
        )


def _first_image(content: Any) -> str | None:
    """The first image of R2Gen's form, None where it is another one."""
    rows = next(iter(content.values()), None) if isinstance(content, dict) else None
    first = rows[0] if isinstance(rows, list) and rows else None
    names = first.get("image_path") if isinstance(first, dict) and "report" in first else None
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None


FORMAT = Format(
    "openi-index",
    read_openi_index,
    kind="file",
    looked_for="Open-i's index_*.jsonl beside images_*.tar",
    medical=True,
)
