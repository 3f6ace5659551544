"""The formats that captions are written in. Each is the journal itself, or is made from it."""

from __future__ import annotations

from pathlib import Path

from latentcap.batch.outputs.base import EXISTING, Output
from latentcap.batch.outputs.coco import CocoFile, read_image_ids
from latentcap.batch.outputs.dicom_sr import DicomReports
from latentcap.batch.outputs.fhir import FhirReports
from latentcap.batch.outputs.hf import HuggingFaceFolder
from latentcap.batch.outputs.parts import ParquetParts
from latentcap.batch.outputs.sidecar import Sidecars
from latentcap.batch.outputs.subtitles import SUBTITLES, Subtitles
from latentcap.batch.outputs.table import CsvFile, ParquetFile
from latentcap.batch.outputs.webdataset import Tars
from latentcap.batch.outputs.xmp import XMP_NAMES, Embedded, XmpSidecars
from latentcap.data.errors import UserError, did_you_mean
from latentcap.data.remote import is_remote

__all__ = [
    "BESIDE",
    "EXISTING",
    "FORMATS",
    "MERGING",
    "REPORTS",
    "SECTIONED",
    "XMP_NAMES",
    "Output",
    "choose_format",
    "make_output",
]

FORMATS = (
    *("jsonl", "csv", "parquet", "coco", "parts", "hf"),
    *("txt", "caption", "xmp", "embed", "srt", "vtt", "webdataset"),
    *("fhir", "dicom-sr"),
)
BESIDE = ("txt", "caption", "xmp", "embed", "srt", "vtt")
"""Formats whose captions are with the images, so that they need no output."""
REPORTS = ("fhir", "dicom-sr")
"""Formats of one document for each study."""
SECTIONED = ("jsonl", "csv", "parquet", "parts", "txt", "caption", *REPORTS)
"""Formats that hold a caption under headings."""
MERGING = (*BESIDE, "webdataset")
"""Formats in which an image may have a text already."""
OTHERS = {
    ".json": "one JSON document is COCO's results: --format coco",
    ".txt": "texts are one for each image: --format txt, with a folder for --output or none",
    ".tsv": "tables are .csv or .parquet",
    ".xlsx": "tables are .csv or .parquet",
}
"""Suffixes of what is not written without being asked for, and what is."""
SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".srt": "srt", ".vtt": "vtt"}


def choose_format(path: Path | None, given: str | None) -> str:
    """The format that was given, else what the output's name says, which is JSON Lines unless its suffix is another's.

    Raises UserError for a format that does not exist, and for no output where the format needs one.
    """
    chosen = given or (SUFFIXES.get(path.suffix.lower(), "jsonl") if path else "jsonl")
    if chosen not in FORMATS:
        raise UserError(f"--format {chosen}: formats are {', '.join(FORMATS)}.{did_you_mean(chosen, FORMATS)}")
    if path is not None and is_remote(str(path).replace(":/", "://", 1)):  # as Path has it
        raise UserError(f"--output {path}: an address. Captions are written on this machine: give a file or folder.")
    if path is None and chosen not in BESIDE:
        raise UserError(
            f"--format {chosen} needs --output. Only txt, caption, xmp, srt and vtt can stand beside the images."
            if given
            else "where to? Give --output captions.jsonl, or --format txt for a text beside each image."
        )
    if path is not None and given is None and (suffix := path.suffix.lower()) in OTHERS:
        raise UserError(
            f"--output {path}: {OTHERS[suffix]}. JSON Lines are called .jsonl; for these under another name, add "
            "--format jsonl."
        )
    if path is not None and chosen == "embed":
        raise UserError("--embed writes into the images themselves: leave --output away.")
    folder = chosen in ("parts", "hf", *MERGING, *REPORTS) and not (path and path.suffix.lower() in SUBTITLES)
    if path is not None and path.exists() and folder != path.is_dir():
        wanted, found = ("folder", "file") if folder else ("file", "folder")
        raise UserError(f"{path}: a {found}, where --format {chosen} needs a {wanted}.")
    return chosen


def make_output(
    path: Path | None,
    run: Path,
    kind: str,
    *,
    num_captions: int = 1,
    existing: str = "skip",
    separator: str = " ",
    xmp_name: str = "full",
    image_ids: Path | None = None,
    keep_identifiers: bool = False,
) -> Output:
    """The output of a format; ``run`` is its run folder."""
    if kind in ("txt", "caption"):
        return Sidecars(path, run, suffix=f".{kind}", existing=existing, separator=separator)
    if kind in ("srt", "vtt"):
        return Subtitles(path, run, suffix=f".{kind}", existing=existing)
    if kind == "xmp":
        return XmpSidecars(path, run, existing=existing, separator=separator, naming=xmp_name)
    if kind == "embed":
        return Embedded(run, existing=existing, separator=separator)
    assert path is not None
    if kind == "csv":
        return CsvFile(path, run, num_captions=num_captions)
    if kind == "coco":
        return CocoFile(path, run, ids=read_image_ids(image_ids) if image_ids else None)
    if kind == "parquet":
        return ParquetFile(path, run)
    if kind == "parts":
        return ParquetParts(path, run)
    if kind == "hf":
        return HuggingFaceFolder(path, run)
    if kind == "fhir":
        return FhirReports(path, run, keep_identifiers=keep_identifiers)
    if kind == "dicom-sr":
        return DicomReports(path, run, keep_identifiers=keep_identifiers)
    if kind == "webdataset":
        return Tars(path, run, existing=existing, separator=separator)
    return Output(path, path)
