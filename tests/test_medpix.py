"""MedPix 2.0: what is read, and what is not because it is only known once somebody has looked at the image."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from latentcap.cli.prepare import main
from latentcap.data.errors import UserError
from latentcap.data.readers import Fields, read_examples
from tests.helpers import real_data

CASE = {
    "Title": "Hidden Diagnosis",
    "Case Diagnosis": "Hidden Diagnosis",
    "Findings": "Hidden findings.",
    "History": "History (can include gestational age):\n58-year-old man with  neck pain ",
    "Exam": "N/A",
}


def description(name: str, case: str = "MPX1", **changes: object) -> dict[str, object]:
    about = {"Age": " 58", "Sex": "male", "Caption": " A lesion of the left lobe", "Plane": "Transverse"}
    about["Modality"] = "CT - noncontrast"
    row = {"Type": "CT", "U_id": case, "image": name, "Location Category": "Head"}
    return row | {"Description": about | changes}


def write(folder: Path, split: str, rows: list[dict[str, object]], cases: dict[str, dict[str, object]]) -> None:
    lines = [json.dumps(row) for row in rows]
    (folder / f"descriptions_{split}.jsonl").write_text("\n".join(lines))
    lines = [json.dumps({"U_id": name, "Case": case}) for name, case in cases.items()]
    (folder / f"data_{split}.jsonl").write_text("\n".join(lines))
    with tarfile.open(folder / f"images_{split}.tar", "w") as archive:
        for row in rows:
            buffer = io.BytesIO()
            Image.new("L", (8, 6), len(rows)).save(buffer, "PNG")
            info = tarfile.TarInfo(f"{row['image']}.png")
            info.size = buffer.tell()
            buffer.seek(0)
            archive.addfile(info, buffer)


def test_an_image_and_its_case(tmp_path: Path) -> None:
    write(tmp_path, "train", [description("a")], {"MPX1": CASE})
    unknown = description("b", "MPX2", Age="0", Sex="N/A", Plane=None, Modality=None)
    write(tmp_path, "dev", [unknown], {"MPX2": CASE | {"Exam": "Stiff"}})
    dev, train = read_examples(tmp_path)
    assert (train.id, train.split, train.group) == ("a", "train", "MPX1")
    assert train.captions == ("A lesion of the left lobe.",)
    assert train.context == "history: 58-year-old man with neck pain."
    assert train.numbers == {"age": 58.0}
    assert train.categories == {"sex": "male", "acquisition": "CT - noncontrast", "plane": "axial"}
    assert train.labels == {"modality": "CT", "plane": "axial", "location": "Head"}
    assert train.images[0].open().size == (8, 6)
    assert (dev.split, dev.numbers) == ("val", {"age": None})
    assert dev.categories == {"sex": None, "acquisition": None, "plane": None}
    assert dev.context is not None
    assert dev.context.endswith("exam: Stiff.")
    assert "Hidden" not in f"{train}{dev}"


def test_one_split_and_images_in_a_folder(tmp_path: Path) -> None:
    write(tmp_path, "dev", [description("a")], {"MPX1": CASE})
    (tmp_path / "images_dev.tar").unlink()
    (tmp_path / "images").mkdir()
    Image.new("L", (5, 5)).save(tmp_path / "images" / "a.jpg")
    (example,) = read_examples(tmp_path / "descriptions_dev.jsonl", fields=Fields(text_style="none"))
    assert example.split == "val"
    assert example.captions == ("A lesion of the left lobe",)
    assert example.images[0].open().size == (5, 5)


def test_a_case_in_two_splits_is_refused_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "train", [description("a"), description("b")], {"MPX1": CASE})
    write(tmp_path, "test", [description("c")], {"MPX1": CASE})
    with pytest.raises(UserError, match=r"1 patients or cases .* MPX1 \(test, train\)"):
        read_examples(tmp_path)
    assert main(["check", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "patients or cases in more than one split: 1\n  MPX1 (test, train)" in printed
    assert "field 'age': missing in train 0 of 2, test 0 of 1 examples" in printed


def test_the_forms_own_words_are_no_caption(tmp_path: Path) -> None:
    words = "Replace this - DESCRIPTION OF THE IMAGE OR FINDINGS."
    write(tmp_path, "train", [description("a", Caption=words), description("b")], {"MPX1": CASE})
    assert [example.captions for example in read_examples(tmp_path)] == [(), ("A lesion of the left lobe.",)]


def test_what_was_written_about_a_case_as_reference(tmp_path: Path) -> None:
    long = " ".join(f"word{place}" for place in range(50))
    case = {"Findings": f"{long}. The liver is normal. See https://example.org/a for more.", "Discussion": "None."}
    rows = [{"U_id": "MPX1", "Case": case, "Topic": {"Disease Discussion": "It is rare in children."}}]
    write(tmp_path, "train", [description("a")], {})
    (tmp_path / "data_train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (example,) = read_examples(tmp_path, fields=Fields(report="case"))
    words = long.split()
    assert example.captions == (
        " ".join(words[:45]) + ".",
        " ".join(words[45:]) + ". The liver is normal. See for more.",
        "It is rare in children.",
    )
    assert example.context is None


def test_mistakes_are_named(tmp_path: Path) -> None:
    write(tmp_path, "train", [description("a", "MPX9")], {"MPX1": CASE})
    with pytest.raises(UserError, match=r"line 1: case MPX9 is not in the file of cases"):
        read_examples(tmp_path)
    (tmp_path / "data_train.jsonl").unlink()
    with pytest.raises(UserError, match=r"data_train.jsonl: the cases of these descriptions are missing"):
        read_examples(tmp_path)


def test_real_files() -> None:
    examples = read_examples(real_data("medpix"))
    assert Counter(example.split for example in examples) == {"train": 1653, "val": 197}
    assert Counter(example.split for example in examples if example.captions) == {"train": 1638, "val": 191}
    assert all(example.images[0].offset is not None for example in examples)
    assert Counter(example.labels["modality"] for example in examples) == {"CT": 962, "MR": 888}
    ages = [example.numbers["age"] for example in examples]
    assert sum(age is None for age in ages) == 63
    assert sum(example.categories["sex"] is None for example in examples) == 58
    assert sum(example.context is None for example in examples) < 10
    assert examples[0].images[0].open().mode == "RGB"
