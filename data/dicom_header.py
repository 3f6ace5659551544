"""What a DICOM file says of itself beside its pixels: which study, which image, which view. Needs pydicom.

Of whoever was imaged nothing is kept but a number made of the patient's id, another one in each process: it tells which
studies are of one patient. Free texts (SeriesDescription) are looked at for words such as "lateral" and not kept.
"""

from __future__ import annotations

import io
import re
import secrets
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from latentcap.data.dicom import frame_count, is_cut_off, is_dicom
from latentcap.data.dicom_file import import_pydicom, read_dicom
from latentcap.data.image import ImageRef

READ = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "Rows", "NumberOfFrames"),
    "BitsAllocated",
    *("SeriesNumber", "InstanceNumber", "PresentationIntentType", "PatientID"),
    *("ViewPosition", "PatientOrientation", "ViewCodeSequence", "CodeMeaning", "SeriesDescription"),
)
POSITIONS = {"PA": "pa", "AP": "ap", "LL": "lateral", "RL": "lateral", "LAT": "lateral", "LATERAL": "lateral"}
_WORDS = {
    "lateral": r"lat|lateral|ll|rl|llat|rlat",
    "pa": r"pa|postero anterior|posteroanterior",
    "ap": r"ap|antero posterior|anteroposterior",
    "frontal": r"frontal",
}
_SALT = secrets.token_bytes(16)
_VIEWS = {view: re.compile(rf"\b(?:{words})\b") for view, words in _WORDS.items()}
_DECUBITUS = re.compile(r"\bdecub\w*")  # lying on a side: "left lateral decubitus" is seen from the front


@dataclass(frozen=True, slots=True)
class Header:
    """One file of a study.

    ``study``, ``series``, ``instance`` and ``kind`` (the SOP class) are UIDs, "" where the file has none; ``view`` is
    ``pa``, ``ap``, ``frontal``, ``lateral``, or "" where nobody says. ``frames`` is 0 for what is no image: a report, a
    structure, a directory; of a file that was cut off before its image it is 1. ``order`` sorts the images of a study,
    those for presentation before those for processing. ``patient`` is the same for all of a patient's files, within one
    process, and never written anywhere.
    """

    study: str
    series: str
    instance: str
    kind: str
    modality: str
    view: str
    frames: int
    order: tuple[bool, int, int]
    patient: str

    @property
    def uids(self) -> tuple[str, str, str, str]:
        """By which other files refer to this one."""
        return self.study, self.series, self.instance, self.kind


def read_header(ref: ImageRef) -> Header | None:
    """The header of an image; None for what is no DICOM or is too damaged to say. Raises OSError without pydicom."""
    dataset = read_elements(ref, READ)
    if dataset is None:
        return None
    try:
        processing = _text(dataset, "PresentationIntentType") == "FOR PROCESSING"
        return Header(
            study=_text(dataset, "StudyInstanceUID"),
            series=_text(dataset, "SeriesInstanceUID"),
            instance=_text(dataset, "SOPInstanceUID"),
            kind=_text(dataset, "SOPClassUID"),
            modality=_text(dataset, "Modality"),
            view=view_of(dataset),
            frames=frame_count(dataset) if "Rows" in dataset or is_cut_off(dataset) else 0,
            order=(processing, _number(dataset, "SeriesNumber"), _number(dataset, "InstanceNumber")),
            patient=_secret(_text(dataset, "PatientID")),
        )
    except Exception:  # values that cannot be parsed raise many types
        return None


def read_elements(ref: ImageRef, names: tuple[str, ...]) -> Any | None:
    """A pydicom dataset of the named elements before the pixels; None for what is no DICOM that can be parsed."""
    if not is_dicom(ref.start()):
        return None
    import_pydicom()
    try:
        if ref.data is not None or ref.offset is not None:
            return read_dicom(io.BytesIO(ref.encoded()), names, pixels=False)
        with open(ref.path, "rb") as file:
            return read_dicom(file, names, pixels=False)
    except Exception:
        return None


def view_of(dataset: Any) -> str:
    """``pa``, ``ap``, ``frontal`` or ``lateral``; "" where neither position, orientation nor description says."""
    position = _text(dataset, "ViewPosition").upper()
    if view := POSITIONS.get(position) or _view_in(position):
        return view
    codes = " ".join(_text(code, "CodeMeaning") for code in dataset.get("ViewCodeSequence") or ())
    if view := _view_in(codes):
        return view
    orientation: Any = dataset.get("PatientOrientation") or ()
    described = _view_in(_text(dataset, "SeriesDescription"))
    if len(orientation) == 2 and str(orientation[1])[:1] in ("F", "H"):
        along = str(orientation[0])[:1]  # where the rows of pixels lead
        if along in ("A", "P"):
            return "lateral"
        if along in ("L", "R"):
            return described if described in ("pa", "ap") else "frontal"
    return described


def _view_in(text: str) -> str:
    """The one view that a text names; "" for none, and for several ("chest PA and lateral")."""
    words = re.sub(r"[^a-z]+", " ", text.lower().replace(".", ""))
    if _DECUBITUS.search(words):
        return "frontal"
    found = [view for view, pattern in _VIEWS.items() if pattern.search(words)]
    if len(found) == 2 and "frontal" in found and "lateral" not in found:
        found.remove("frontal")
    return found[0] if len(found) == 1 else ""


def _secret(id: str) -> str:
    return blake2b(id.encode("utf-8", "surrogatepass"), key=_SALT, digest_size=6).hexdigest() if id else ""


def _text(dataset: Any, name: str) -> str:
    return str(dataset.get(name) or "").strip()


def _number(dataset: Any, name: str) -> int:
    try:
        return int(dataset.get(name) or 0)
    except (TypeError, ValueError):
        return 0
