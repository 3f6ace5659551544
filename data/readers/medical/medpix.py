"""MedPix 2.0 (Siragusa et al. 2025): CT and MR slices with captions, in cases.

A folder of ``descriptions_SPLIT.jsonl`` (one image a line), ``data_SPLIT.jsonl`` (one case a line, joined by ``U_id``)
and the images, in tars or folders; or one of the descriptions files.

What is read is what is known *before* anybody looks at the image, or else the model would learn to copy:

- context: the case's history and physical examination. Not its title (it is the diagnosis), findings, diagnosis,
  discussion or treatment.
- numbers: ``age`` in years. 0 is missing: it stands for unknown ages as well as for infants' ("71 year-old male").
- categories: ``sex``; ``acquisition`` and ``plane``, how the image was made: "MR - T2 weighted", "CT w/contrast (IV)",
  axial. A DICOM header says so before anybody looks. ``fields.categories`` chooses which a model may read.
- labels: ``modality`` (CT or MR), ``plane`` and ``location`` (the body region), for a label head, for sampling and for
  scoring. The location is the case's topic, which is known from the image: it is no input.
- reference: the image's caption. The form's own words ("Replace this - DESCRIPTION OF THE IMAGE OR FINDINGS.") are no
  caption: 15 training and 6 dev images have none. With ``fields.report: case`` it is what was written about the case
  instead, its findings and discussion and that of its disease, in pieces of some sentences: text to learn the language
  from before the captions, five times as much.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentcap.data.errors import UserError
from latentcap.data.example import Example, ImageRef
from latentcap.data.jsonl import iter_jsonl
from latentcap.data.kinds import is_image
from latentcap.data.readers.fields import ReadOptions, clean_text
from latentcap.data.readers.formats import Format
from latentcap.data.readers.medical.patient import to_sex, to_years
from latentcap.data.readers.medical.study import context_of, known
from latentcap.data.readers.rows import load_rows
from latentcap.data.readers.splits import split_in_name
from latentcap.data.sentences import split_sentences

DESCRIPTIONS = "descriptions_*.jsonl"
PLANES = {"transverse": "axial", "nos - not specified": "", "other view (see caption)": ""}
PIECE = 45  # words of a piece of a case's text, at most
_LINK = re.compile(r"https?://\S+")
_PLACEHOLDER = re.compile(r"replace this\b", re.IGNORECASE)
_PROMPT = re.compile(r"^History \(can include[^)]*\):?\s*")  # the form's own words


def find_descriptions(path: Path) -> list[Path]:
    """The files of image descriptions that ``path`` is or holds, if they are MedPix's."""
    files = sorted(path.glob(DESCRIPTIONS)) if path.is_dir() else [path]
    return [file for file in files if _is_descriptions(file)]


def read_medpix(path: Path, options: ReadOptions) -> list[Example]:
    """Every image of the descriptions. Raises UserError for one without its case, or a folder without descriptions."""
    files = find_descriptions(path)
    if not files:
        raise UserError(f"{path}: no {DESCRIPTIONS} of MedPix 2.0 in it (lines with U_id, image and Description).")
    images = _index_images(options.image_root or files[0].parent)
    examples: list[Example] = []
    for file in files:
        split = file.stem.removeprefix("descriptions_")
        cases = _read_cases(file.with_name(f"data_{split}.jsonl"))
        whole = options.fields.report == "case"
        texts = {name: _case_texts(case) for name, case in cases.items()} if whole else None
        for line, row in enumerate(load_rows(file), start=1):
            examples.append(_example(row, cases, texts, images, file, line))
    return examples


def _example(
    row: Mapping[str, Any],
    cases: Mapping[str, Mapping[str, Any]],
    texts: Mapping[str, tuple[str, ...]] | None,
    images: Mapping[str, ImageRef],
    file: Path,
    line: int,
) -> Example:
    try:
        case_id, name, description = row["U_id"], row["image"], row["Description"]
    except KeyError as error:
        raise UserError(f"{file}, line {line}: no {error}. Every line has U_id, image and Description.") from None
    if case_id not in cases:
        raise UserError(f"{file}, line {line}: case {case_id} is not in the file of cases (data_*.jsonl) beside it.")
    case = cases[case_id].get("Case") or {}
    history, caption = known(case.get("History")), clean_text(description.get("Caption"))
    captions = (caption,) if caption and not _PLACEHOLDER.match(caption) else ()
    plane = (clean_text(description.get("Plane")) or "").lower()
    plane = PLANES.get(plane, plane)
    labels = {
        "modality": clean_text(row.get("Type")),
        "plane": plane,
        "location": clean_text(row.get("Location Category")),
    }
    return Example(
        id=name,
        images=(images.get(name, ImageRef(str(file.with_name(f"{name}.jpg")))),),
        captions=captions if texts is None else texts[case_id],
        context=context_of(history=_PROMPT.sub("", history) if history else None, exam=case.get("Exam")),
        numbers={"age": to_years(description.get("Age")) or None},
        categories={
            "sex": to_sex(description.get("Sex")),
            "acquisition": clean_text(description.get("Modality")),
            "plane": plane or None,
        },
        split=split_in_name(file.name),
        labels={name: value for name, value in labels.items() if value},
        group=case_id,
    )


def _read_cases(file: Path) -> dict[str, Mapping[str, Any]]:
    if not file.is_file():
        raise UserError(f"{file}: the cases of these descriptions are missing. Put the file beside them.")
    return {row.get("U_id"): row for row in load_rows(file)}  # type: ignore[misc]


def _case_texts(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A case's findings, its discussion and its disease's, in pieces."""
    case, topic = row.get("Case") or {}, row.get("Topic") or {}
    parts = (case.get("Findings"), case.get("Discussion"), topic.get("Disease Discussion"))
    return tuple(piece for part in parts if (text := known(part)) for piece in _pieces(_LINK.sub(" ", text)))


def _pieces(text: str) -> list[str]:
    """A text of any length in pieces of at most :data:`PIECE` words, cut between sentences where that is possible."""
    pieces: list[list[str]] = [[]]
    for sentence in split_sentences(text):
        words = sentence.split()
        for start in range(0, len(words), PIECE):
            part = words[start : start + PIECE]
            if len(pieces[-1]) + len(part) > PIECE:
                pieces.append([])
            pieces[-1] += part
    return [" ".join(words) for words in pieces if len(words) > 3]  # shorter ones are headings


def _index_images(root: Path) -> dict[str, ImageRef]:
    """Images by name without suffix: in ``root``, in folders in it, and in its tars, of which only headers are read."""
    images: dict[str, ImageRef] = {}
    for tar in sorted(root.glob("*.tar")):
        try:
            with tarfile.open(tar, "r:") as archive:
                for member in archive:
                    if member.isfile() and is_image(member.name):
                        ref = ImageRef(str(tar), offset=member.offset_data, size=member.size, name=member.name)
                        images[Path(member.name).stem] = ref
        except (tarfile.TarError, OSError) as error:
            raise UserError(f"{tar}: not a complete, uncompressed tar ({error}). Copy or download it again.") from None
    for pattern in ("*", "*/*"):
        images |= {file.stem: ImageRef(str(file)) for file in sorted(root.glob(pattern)) if is_image(file.name)}
    return images


def _is_descriptions(file: Path) -> bool:
    try:
        row = next(iter_jsonl(file), {})
    except UserError:
        return False
    return {"U_id", "image", "Description"} <= row.keys()


FORMAT = Format("medpix", read_medpix, find_descriptions, kind="", looked_for="MedPix 2.0", medical=True)
