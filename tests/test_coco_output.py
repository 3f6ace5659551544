"""COCO's results: where ids come from, and that our own evaluation reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentcap.batch.inputs import Input, Inputs
from latentcap.batch.outputs import make_output
from latentcap.batch.outputs.coco import read_image_ids
from latentcap.data.errors import UserError
from latentcap.evaluation.predictions import read_predictions


def results(folder: Path, inputs: list[Input], ids: Path | None = None) -> tuple[list[dict[str, object]], list[str]]:
    """What is written for these inputs, and the errors of the others."""
    output = make_output(folder / "out.json", folder / "out.json.run", "coco", image_ids=ids)
    prepared = [wanted for item in inputs if (wanted := output.prepare(item, known=False))]
    good = [item for item in prepared if not item.error]
    with output.journal:
        output.append([{"file": item.name, "caption": f"of {item.name}", "_id": item.id} for item in good])
    output.finish(quiet=True)
    return json.loads((folder / "out.json").read_text()), [item.error for item in prepared if item.error]


def test_ids_are_the_last_number_in_the_name(tmp_path: Path) -> None:
    names = ("deep/COCO_val2014_000000391895.jpg", "x.tar:a/0042.jpg", "red.jpg", "42.png", "77_6af2c1.jpg", "img8.jpg")
    written, errors = results(tmp_path, [Input(name, ()) for name in names])
    assert [row["image_id"] for row in written] == [391895, 42, 77, 8]
    assert set(written[0]) == {"image_id", "caption"}
    assert errors[0].startswith("no image_id: its name has no digits")
    assert errors[1] == "image_id 42 is that of another image already"
    assert [caption.id for caption in read_predictions(tmp_path / "out.json").captions] == ["391895", "42", "77", "8"]


def test_ids_of_a_table_come_first(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"file": "1.jpg", "image_id": 7}\n{"file": "2.jpg", "image_id": "seven"}\n')
    written, errors = results(tmp_path, list(Inputs([str(tmp_path / "t.jsonl")])))
    assert [row["image_id"] for row in written] == [7, "seven"]
    (tmp_path / "t.csv").write_text("file,image_id\n1.jpg,139.0\n2.jpg,\n3.jpg,v1.0\n")
    written, errors = results(tmp_path, list(Inputs([str(tmp_path / "t.csv")])))
    assert [row["image_id"] for row in written[-3:]] == [139, 2, "v1.0"]
    assert not errors


def test_ids_of_coco_s_annotations(tmp_path: Path) -> None:
    ids = tmp_path / "coco.json"
    ids.write_text(json.dumps({"images": [{"id": 5, "file_name": "1.jpg"}, {"id": 6, "file_name": "a/2.jpg"}]}))
    written, errors = results(tmp_path, [Input(name, ()) for name in ("deep/1.jpg", "a/2.jpg", "3.jpg")], ids)
    assert [row["image_id"] for row in written] == [5, 6]
    assert errors == ["no image_id: it is not in --image-ids"]
    ids.write_text("[]")
    with pytest.raises(UserError, match="as in COCO's annotations"):
        read_image_ids(ids)
