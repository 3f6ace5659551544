"""Open-i as one image a line beside tars of images, R2Gen's annotation of it, and the guard of its test studies."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from latentcap.data.errors import UserError
from latentcap.data.readers import Fields, read_examples
from tests.helpers import real_data


def row(uid: int, image: str, projection: str, **more: Any) -> dict[str, Any]:
    values = {"findings": "", "impression": "", "indication": "", "comparison": "", "problems": "normal"}
    return {
        "image": image,
        "uid": uid,
        "projection": projection,
        "r2gen_split": None,
        "r2gen_id": None,
        **values,
        **more,
    }


def write_index(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    (folder / f"index_{name}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in rows))
    with tarfile.open(folder / f"images_{name}.tar", "w") as archive:
        for number, entry in enumerate(rows):
            content = io.BytesIO()
            Image.new("L", (8, 8), 10 * number).save(content, "PNG")
            member = tarfile.TarInfo(entry["image"])
            member.size = content.tell()
            content.seek(0)
            archive.addfile(member, content)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    seven = {
        "findings": "Clear lungs. XXXX effusion is possible.",
        "impression": "Cardiomegaly.",
        "problems": "Cardiomegaly;Lung",
    }
    seven |= {
        "indication": "58-year-old woman with cough",
        "comparison": "None.",
        "r2gen_split": "train",
        "r2gen_id": "CXR7_IM-1",
    }
    rows = [row(7, "7_lat.png", "Lateral", **seven), row(7, "7_front.png", "Frontal", **seven)]
    write_index(tmp_path, "train", rows)
    eight = {"findings": "Clear.", "problems": "No Indexing", "r2gen_split": "val", "r2gen_id": "CXR8_IM-2"}
    write_index(tmp_path, "val", [row(8, "8.png", "Frontal", **eight)])
    rest = {"impression": "No pneumothorax."}
    write_index(tmp_path, "rest", [row(9, "9.png", "Lateral", **rest), row(10, "10.png", "Frontal")])
    annotation = {
        "train": [{"id": "CXR7_IM-1", "report": seven["findings"], "image_path": ["7_front.png", "7_lat.png"]}],
        "val": [{"id": "CXR8_IM-2", "report": "Clear.", "image_path": ["8.png"]}],
    }
    (tmp_path / "annotation_small.json").write_text(json.dumps(annotation))
    return tmp_path


def test_an_annotation_with_its_images_in_tars(folder: Path) -> None:
    seven, eight = read_examples(folder / "annotation_small.json")
    assert (seven.id, seven.split, seven.views) == ("CXR7_IM-1", "train", ("frontal", "lateral"))
    assert seven.images[0].open().getpixel((0, 0)) == (10, 10, 10)
    assert seven.captions == ("Clear lungs. <deid> effusion is possible.",)
    assert seven.context == "indication: 58-year-old woman with cough."
    assert (seven.numbers["age"], seven.categories["sex"]) == (58, "female")
    found = {"normality": "abnormal", "problems": "cardiomegaly;lung", "findings": "Cardiomegaly;Pleural Effusion"}
    assert seven.labels == found
    assert (eight.split, eight.group, eight.labels) == ("val", "CXR8", {"findings": "No Finding"})
    both = read_examples(folder / "annotation_small.json", fields=Fields(report="both"))
    assert both[0].captions == ("Clear lungs. <deid> effusion is possible. Cardiomegaly.",)


def test_studies_outside_the_split_teach_findings_and_no_words(folder: Path) -> None:
    nine, ten = read_examples(folder / "index_rest.jsonl")
    assert (nine.captions, nine.split, nine.views) == ((), "train", ("lateral",))
    assert nine.labels == {"normality": "normal", "problems": "normal", "findings": "No Finding"}
    assert ten.labels == {"normality": "normal", "problems": "normal"}  # nothing is written about it
    (seven,) = read_examples(folder / "index_train.jsonl")
    assert (seven.id, seven.views, len(seven.captions)) == ("CXR7_IM-1", ("frontal", "lateral"), 1)


def test_a_test_study_under_another_name_is_an_error(folder: Path) -> None:
    annotation = {"train": [], "test": [{"id": "CXR9_IM-7", "report": "Clear.", "image_path": ["CXR9_IM-7/0.png"]}]}
    (folder / "annotation.json").write_text(json.dumps(annotation))
    read_examples(folder / "annotation_small.json")
    with pytest.raises(UserError, match=r"1 studies of R2Gen's test split .*first CXR9 \(train\)"):
        read_examples(folder / "index_rest.jsonl")


def test_what_does_not_fit_is_named(folder: Path) -> None:
    annotation = {"train": [{"id": "x", "report": "", "image_path": ["7_front.png", "5.png"]}]}
    (folder / "wrong.json").write_text(json.dumps(annotation))
    with pytest.raises(UserError, match=r"study x: the image '5\.png' is in no index_"):
        read_examples(folder / "wrong.json")
    write_index(folder, "odd", [{"image": "1.png", "uid": 1}])
    with pytest.raises(UserError, match=r"index_odd\.jsonl: no column projection, findings"):
        read_examples(folder / "index_odd.jsonl")
    (folder / "images_val.tar").write_bytes(b"no tar")
    with pytest.raises(UserError, match=r"images_val\.tar: not a complete, uncompressed tar"):
        read_examples(folder / "index_val.jsonl")


@pytest.mark.slow
def test_the_published_set() -> None:
    folder = real_data("iu_xray")
    if not os.path.isfile(folder / "annotation_256.json"):
        pytest.skip("no annotation_256.json")
    examples = read_examples([folder / "annotation_256.json", folder / "index_rest.jsonl"])
    counts = {split: sum(bool(e.captions) for e in examples if e.split == split) for split in ("train", "val")}
    assert counts == {"train": 2069, "val": 296}
    assert len(examples) - 2069 - 296 == 871
    assert all(
        example.views[:1] == ("frontal",) for example in examples if len(example.views) == 2 and not example.captions
    )
