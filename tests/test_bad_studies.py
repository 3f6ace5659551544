"""What hospitals' data come with: no images, no findings, DICOM without one, two sizes, wrong labels, test studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from latentcap.batch.inputs import Inputs
from latentcap.cli.caption import main as caption
from latentcap.data.batches.splits import read_splits
from latentcap.data.check.examples import check_examples
from latentcap.data.errors import UserError
from latentcap.data.example import Example, ImageRef
from latentcap.data.readers import Fields, read_examples
from latentcap.data.readers.fields import Skipped
from tests.helpers import picture, tiny_captioner
from tests.test_dicom_studies import report_file
from tests.test_medical_configs import mimic
from tests.test_openi_index import row, write_index


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in rows))
    return path


def test_a_study_without_images(tmp_path: Path) -> None:
    table = jsonl(tmp_path / "a.jsonl", [{"image": [], "report": "Clear."}, {"image": ["a.png"], "report": "Clear."}])
    with pytest.raises(UserError, match=r"a\.jsonl, row 1: the list of images is empty"):
        read_examples(table)
    first, second = Inputs([str(table)])
    assert "the list of images is empty" in first.error
    assert second.error == ""
    write_index(tmp_path, "train", [row(1, "1.png", "Frontal")])
    (tmp_path / "small.json").write_text(json.dumps({"train": [{"id": "x", "report": "Clear.", "image_path": []}]}))
    with pytest.raises(UserError, match="small"):
        read_examples(tmp_path / "small.json")


def test_a_report_without_findings_is_no_reference_and_is_named(tmp_path: Path) -> None:
    write_index(
        tmp_path,
        "train",
        [
            row(n, f"{n}.png", "Frontal", impression="Normal.", r2gen_split="train", r2gen_id=f"CXR{n}_1")
            for n in (1, 2)
        ],
    )
    examples = read_examples(tmp_path / "index_train.jsonl")
    assert [example.captions for example in examples] == [(), ()]
    report = check_examples(examples)
    assert report.empty_captions == ("CXR1_1", "CXR2_1")
    assert "examples without a caption" in report.to_text()
    both = read_examples(tmp_path / "index_train.jsonl", fields=Fields(report="both"))
    assert both[0].captions == ("Normal.",)


def test_a_dicom_that_is_no_image(tmp_path: Path) -> None:
    pytest.importorskip("pydicom", reason="needs the extra 'medical'")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dcm").write_bytes(report_file("1.2"))
    picture().save(tmp_path / "in" / "b.png")
    tiny_captioner().save(tmp_path / "model")
    out = tmp_path / "x.jsonl"
    settings = ["--model", str(tmp_path / "model"), "--output", str(out), "--dtype", "float32", "--quiet"]
    assert caption([str(tmp_path / "in"), *settings]) == 3
    (error,) = map(json.loads, (tmp_path / "x.jsonl.run" / "errors.jsonl").read_text().splitlines())
    assert error["error"].startswith("a DICOM file without an image (a report")
    example = Example("a", (ImageRef(str(tmp_path / "in" / "a.dcm")),), ("Clear.",))
    assert "a DICOM file without an image" in check_examples([example]).unreadable[0][1]


def test_views_in_two_sizes(tmp_path: Path) -> None:
    for name, size in (("pa.png", (300, 200)), ("lateral.png", (90, 400))):
        picture(*size).save(tmp_path / name)
    captioner = tiny_captioner(max_views=2)
    both, turned = captioner.caption(
        [[tmp_path / "pa.png", tmp_path / "lateral.png"], [tmp_path / "lateral.png", Image.open(tmp_path / "pa.png")]]
    )
    assert both.text
    assert turned.text


def test_a_file_of_labels_that_does_not_fit(tmp_path: Path) -> None:
    source = mimic(tmp_path)
    labels = tmp_path / "mimic-cxr-2.0.0-chexpert.csv"
    labels.write_text("subject_id,study_id,No Finding\n1,50000003,1.0\n")
    assert [bool(example.labels) for example in read_examples(source)].count(True) == 1
    labels.write_text("subject_id,study_id,No Finding\n1,99,1.0\n")
    with pytest.raises(UserError, match=r"chexpert\.csv: none of its 1 rows is of a study in mimic-cxr-2\.0\.0-split"):
        read_examples(source)
    labels.write_text("subject,study,normal\n1,99,1\n")
    with pytest.raises(UserError, match=r"no column study_id, No Finding\. Columns found: subject, study, normal"):
        read_examples(source)


def test_test_studies_do_not_train(tmp_path: Path) -> None:
    def read(splits: list[str]) -> dict[str, list[Example]]:
        examples = [Example(str(n), (ImageRef(str(n)),), ("x",), split=split) for n, split in enumerate(splits)]
        sources: dict[str, Any] = {"train": "films", "val": None, "test": None}
        return read_splits(("train",), sources, lambda source: examples, val_share=0)

    with pytest.raises(UserError, match=r"films: all its 3 examples are of the split 'test'.*cannot be measured"):
        read(["test"] * 3)
    assert len(read(["val"] * 3)["train"]) == 3
    assert [example.id for example in read(["train", "test"])["train"]] == ["0"]


def test_captions_without_an_image_id_do_not_stop_reading(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"caption": "lost"}, {"image_id": None, "caption": "too"}, {"image_id": 1, "caption": "kept"}],
    }
    (tmp_path / "captions_train2017.json").write_text(json.dumps(content))
    skipped: list[Skipped] = []
    (example,) = read_examples(tmp_path / "captions_train2017.json", skipped=skipped)
    assert example.captions == ("kept",)
    assert [item.name.rpartition(", ")[2] for item in skipped] == ["annotation 1", "annotation 2"]
    assert all("no image_id" in item.reason for item in skipped)
