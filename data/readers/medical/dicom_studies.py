"""DICOM files as they come from a PACS or on a CD, grouped into studies; and such a folder with a table of reports.

    anything/below/the/folder     DICOM, with or without suffix; DICOMDIR and what else lies on a medium is passed over
    reports.csv                   (or .jsonl, .tsv, .parquet) a row a study: its StudyInstanceUID and its report

The column of the UID is ``study``, ``study_uid``, ``study_instance_uid`` or ``StudyInstanceUID``; the report is in a
caption column, or in ``findings`` and ``impression``. All other columns are those of any table. One example a study:
its first frontal and its first lateral image.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from latentcap.data.dicom_header import Header, read_header
from latentcap.data.errors import UserError
from latentcap.data.example import Example, ImageRef
from latentcap.data.kinds import DICOM_SUFFIXES, may_be_image, suffix_of
from latentcap.data.readers.fields import CAPTION_COLUMNS, ReadOptions, Row, clean_text
from latentcap.data.readers.formats import Format
from latentcap.data.readers.medical.study import one_of_each_view, report_of
from latentcap.data.readers.rows import TABLE_SUFFIXES, columns_of, iter_rows, load_rows
from latentcap.data.walk import files_below

REPORTS = "reports"
STUDY_COLUMNS = ("study", "study_uid", "study_instance_uid", "StudyInstanceUID")
SECTIONS = ("findings", "impression")
VIEWS_OF_STUDY = 2  # a frontal and a lateral, or what comes first where no header says which is which
NO_IMAGE = "a DICOM file without an image (a report, a structure or a directory)"


class Study(NamedTuple):
    """The images of a study that are read, the names of their views ("" for none), and the others, each with why."""

    images: tuple[ImageRef, ...]
    views: tuple[str, ...]
    left_out: tuple[tuple[ImageRef, str], ...]


def study_of(files: Iterable[tuple[Header, ImageRef]], most: int = VIEWS_OF_STUDY) -> Study:
    """Of the images of a study at most ``most``: one of each view, frontal first, where any header says what it shows;
    else the first by series and number, without names."""
    ordered = sorted(files, key=lambda file: (file[0].order, str(file[1])))
    known = [(header.view, ref) for header, ref in ordered if header.view]
    images, views = one_of_each_view(known) if known else (tuple(ref for _, ref in ordered), ())
    images, views = images[:most], views[:most]
    left_out = tuple(
        (ref, _why_left_out(header.view, bool(known), most)) for header, ref in ordered if ref not in images
    )
    return Study(images, views, left_out)


def _why_left_out(view: str, known: bool, most: int) -> str:
    if known and not view:
        return "its header does not say which view it is, and that of another image of the study does"
    kind = f"{view} " if view else ""
    return f"a further {kind}image of its study, of which {most} at most are read: a frontal and a lateral one"


def find_reports(folder: Path) -> list[Path]:
    """The table of reports in a folder, if one has a column of studies."""
    tables = (folder / f"{REPORTS}{suffix}" for suffix in TABLE_SUFFIXES)
    return [table for table in tables if table.is_file() and _study_column(next(iter_rows(table), {}))][:1]


def read_dicom_studies(folder: Path, options: ReadOptions) -> list[Example]:
    """Every study that has images and a row in the table. Raises UserError where the table or a column is missing."""
    tables = find_reports(folder)
    if not tables:
        raise UserError(
            f"{folder}: no {REPORTS}.csv (or {', '.join(TABLE_SUFFIXES)}) with a column of StudyInstanceUIDs "
            f"({', '.join(STUDY_COLUMNS)})."
        )
    where, rows = str(tables[0]), load_rows(tables[0])
    found, column = columns_of(rows), _study_column(rows[0])
    target = _target(found, options, where)
    fields = replace(options.fields, caption="") if target else options.fields
    columns = fields.resolve(found, where, with_image=False)
    studies = _studies_below(options.image_root or folder, options)
    examples: dict[str, Example] = {}
    for number, row in enumerate(rows, start=1):
        at, id = f"{where}, row {number}", clean_text(row.get(column)) or ""
        if id not in studies:
            options.skip(at, f"a report without an image: no DICOM file below {folder} is of its study")
            continue
        study = study_of(studies[id])
        example = columns.example(row, id=id, images=study.images, default_split="train", where=at)
        texts = {name: clean_text(row.get(name)) for name in SECTIONS}
        captions = report_of(texts, target) if target else example.captions
        group = example.group or next((f"patient {h.patient}" for h, _ in studies[id] if h.patient), None)
        if id in examples:
            captions = examples[id].captions + captions
        else:
            for ref, reason in study.left_out:
                options.skip(str(ref), reason)
        examples[id] = replace(example, views=study.views, captions=captions, group=group)
    for id in studies.keys() - examples.keys():
        options.skip(str(studies[id][0][1]), f"a study without a row in {tables[0].name}")
    if not examples:
        raise UserError(
            f"{where}: none of its {len(rows):,} rows is of a study whose DICOM files are below {folder}. Its column "
            f"'{column}' has to hold the StudyInstanceUID of the files."
        )
    return list(examples.values())


def _target(found: Sequence[str], options: ReadOptions, where: str) -> str:
    """Which sections are the report; "" where a column of captions is. Raises UserError where there is neither."""
    if options.fields.caption is not None or any(name in found for name in CAPTION_COLUMNS):
        return ""
    if any(name in found for name in SECTIONS):
        return options.fields.report
    raise UserError(
        f"{where}: no column of reports. Columns found: {', '.join(found)}. Looked for: "
        f"{', '.join((*SECTIONS, *CAPTION_COLUMNS))}. Name the right one in the fields, as caption=COLUMN."
    )


def _studies_below(folder: Path, options: ReadOptions) -> dict[str, list[tuple[Header, ImageRef]]]:
    """The images below a folder by the UID of their study."""
    studies: dict[str, list[tuple[Header, ImageRef]]] = defaultdict(list)
    for name in files_below(folder):
        if suffix_of(name) not in DICOM_SUFFIXES and not may_be_image(name):
            continue
        ref = ImageRef(os.path.join(folder, name))
        header = read_header(ref)
        if header is None:
            continue
        if not header.frames:
            options.skip(name, NO_IMAGE, expected=True)
        elif not header.study:
            options.skip(name, "a DICOM file that does not say which study it is of")
        else:
            studies[header.study].append((header, ref))
    return studies


def _study_column(row: Row) -> str:
    return next((name for name in STUDY_COLUMNS if name in row), "")


FORMAT = Format(
    "dicom",
    read_dicom_studies,
    find_reports,
    kind="folder",
    looked_for=f"DICOM files below {REPORTS}.csv with a column of StudyInstanceUIDs",
    medical=True,
)
