"""Drafts of reports as other systems file them: one document a study, in a folder, written as soon as it is known."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

from latentcap.batch.inputs import Input
from latentcap.batch.journal import Record, synced
from latentcap.batch.outputs.base import Files
from latentcap.data.archives import as_path
from latentcap.data.dicom_header import Header, read_elements, read_header
from latentcap.data.example import ImageRef

IDENTIFIERS = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)
"""What ``--keep-identifiers`` copies from the first image of a study."""
UID = re.compile(r"(?=.{1,64}$)[0-9]+(?:\.[0-9]+)*")
"""What counts as a UID. Leading zeros pass: DICOM forbids them (PS3.5, 9.1), yet devices write them."""


class Reports(Files):
    """A file for each study, named by its StudyInstanceUID, or by the image where that is no UID.

    The journal has what each says and when it was written; the rest is read from the images again. So a file that is
    written again after a crash is the same. Without ``keep_identifiers`` nothing of a patient is read or written.
    """

    needs_images = True
    suffix = ""

    def __init__(self, path: Path, run: Path, *, keep_identifiers: bool) -> None:
        super().__init__(path, run)
        self.folder, self.keep_identifiers = path, keep_identifiers
        self._names: dict[str, str] = {}  # of files, with the input that each is of

    def prepare(self, item: Input, *, known: bool) -> Input | None:
        if item.error or not item.images:
            return item
        name = self._name(item.name, item.study)
        if self._names.setdefault(name, item.name) != item.name:
            return replace(item, error=f"{name} is the report of another input already")
        return item

    def append(self, records: Sequence[Record]) -> int:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return super().append([record | {"_issued": now} for record in records])

    def renew(self, stale: Mapping[int, int]) -> None:
        super().renew(stale)
        self._mark.write(0)  # places in the journal have changed: all is written again, as it was

    def clear(self) -> None:
        for record in self.journal:
            self._target_of(record).unlink(missing_ok=True)
        super().clear()

    def check_unknown(self) -> None:
        if self.folder.is_dir() and any(self.folder.rglob(f"*{self.suffix}")):
            self.refuse(f"{self.folder}: holds {self.suffix} files")

    @abstractmethod
    def document(self, record: Record, sources: list[tuple[ImageRef, Header | None]], known: Any | None) -> bytes:
        """The content of a file.

        Args:
            sources: the images that were read, each with its header.
            known: :data:`IDENTIFIERS` of the first of them, a pydicom dataset; None where they are not to be kept.
        """

    def _name(self, file: str, study: str) -> str:
        if UID.fullmatch(study):
            return f"{study}{self.suffix}"
        inside = PurePath(as_path(file))
        return str(PurePath(*(part for part in inside.parts if part not in ("..", inside.anchor)))) + self.suffix

    @staticmethod
    def _identifier(known: Any, name: str) -> str:
        """One of :data:`IDENTIFIERS` as its file writes it, "" where it has none."""
        value = known.get(name)
        if value is None:
            return ""
        several = not isinstance(value, str) and hasattr(value, "append")  # "A\\B" in a file
        return ("\\".join(map(str, value)) if several else str(value)).strip()

    def _target_of(self, record: Record) -> Path:
        return self.folder / self._name(record["file"], record.get("_study", ""))

    def _write(self, record: Record) -> None:
        images = [ImageRef(*place) for place in record["_images"]]
        known = read_elements(images[0], IDENTIFIERS) if self.keep_identifiers else None
        content = self.document(record, [(image, read_header(image)) for image in images], known)
        with synced(self._target_of(record)) as file:
            file.write(content)
