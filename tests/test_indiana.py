"""The Indiana chest X-rays in Kaggle's form, and R2Gen's annotation of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from latentcap.data.errors import UserError
from latentcap.data.readers import Fields, read_examples
from tests.helpers import real_data

REPORTS = """uid,MeSH,Problems,image,indication,comparison,findings,impression
7,normal,normal,Xray Chest PA and Lateral,58-year-old woman with XXXX,None.,1. Clear lungs. 2. No effusion,Normal chest.
8,Opacity,Opacity;Scar,Chest,None,,,Scar XXXX.
9,normal,normal,Chest,Cough,,Clear.,
"""
PROJECTIONS = """uid,filename,projection
7,7_IM-2263-2001.dcm.png,Lateral
7,7_IM-2263-1001.dcm.png,Frontal
7,7_IM-2263-1002.dcm.png,Frontal
8,8_IM-0001-1001.dcm.png,Frontal
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "indiana_reports.csv").write_text(REPORTS)
    (tmp_path / "indiana_projections.csv").write_text(PROJECTIONS)
    (tmp_path / "images").mkdir()
    Image.new("L", (8, 6)).save(tmp_path / "images" / "CXR7_IM-2263-1001.png")
    return tmp_path


def test_reports_with_their_views(folder: Path) -> None:
    seven, eight = read_examples(folder)  # 9 has no image
    assert seven.views == ("frontal", "lateral")
    assert seven.images[0].path == str(folder / "images" / "CXR7_IM-2263-1001.png")
    assert seven.images[1].path == str(folder / "7_IM-2263-2001.dcm.png")
    assert seven.captions == ("Clear lungs. No effusion.",)
    assert seven.context == "indication: 58-year-old woman with <deid>. exam: Xray Chest PA and Lateral."
    assert (seven.numbers["age"], seven.categories["sex"]) == (58, "female")
    assert seven.labels == {"normality": "normal", "problems": "normal"}
    assert eight.labels == {"normality": "abnormal", "problems": "opacity;scar"}
    (seven, _) = read_examples(folder, fields=Fields(labels=("findings",)))
    assert seven.labels["findings"] == "No Finding"
    assert (eight.captions, eight.context) == ((), "exam: Chest.")


def test_the_target_is_a_setting(folder: Path) -> None:
    impressions = read_examples(folder / "indiana_reports.csv", fields=Fields(report="impression"))
    assert [example.captions for example in impressions] == [("Normal chest.",), ("Scar <deid>.",)]
    both = read_examples(folder, fields=Fields(report="both", text_style="r2gen"))
    assert both[0].captions == ("clear lungs . no effusion normal chest .",)
    with pytest.raises(UserError, match=r"fields.report is 'finding'.*findings, impression, both, case"):
        Fields(report="finding")


def test_splits(folder: Path) -> None:
    assert [example.split for example in read_examples(folder)] == [example.split for example in read_examples(folder)]
    (folder / "annotation.json").write_text(json.dumps({"val": [{"id": "CXR7_IM-2263"}], "train": []}))
    assert [example.split for example in read_examples(folder)] == ["val", "train"]


def test_a_missing_column_is_named(folder: Path) -> None:
    (folder / "indiana_projections.csv").write_text("uid,filename\n7,a.png\n")
    with pytest.raises(UserError, match=r"no column projection\. Columns found: uid, filename"):
        read_examples(folder)


def test_r2gen_annotation_with_images_beside_it(tmp_path: Path) -> None:
    row = {"id": "CXR1_IM-1", "report": "1. Clear.", "image_path": ["CXR1/0.png", "CXR1/1.png"], "split": "val"}
    (tmp_path / "annotation.json").write_text(json.dumps({"train": [], "val": [row]}))
    (tmp_path / "images" / "CXR1").mkdir(parents=True)
    Image.new("L", (8, 6)).save(tmp_path / "images" / "CXR1" / "0.png")
    (example,) = read_examples(tmp_path / "annotation.json", fields=Fields(text_style="clean"))
    assert (example.split, example.captions) == ("val", ("Clear.",))
    assert [image.path for image in example.images] == [str(tmp_path / "images" / "CXR1" / f"{n}.png") for n in "01"]


def test_real_files() -> None:
    examples = read_examples(real_data("iu_xray"))
    assert len(examples) == 3851
    splits = Counter(example.split for example in examples)
    assert (splits["val"], splits["test"]) == (296, 590)
    assert sum(not example.captions for example in examples) == 514
    assert {example.views for example in examples} == {("frontal", "lateral"), ("frontal",), ("lateral",)}
    seven = next(example for example in examples if example.id == "CXR7")
    assert [image.open().size[0] > 0 for image in seven.images] == [True, True]
    annotated = read_examples(real_data("iu_xray") / "annotation.json")
    assert Counter(example.split for example in annotated) == {"train": 2069, "val": 296, "test": 590}
    assert {len(example.images) for example in annotated} == {2}
