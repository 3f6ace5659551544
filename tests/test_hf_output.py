"""A data set folder for Hugging Face: ``datasets`` loads it, images and all; so do training and evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from latentcap.batch.inputs import Input
from latentcap.batch.outputs import make_output
from latentcap.batch.outputs.hf import HuggingFaceFolder
from latentcap.data.example import ImageRef
from latentcap.data.readers import read_examples
from latentcap.evaluation.predictions import read_predictions

NAMES = ("a.jpg", "b.png", "c.webp")


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three images in two shards."""
    monkeypatch.setattr(HuggingFaceFolder, "per_part", 2)
    output = make_output(tmp_path / "set", tmp_path / "set.run", "hf")
    with output.journal:
        for name in NAMES:
            Image.new("RGB", (5, 4), "red").save(tmp_path / name)
            more = {"alternatives": [{"caption": "next best"}]} if name == "b.png" else {"context": "where"}
            place = [[str(tmp_path / name), None, None, ""]]
            output.append([{"file": f"x/{name}", "caption": f"of {name}", "score": -1.5, "_images": place, **more}])
    output.finish()
    return tmp_path / "set"


def test_datasets_loads_it(written: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.load_dataset(str(written), cache_dir=str(tmp_path / "cache"), split="train")
    assert isinstance(rows.features["image"], datasets.Image)
    assert [row["file"] for row in rows] == [f"x/{name}" for name in NAMES]
    assert rows[1]["image"].size == (5, 4)
    assert rows[1]["image"].format == "PNG"
    assert rows[1]["alternatives"] == ["next best"]
    assert rows[0]["alternatives"] == []
    assert rows[0]["context"] == "where"
    assert rows[2]["caption"] == "of c.webp"
    assert rows[2]["score"] == -1.5


def test_training_and_evaluation_read_it(written: Path) -> None:
    examples = read_examples(written)
    assert [example.captions for example in examples] == [("of a.jpg",), ("of b.png",), ("of c.webp",)]
    assert examples[2].images[0].open().size == (5, 4)
    assert [(caption.file, caption.text) for caption in read_predictions(written).captions] == [
        (f"x/{name}", f"of {name}") for name in NAMES
    ]


def test_a_card_that_somebody_has_written_stays(written: Path) -> None:
    assert "data/train-*.parquet" in (written / "README.md").read_text()
    output = make_output(written, written.with_name("set.run"), "hf")
    (written / "README.md").write_text("mine")
    output.finish()
    output.clear()
    assert [path.name for path in written.rglob("*.*")] == ["README.md"]


def test_what_cannot_be_taken_along(tmp_path: Path) -> None:
    output = make_output(tmp_path / "set", tmp_path / "set.run", "hf")
    for images, reason in (
        ([ImageRef("a.dcm")], "names the patient"),
        ([ImageRef("a", data=b"x")], "in a table"),
        ([ImageRef("a.jpg"), ImageRef("b.jpg")], "2 views"),
    ):
        refused = output.prepare(Input("a", tuple(images)), known=False)
        assert refused is not None
        assert reason in refused.error
    with output.journal:
        output.append([{"file": "a", "caption": "b", "_images": [[str(tmp_path / "gone.jpg"), None, None, ""]]}])
    output.finish()
    assert output.lost == [{"file": "a", "error": "was captioned and cannot be read now (No such file or directory)"}]
