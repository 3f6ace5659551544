"""The outputs of several parts of one job as one, in every format that is one file or a folder of Parquet files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from PIL import Image

from latentcap.batch.merge import merge
from latentcap.batch.outputs import make_output
from latentcap.batch.run_folder import RunFolder
from latentcap.data.errors import UserError


def shards(folder: Path, name: str, kind: str, files: list[list[str]], **more: Any) -> Path:
    """Outputs as of ``latentcap caption --num-shards``."""
    path = folder / name
    for index, part in enumerate(files):
        shard = path.with_name(f"{path.stem}-{index:05d}-of-{len(files):05d}{path.suffix}")
        run = shard.with_name(f"{shard.name}.run")
        output = make_output(shard, run, kind, **more)
        with RunFolder(run, output=str(shard)) as run_folder:
            run_folder.begin({"format": kind, "shard": f"{index}/{len(files)}"}, empty=False)
            with output.journal:
                for file in part:
                    Image.new("RGB", (4, 4)).save(folder / file)
                    place = [[str(folder / file), None, None, ""]]
                    output.append([{"file": file, "caption": f"of {file}", "_images": place}])
            output.finish()
            run_folder.update(status="complete")
    return path


def test_coco_s_results(tmp_path: Path) -> None:
    ids = {"a.jpg": "007", "b.jpg": 0, "c.jpg": 5}
    (tmp_path / "ids.json").write_text(
        json.dumps({"images": [{"id": id, "file_name": name} for name, id in ids.items()]})
    )
    known = tmp_path / "ids.json"
    path = shards(tmp_path, "r.json", "coco", [["b.jpg"], ["a.jpg", "c.jpg"]], image_ids=known)
    assert merge(path) == (2, 3)
    rows = json.loads(path.read_text())
    assert [(row["image_id"], row["caption"]) for row in rows] == [
        (0, "of b.jpg"),
        ("007", "of a.jpg"),
        (5, "of c.jpg"),
    ]


def test_an_id_of_two_images_in_two_parts(tmp_path: Path) -> None:
    path = shards(tmp_path, "r.json", "coco", [["a1.jpg"], ["b1.jpg"]])
    with pytest.raises(UserError, match=r"image_id 1 is that of a1\.jpg and of b1\.jpg"):
        merge(path)
    assert not path.exists()


@pytest.mark.parametrize(("kind", "pattern"), [("hf", "data/train-*.parquet"), ("parts", "part-*.parquet")])
def test_folders_of_parquet_files(kind: str, pattern: str, tmp_path: Path) -> None:
    path = shards(tmp_path, "set", kind, [["b.jpg"], ["x.jpg"], ["a.jpg", "c.jpg"]])
    assert merge(path) == (3, 4)
    (tmp_path / "set-00001-of-00003.run" / "captions.jsonl").unlink()
    next((tmp_path / "set-00001-of-00003").glob(pattern)).unlink()
    assert merge(path) == (3, 3)
    files = sorted(path.glob(pattern))
    assert [file.name[-8 - 5 - 1 : -8] for file in files] == ["-00000", "-00001"]
    rows = [row for file in files for row in pyarrow.parquet.read_table(file).to_pylist()]
    assert [row["file"] for row in rows] == ["b.jpg", "a.jpg", "c.jpg"]
    assert (path / "README.md").exists() == (kind == "hf")


@pytest.mark.parametrize("kind", ["jsonl", "csv", "coco", "parts"])
def test_what_no_merge_has_written_is_not_written_over(kind: str, tmp_path: Path) -> None:
    path = shards(tmp_path, f"all.{kind}", kind, [["a1.jpg"], ["b2.jpg"]])
    file = path / "part-00000.parquet" if kind == "parts" else path
    file.parent.mkdir(exist_ok=True)
    file.write_text("")
    assert merge(path) == merge(path) == (2, 2)  # over what is empty, and over itself
    RunFolder(tmp_path / f"all-00000-of-00002.{kind}.run", output="").clear()  # as --overwrite does
    (tmp_path / f"all-00000-of-00002.{kind}").unlink() if kind != "parts" else None
    shards(tmp_path, f"all.{kind}", kind, [["c3.jpg"], []])
    assert merge(path) == (2, 2)
    file.write_text("precious")
    with pytest.raises(UserError, match=rf"all\.{kind}: exists, and no merge of these parts has written it"):
        merge(path)
    assert file.read_text() == "precious"


def test_texts_have_nothing_to_merge(tmp_path: Path) -> None:
    path = shards(tmp_path, "texts", "txt", [["a.jpg"]])
    with pytest.raises(UserError, match="nothing to merge"):
        merge(path)
