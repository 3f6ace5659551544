"""Indiana University chest X-rays as Kaggle carries them: ``indiana_reports.csv``, ``indiana_projections.csv``, images.

One example a report (``uid``), with its first frontal and its first lateral image. Context: indication and exam; age
and sex where the indication says them; labels ``normality`` and ``problems``, by MeSH terms. The set has no official
split. Where R2Gen's ``annotation.json`` lies beside the tables its split is taken, and studies that it leaves out are
train; else a hash of the uid decides: 70 % train, 10 % val, 20 % test, the same everywhere and for ever.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from pathlib import Path

from latentcap.data.errors import UserError
from latentcap.data.example import SEVERAL, Example, ImageRef
from latentcap.data.kinds import is_image
from latentcap.data.readers.fields import ReadOptions, Row, clean_text
from latentcap.data.readers.formats import Format
from latentcap.data.readers.medical.patient import age_in_text, sex_in_text
from latentcap.data.readers.medical.study import context_of, known, one_of_each_view, report_of
from latentcap.data.readers.rows import columns_of, load_json, load_rows
from latentcap.data.readers.splits import normalise_split

REPORTS, PROJECTIONS, ANNOTATION = "indiana_reports.csv", "indiana_projections.csv", "annotation.json"
NEEDED = {REPORTS: ("uid", "findings", "impression"), PROJECTIONS: ("uid", "filename", "projection")}
_STEM = re.compile(r"\d+_IM-\d+(?:-\d+)*")  # of 1_IM-0001-4001.dcm.png, as of Open-i's CXR1_1_IM-0001-4001.png


def is_indiana(path: Path) -> bool:
    """Whether ``path`` is the folder of the two tables, or one of them."""
    folder = path if path.is_dir() else path.parent
    return (path.is_dir() or path.name in NEEDED) and all((folder / name).is_file() for name in NEEDED)


def read_indiana(path: Path, options: ReadOptions) -> list[Example]:
    """Every report that has an image. Raises UserError where a table or a column of it is missing."""
    folder = path if path.is_dir() else path.parent
    reports, projections = (_table(folder / name, columns) for name, columns in NEEDED.items())
    files = index_images(options.image_root or folder)
    views: dict[str, list[tuple[str, ImageRef]]] = defaultdict(list)
    for row in projections:
        name = str(row["filename"])
        file = files.get(image_key(name)) or os.path.join(options.image_root or folder, name)
        views[str(row["uid"])].append((str(row["projection"]).lower(), ImageRef(file)))
    splits = _splits_of_r2gen(folder / ANNOTATION)
    examples = []
    for row in reports:
        uid = str(row["uid"])
        if views.get(uid):
            split = splits.get(uid, "train") if splits else hashed_split(uid)
            examples.append(_example(row, views[uid], split, options.fields.report))
        else:
            options.skip(f"CXR{uid}", "a report without an image", expected=True)
    return examples


def _example(row: Row, images: list[tuple[str, ImageRef]], split: str, target: str) -> Example:
    refs, views = one_of_each_view(images)
    indication = clean_text(row.get("indication"))
    return Example(
        id=f"CXR{row['uid']}",
        images=refs,
        views=views,
        captions=report_of({name: clean_text(row.get(name)) for name in ("findings", "impression")}, target),
        context=context_of(indication=indication, exam=clean_text(row.get("image"))),
        numbers={"age": age_in_text(indication)},
        categories={"sex": sex_in_text(indication)},
        split=split,
        labels=labels_of(known(clean_text(row.get("Problems")))),
        group=f"CXR{row['uid']}",
    )


def labels_of(problems: str | None) -> dict[str, str]:
    """The labels by the set's MeSH terms, "Opacity;Scar": ``problems``, all of them in lower case, and ``normality``,
    ``normal`` where that is the only term, else ``abnormal``. None for a report without terms."""
    if problems is None or problems.lower() == "no indexing":
        return {}
    terms = SEVERAL.join(term for part in problems.lower().split(SEVERAL) if (term := part.strip()))
    return {"normality": "normal" if terms == "normal" else "abnormal", "problems": terms}


def hashed_split(key: str) -> str:
    """A split by nothing but the key's SHA-256: 70 % train, 10 % val, 20 % test."""
    share = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") / 2**32
    return "train" if share < 0.7 else "val" if share < 0.8 else "test"


def index_images(root: Path) -> dict[str, str]:
    """Paths of all images below ``root`` by the name that the Kaggle and Open-i releases share."""
    return {
        image_key(name): os.path.join(place, name)
        for place, _, names in os.walk(root)
        for name in sorted(names)
        if is_image(name)
    }


def image_key(name: str) -> str:
    """``CXR1_1_IM-0001-4001.png`` and ``1_IM-0001-4001.dcm.png`` to ``1_IM-0001-4001``."""
    match = _STEM.search(name)
    return match[0] if match else name


def _table(file: Path, columns: tuple[str, ...]) -> list[Row]:
    if not file.is_file():
        raise UserError(f"{file} is missing: the Indiana data need {' and '.join(NEEDED)} in one folder.")
    rows = load_rows(file)
    found = columns_of(rows)
    lacking = [column for column in columns if column not in found]
    if lacking:
        raise UserError(f"{file}: no column {', '.join(lacking)}. Columns found: {', '.join(found)}.")
    return rows


def _splits_of_r2gen(file: Path) -> dict[str, str]:
    """uid to split, by ids such as ``CXR2384_IM-0942``; empty without the file."""
    if not file.is_file():
        return {}
    content = load_json(file)
    if not isinstance(content, dict):
        raise UserError(f"{file}: not R2Gen's annotation: an object of train, val and test is needed.")
    return {
        str(row.get("id", "")).removeprefix("CXR").partition("_")[0]: normalise_split(split, str(file))
        for split, rows in content.items()
        for row in rows
    }


FORMAT = Format(
    "indiana", read_indiana, is_indiana, kind="", looked_for="the Indiana chest X-rays (Kaggle's CSV)", medical=True
)
