"""What an output holds at some moment, in any format, read as strictly as others would: torn files raise."""

from __future__ import annotations

import csv
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
from PIL import Image

from latentcap.batch.metadata.image_file import read_description
from latentcap.batch.metadata.xmp import description_of
from latentcap.batch.outputs import REPORTS
from latentcap.data.dicom import import_pydicom

Told = tuple[str, str]  # what is captioned, and the caption


def read_back(kind: str, output: Path, photos: Path) -> list[Told]:
    """Every caption of an output of format ``kind``; of an output that is not there yet, none.

    Raises ValueError, KeyError, OSError or ArrowException where a file is not whole.
    """
    if kind == "embed":
        return list(_images(photos))
    if kind in ("txt", "caption", "xmp", "srt", "vtt"):
        return list(_sidecars(output, kind))
    if kind == "webdataset":
        return [told for tar in sorted(output.rglob("*.tar")) for told in _tar(tar, output)]
    if kind in ("parts", "hf"):
        pattern = "data/train-*.parquet" if kind == "hf" else "part-*.parquet"
        return [told for part in sorted(output.glob(pattern)) for told in _parquet(part)]
    if kind in REPORTS:
        return list(_reports(output, kind))
    if not output.exists():
        return []
    if kind == "parquet":
        return _parquet(output)
    if kind == "csv":
        text = output.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            raise ValueError(f"{output}: its end is missing")
        rows = csv.DictReader(text.splitlines(), strict=True)
        return [(row["file"], row["caption"]) for row in rows]
    if kind == "coco":
        return [(str(row["image_id"]), row["caption"]) for row in json.loads(output.read_bytes())]
    lines = output.read_bytes().split(b"\n")[:-1]  # a last line without its end is cut off by the next run
    return [(row["file"], row["caption"]) for row in map(json.loads, lines)]


def _parquet(path: Path) -> list[Told]:
    rows = pyarrow.parquet.read_table(path, columns=["file", "caption"]).to_pylist()
    return [(row["file"], row["caption"]) for row in rows]


def _sidecars(folder: Path, kind: str) -> Iterator[Told]:
    for path in sorted(folder.rglob(f"*.{kind}")):
        data = path.read_bytes()
        text = description_of(data) if kind == "xmp" else data.decode()
        if not (text.strip() if kind == "xmp" else text.endswith("\n")):
            raise ValueError(f"{path}: its end is missing")
        yield str(path.relative_to(folder)), text.strip()


def _reports(folder: Path, kind: str) -> Iterator[Told]:
    for path in sorted(folder.rglob("*.json" if kind == "fhir" else "*.dcm")):
        yield path.name, json.loads(path.read_bytes())["conclusion"] if kind == "fhir" else _findings(path)


def _findings(path: Path) -> str:
    """The text of a structured report."""
    report = import_pydicom().dcmread(path)
    *_, findings = report.ContentSequence
    return "\n".join(str(item.TextValue) for item in findings.ContentSequence if item.ValueType == "TEXT")


def _images(photos: Path) -> Iterator[Told]:
    """Descriptions in the images that are images at all."""
    for path in sorted(photos.rglob("*.*")):
        if path.suffix in (".jpg", ".png", ".webp") and "broken" not in path.name:
            with Image.open(path) as image:
                image.load()
            if text := read_description(path):
                yield str(path.relative_to(photos)), text


def _tar(path: Path, folder: Path) -> Iterator[Told]:
    with tarfile.open(path, "r:") as archive:
        members = {member.name: archive.extractfile(member) for member in archive}
        if path.stat().st_size % tarfile.RECORDSIZE:
            raise ValueError(f"{path}: its end is missing")
        for name, content in members.items():
            if name.endswith(".txt") and content is not None:
                yield f"{path.relative_to(folder)}:{name}", content.read().decode()
