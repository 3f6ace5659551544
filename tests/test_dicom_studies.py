"""DICOM as it lies on a CD: files into studies, views into their slots, films by frame; for captioning and as data."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latentcap.batch.inputs import Inputs
from latentcap.batch.studies import Studies
from latentcap.cli.caption import main as caption
from latentcap.data.batches.views import ViewSlots
from latentcap.data.dicom import decode_dicom
from latentcap.data.dicom_header import read_header
from latentcap.data.errors import UserError
from latentcap.data.example import ImageRef
from latentcap.data.readers import Fields, read_examples
from latentcap.data.readers.fields import Skipped
from tests.helpers import picture, tiny_captioner
from tests.test_dicom import RAMP, SECRETS, make

pydicom = pytest.importorskip("pydicom", reason="needs the extra 'medical'")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
FILM = np.stack([np.full((64, 64), value, np.uint8) for value in (10, 20, 30, 40)])


def film(study: str, number: int, **elements: Any) -> bytes:
    """One file of a study."""
    uids = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1", "SOPInstanceUID": f"{study}.1.{number}"}
    return make(np.roll(RAMP, number * 99), BitsStored=12, InstanceNumber=number, **{**uids, **elements})


def report_file(study: str) -> bytes:
    """A structured report of the same study: no image."""
    dataset = pydicom.dcmread(io.BytesIO(film(study, 9)))
    for name in ("PixelData", "Rows", "Columns"):
        delattr(dataset, name)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture
def disc(tmp_path: Path) -> Path:
    """Two studies and more as a CD holds them: names without suffix, a directory, a viewer, a report."""
    root = tmp_path / "cd"
    files = {
        "DICOM/A/IM0001": film("1.2.3", 1, ViewPosition="LL"),
        "DICOM/A/IM0002": film("1.2.3", 2, ViewPosition="PA"),
        "DICOM/A/IM0003": film("1.2.3", 3, ViewPosition="PA"),
        "DICOM/A/SR0001": report_file("1.2.3"),
        "DICOM/B/IM0001": film("1.2.4", 1, PatientOrientation=["L", "F"], PatientID="another"),
        "DICOMDIR": report_file("1.2.9"),
        "viewer.exe": b"MZ\x90\0" + bytes(600),
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


@pytest.mark.parametrize(
    ("elements", "view"),
    [
        ({"ViewPosition": "PA"}, "pa"),
        ({"ViewPosition": "AP"}, "ap"),
        ({"ViewPosition": "LL"}, "lateral"),
        ({"ViewPosition": "LATERAL"}, "lateral"),
        ({"ViewPosition": "AP SUPINE"}, "ap"),
        ({"ViewPosition": "LLO"}, ""),
        ({"ViewPosition": "", "PatientOrientation": ["L", "F"]}, "frontal"),
        ({"PatientOrientation": ["P", "F"]}, "lateral"),
        ({"PatientOrientation": ["L", "P"]}, ""),  # a slice of a CT
        ({"PatientOrientation": ["L", "F"], "SeriesDescription": "Chest PA"}, "pa"),
        ({"SeriesDescription": "W CHEST LAT."}, "lateral"),
        ({"SeriesDescription": "Chest P.A."}, "pa"),
        ({"SeriesDescription": "Frontal AP portable"}, "ap"),
        ({"SeriesDescription": "CHEST PA AND LATERAL"}, ""),
        ({"SeriesDescription": "Left lateral decubitus"}, "frontal"),
        ({"SeriesDescription": "Chest"}, ""),
        ({}, ""),
    ],
)
def test_the_view_by_position_orientation_or_description(elements: dict[str, Any], view: str) -> None:
    header = read_header(ImageRef("x", data=film("1.2", 1, **elements)))
    assert header is not None
    assert (header.view, header.study, header.frames) == (view, "1.2", 1)


def test_headers_of_other_things() -> None:
    assert read_header(ImageRef("x", data=b"\x89PNG\r\n\x1a\n")) is None
    found = read_header(ImageRef("x", data=report_file("1.2")))
    assert found is not None
    assert found.frames == 0
    one, same, other = (
        read_header(ImageRef("x", data=film("1.2", 1, PatientID=id))) for id in (SECRETS[2], SECRETS[2], "b")
    )
    assert one is not None and same is not None and other is not None  # noqa: PT018
    assert one.patient == same.patient != other.patient
    assert not any(secret in repr(one) for secret in SECRETS)


def test_a_disc_becomes_studies(disc: Path) -> None:
    found = list(Inputs([str(disc)], grouped=Studies(2, "")))
    studies = [item for item in found if not item.skipped]
    assert [(item.name, item.study, item.views) for item in studies] == [
        ("DICOM/A/IM0002", "1.2.3", ("pa", "lateral")),
        ("DICOM/B/IM0001", "1.2.4", ("frontal",)),
    ]
    slots = ViewSlots(2, ("frontal", "lateral"))
    assert [slots.place(len(item.images), item.views) for item in studies] == [[0, 1], [0]]
    reasons = {item.name: item.skipped for item in found if item.skipped}
    assert set(reasons) == {"DICOM/A/IM0003", "DICOM/A/SR0001", "DICOMDIR", "viewer.exe"}
    assert "a further pa image of its study" in reasons["DICOM/A/IM0003"]
    assert "without an image" in reasons["DICOM/A/SR0001"]
    again = Inputs([str(disc / "DICOMDIR")], grouped=Studies(2, ""))
    assert [item.name for item in again if item.study and not item.skipped] == [item.name for item in studies]
    by_itself = [item for item in Inputs([str(disc)], grouped=Studies(0, "")) if not item.skipped]
    assert len(by_itself) == 5


def test_studies_are_found_in_tars_and_the_lone_view_keeps_its_slot(tmp_path: Path) -> None:
    contents = {"a": film("1.2", 1, ViewPosition="LL"), "b": film("1.3", 1), "c": film("1.3", 2)}
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    lone, unknown = Inputs([str(tmp_path / "x.tar")], grouped=Studies(2, ""))
    assert ViewSlots(2, ("frontal", "lateral")).place(1, lone.views) == [1]
    assert ([image.name for image in unknown.images], unknown.views) == (["b", "c"], ())


def test_captions_of_studies(disc: Path, tmp_path: Path) -> None:
    picture().save(disc / "photo.png")
    tiny_captioner(max_views=2).save(tmp_path / "model")
    out = tmp_path / "captions.jsonl"
    settings = ["--model", str(tmp_path / "model"), "--output", str(out), "--dtype", "float32", "--quiet"]
    assert caption([str(disc), *settings]) == 0
    first, second, third = (json.loads(line) for line in out.read_text().splitlines())
    assert first["file"] == "photo.png"
    assert "images" not in first
    assert second["images"] == [str(disc / "DICOM/A/IM0002"), str(disc / "DICOM/A/IM0001")]
    assert third["file"] == "DICOM/B/IM0001"
    told = json.loads((tmp_path / "captions.jsonl.run" / "summary.json").read_text())
    assert (told["seen"], told["captioned"], told["skipped"], told["failed"]) == (7, 3, 4, 0)
    before = out.read_bytes()
    assert caption([str(disc), *settings]) == 0
    assert out.read_bytes() == before


def test_a_study_that_fails_names_the_image_that_is_at_fault(tmp_path: Path) -> None:
    whole = film("1.2", 2, ViewPosition="LL", SOPClassUID="1.2.840.10008.5.1.4.1.1.1")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "IM1").write_bytes(film("1.2", 1, ViewPosition="PA"))
    (tmp_path / "in" / "IM2").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in" / "IM3").write_bytes(whole[: whole.index(SECRETS[0].encode())])  # no longer says its study
    tiny_captioner(max_views=2).save(tmp_path / "model")
    settings = ["--model", str(tmp_path / "model"), "--output", str(tmp_path / "x.jsonl"), "--dtype", "float32"]
    assert caption([str(tmp_path / "in"), *settings, "--quiet"]) == 1
    found = map(json.loads, (tmp_path / "x.jsonl.run" / "errors.jsonl").read_text().splitlines())
    errors = {error["file"]: error["error"] for error in found}
    assert errors["IM1"].startswith("its image IM2: a DICOM image that cannot be decoded")
    assert "cut off before its image" in errors["IM3"]


@pytest.mark.parametrize(("frame", "value"), [("first", 10), ("middle", 30), ("2", 20), ("4", 40)])
def test_one_frame_of_a_film(frame: str, value: int) -> None:
    encoded = make(FILM, NumberOfFrames="4")
    shown = np.asarray(ImageRef("film", data=encoded, frame=frame).open())
    assert (shown == value).all()
    still = np.asarray(ImageRef("x", data=make(FILM[3]), frame=frame).open())
    assert (still == 40).all()


def test_a_frame_that_is_not_there_and_one_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="of 4 frames, of which frame 5 was asked for"):
        ImageRef("film", data=make(FILM, NumberOfFrames="4"), frame="5").open()
    with pytest.raises(OSError, match="--frame first, middle"):
        ImageRef("film", data=make(FILM, NumberOfFrames="4")).open()
    with pytest.raises(UserError, match=r"fields\.frame is '0'"):
        Fields(frame="0")
    with pytest.raises(SystemExit):
        caption(["x", "--frame", "last"])


def test_films_are_captioned_by_frame(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "film.dcm").write_bytes(make(FILM, NumberOfFrames="4"))
    (tmp_path / "in" / "still.dcm").write_bytes(make(RAMP))
    tiny_captioner().save(tmp_path / "model")

    def files(frame: str) -> list[str]:
        out = tmp_path / f"{frame}.jsonl"
        settings = ["--model", str(tmp_path / "model"), "--output", str(out), "--dtype", "float32", "--quiet"]
        assert caption([str(tmp_path / "in"), *settings, "--frame", frame]) == 0
        return [json.loads(line)["file"] for line in out.read_text().splitlines()]

    assert files("middle") == ["film.dcm", "still.dcm"]
    assert files("all") == [*(f"film.dcm#frame{number}" for number in range(1, 5)), "still.dcm"]


@pytest.mark.parametrize(("element", "kind"), [("FloatPixelData", "f4"), ("DoubleFloatPixelData", "f8")])
def test_pixels_that_are_real_numbers(element: str, kind: str) -> None:
    ramp = np.linspace(-2, 5, 4096).reshape(64, 64)
    dataset = pydicom.dcmread(io.BytesIO(make(ramp.astype(kind))))
    setattr(dataset, element, dataset.PixelData)
    for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, name)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    np.testing.assert_allclose(np.asarray(decode_dicom(buffer.getvalue())), (ramp + 2) / 7 * 255, atol=1)


def test_studies_with_their_reports_are_data(disc: Path) -> None:
    table = "StudyInstanceUID,findings,impression,split,indication\n"
    table += "1.2.3,Clear lungs.,Normal.,train,cough\n1.2.4,Small effusion.,Effusion.,val,\n1.2.77,Lost.,,train,\n"
    (disc / "reports.csv").write_text(table)
    skipped: list[Skipped] = []
    first, second = read_examples(disc, fields=Fields(report="both", context="indication"), skipped=skipped)
    assert (first.id, first.views, first.split) == ("1.2.3", ("pa", "lateral"), "train")
    assert (first.captions, first.context) == (("Clear lungs. Normal.",), "cough")
    assert [Path(image.path).name for image in first.images] == ["IM0002", "IM0001"]
    assert first.group != second.group
    assert (second.views, second.split) == (("frontal",), "val")
    faults = {item.name.rsplit("/")[-1]: item.reason for item in skipped if not item.expected}
    assert set(faults) == {"IM0003", "reports.csv, row 3"}
    assert "without an image" in faults["reports.csv, row 3"]
    (disc / "DICOM/B/IM0001").write_bytes(film("1.2.4", 1))
    with pytest.raises(UserError, match="patients or cases are in more than one split"):
        read_examples(disc)  # whose studies are of one patient now
    (disc / "reports.csv").write_text("study,words\n1.2.3,x\n")
    with pytest.raises(UserError, match="no column of reports"):
        read_examples(disc)
    (disc / "reports.csv").write_text("study,report\n7,x\n")
    with pytest.raises(UserError, match=r"none of its 1 rows is of a study .*StudyInstanceUID"):
        read_examples(disc)


def test_a_film_in_a_data_set_is_read_by_frame(tmp_path: Path) -> None:
    (tmp_path / "film.dcm").write_bytes(make(FILM, NumberOfFrames="4"))
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "film.dcm", "text": "a film"}))
    (example,) = read_examples(tmp_path, fields=Fields(frame="2"))
    assert (np.asarray(example.images[0].open()) == 20).all()
