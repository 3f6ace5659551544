"""MIMIC-CXR and MIMIC-CXR-JPG as PhysioNet lays them out, with the official split.

    mimic-cxr-2.0.0-split.csv[.gz]       dicom_id, study_id, subject_id, split      (required)
    mimic-cxr-2.0.0-metadata.csv[.gz]    dicom_id, ViewPosition, StudyDate, StudyTime
    mimic-cxr-2.0.0-chexpert.csv[.gz]    study_id, "No Finding"                     (label ``normality``)
    files/p10/p10000032/s50414267/*.jpg or *.dcm
    files/p10/p10000032/s50414267.txt    or in mimic-cxr-reports/, or in mimic-cxr-reports.zip

One example a study: its first frontal (PA before AP) and its first lateral image. Context: indication, history, exam,
and as ``prior`` the same section of the same patient's study before, where there is one (patients never cross splits).
Age and sex are in none of these files; they are read from the indication where it has them.
"""

from __future__ import annotations

import csv
import gzip
import zipfile
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

from latentcap.data.errors import UserError
from latentcap.data.example import Example, ImageRef
from latentcap.data.readers.fields import ReadOptions
from latentcap.data.readers.formats import Format
from latentcap.data.readers.medical.patient import age_in_text, sex_in_text
from latentcap.data.readers.medical.study import context_of, one_of_each_view, report_of
from latentcap.data.readers.paths import existing
from latentcap.data.readers.splits import normalise_split
from latentcap.data.report_text import split_sections

SPLIT, METADATA, CHEXPERT = (f"mimic-cxr-2.0.0-{name}.csv" for name in ("split", "metadata", "chexpert"))
REPORTS = "mimic-cxr-reports"
VIEW_POSITIONS = {"PA": "pa", "AP": "ap", "LATERAL": "lateral", "LL": "lateral"}


@dataclass
class _Study:
    subject: str
    id: str
    split: str
    images: list[tuple[str, str]] = field(default_factory=list)  # view and dicom_id
    time: tuple[str, float] = ("", 0.0)

    @property
    def path(self) -> str:
        return f"files/p{self.subject[:2]}/p{self.subject}/s{self.id}"


def is_mimic(path: Path) -> bool:
    """Whether ``path`` is the folder that holds the official split."""
    return path.is_dir() and _find(path, SPLIT) is not None


def read_mimic(path: Path, options: ReadOptions) -> list[Example]:
    """Every study, by patient and then in time. Raises UserError where the split or the reports are missing."""
    studies = _read_studies(path)
    normal = _read_normality(path, {study.id for study in studies})
    root = options.image_root or path
    suffix = _image_suffix(root, studies)
    read_report = _report_reader(path)
    examples: list[Example] = []
    prior: Mapping[str, str] = {}
    for place, study in enumerate(studies):
        if place and studies[place - 1].subject != study.subject:
            prior = {}
        sections = split_sections(read_report(study.path))
        refs, views = one_of_each_view(
            (view, ImageRef(str(root / study.path / f"{dicom}{suffix}"))) for view, dicom in study.images
        )
        reason = " ".join(sections.get(name, "") for name in ("indication", "history"))
        before = report_of(prior, options.fields.report)
        examples.append(
            Example(
                id=f"s{study.id}",
                images=refs,
                views=views,
                captions=report_of(sections, options.fields.report),
                context=context_of(
                    indication=sections.get("indication"),
                    history=sections.get("history"),
                    exam=sections.get("examination"),
                    prior=before[0] if before else None,
                ),
                numbers={"age": age_in_text(reason)},
                categories={"sex": sex_in_text(reason)},
                split=study.split,
                labels={"normality": normal[study.id]} if study.id in normal else {},
                group=f"p{study.subject}",
            )
        )
        prior = sections or prior
    return examples


def _read_normality(path: Path, studies: Set[str]) -> dict[str, str]:
    """``normal`` or ``abnormal`` by study. Raises UserError for a table of labels that does not fit the studies."""
    rows = list(_rows(path, CHEXPERT))
    lacking = [name for name in ("study_id", "No Finding") if rows and name not in rows[0]]
    if lacking:
        raise UserError(f"{path / CHEXPERT}: no column {', '.join(lacking)}. Columns found: {', '.join(rows[0])}.")
    if rows and not any(row["study_id"] in studies for row in rows):
        raise UserError(
            f"{path / CHEXPERT}: none of its {len(rows):,} rows is of a study in {SPLIT}. It belongs to other data: "
            "take it away, or put MIMIC-CXR's own there."
        )
    return {row["study_id"]: "normal" if row["No Finding"].startswith("1") else "abnormal" for row in rows}


def _read_studies(folder: Path) -> list[_Study]:
    if _find(folder, SPLIT) is None:
        raise UserError(f"{folder}: no {SPLIT} or {SPLIT}.gz, MIMIC-CXR's official split, in it.")
    metadata = {row["dicom_id"]: row for row in _rows(folder, METADATA)}
    studies: dict[str, _Study] = {}
    where = str(folder / SPLIT)
    for row in _rows(folder, SPLIT):
        split = normalise_split(row["split"], where)
        study = studies.setdefault(row["study_id"], _Study(row["subject_id"], row["study_id"], split))
        about = metadata.get(row["dicom_id"], {})
        view = (about.get("ViewPosition") or "").strip().upper()
        study.images.append((VIEW_POSITIONS.get(view, "other"), row["dicom_id"]))
        study.time = (about.get("StudyDate") or "", float(about.get("StudyTime") or 0))
    return sorted(studies.values(), key=lambda study: (study.subject, study.time, study.id))


def _rows(folder: Path, name: str) -> Iterator[dict[str, str]]:
    """The rows of a table, compressed or not; none where it is missing. Raises UserError for a broken one."""
    file = _find(folder, name)
    if file is None:
        return
    opened = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8", newline="") as text:
            for row in csv.DictReader(text):
                if None in row.values() or None in row:
                    raise UserError(f"{file}: a row without all columns. Copy or download it again.")
                yield row
    except (OSError, EOFError, UnicodeDecodeError, csv.Error):
        raise UserError(f"{file}: not a readable table. Copy or download it again.") from None


def _find(folder: Path, name: str) -> Path | None:
    return next((file for file in (folder / name, folder / f"{name}.gz") if file.is_file()), None)


def _image_suffix(root: Path, studies: list[_Study]) -> str:
    """``.dcm`` where the first image there is one, else ``.jpg``."""
    found = (root / study.path / f"{dicom}.dcm" for study in studies[:100] for _, dicom in study.images)
    return ".dcm" if any(file.is_file() for file in found) else ".jpg"


def _report_reader(folder: Path) -> Callable[[str], str]:
    """A function from a study's path to its report, "" where it has none."""
    archive = folder / f"{REPORTS}.zip"
    if archive.is_file():
        try:
            opened = zipfile.ZipFile(archive)
        except (OSError, zipfile.BadZipFile):
            raise UserError(f"{archive}: not a complete zip. Copy or download it again.") from None
        members = set(opened.namelist())

        def from_zip(path: str) -> str:
            name = f"{path}.txt"
            return opened.read(name).decode("utf-8", errors="replace") if name in members else ""

        return from_zip
    root = folder / REPORTS if (folder / REPORTS).is_dir() else folder
    existing(root / "files", "folder of MIMIC-CXR's reports")

    def from_file(path: str) -> str:
        try:
            return (root / f"{path}.txt").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    return from_file


FORMAT = Format("mimic-cxr", read_mimic, is_mimic, kind="folder", looked_for="MIMIC-CXR", medical=True)
