"""What readers say of options, paths, folders and files that are wrong."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from latentcap.data.errors import UserError
from latentcap.data.readers import Fields, read_examples
from tests.test_readers import JPEG, ROWS, fails, put


def test_split_selects_and_an_empty_one_lists_the_splits(tmp_path: Path) -> None:
    path = put(tmp_path / "t.jsonl", ROWS)
    assert [example.id for example in read_examples(path, split="dev")] == ["a.jpg"]
    put(tmp_path / "u.jsonl", ROWS[:3])
    assert "train (1), val (1)" in fails(tmp_path / "u.jsonl", split="test")
    assert "not a split" in fails(path, split="holdout")
    assert "row 1: 'odd'" in fails(put(tmp_path / "v.jsonl", [ROWS[0] | {"split": "odd"}]))


def test_the_file_name_states_the_split_of_rows_that_do_not(tmp_path: Path) -> None:
    rows = [{"image": "a.jpg", "caption": "x"}]
    names = {"descriptions_dev.jsonl": "val", "test.jsonl": "test", "train_val.jsonl": "train", "latest.jsonl": "train"}
    assert {name: read_examples(put(tmp_path / name, rows))[0].split for name in names} == names


def test_captions_are_needed_unless_switched_off(tmp_path: Path) -> None:
    path = put(tmp_path / "t.csv", "image,label\na.jpg,cat\n")
    assert "Columns found: image, label" in fails(path)
    assert read_examples(path, fields=Fields(caption=""))[0].captions == ()
    assert read_examples(path, fields=Fields(caption="label"))[0].captions == ("cat",)
    assert "Did you mean 'label'?" in fails(path, fields=Fields(caption="lable"))
    assert "no column 'age'" in fails(path, fields=Fields(caption="label", numbers=("age",)))


def test_paths_that_are_wrong(tmp_path: Path) -> None:
    put(tmp_path / "photos/a.jpg")
    assert "Did you mean 'photos'?" in fails(tmp_path / "potos" / "x")
    message = fails(str(tmp_path) + "/" + "a" * 4096)
    assert "too long" in message
    assert len(message) < 500
    assert "too long" in fails("/".join(["abc"] * 1100))
    assert "no data was given" in fails([])
    assert "image root does not exist" in fails(tmp_path, image_root=tmp_path / "nowhere")


def test_folders_that_are_wrong(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty" in fails(tmp_path / "empty")
    put(tmp_path / "bare/a.jpg")
    put(tmp_path / "bare/labels.csv", "image,caption\na.jpg,x\n")
    message = fails(tmp_path / "bare")
    assert "1 images but no captions" in message
    assert "metadata.jsonl" in message
    assert "labels.csv" in message
    put(tmp_path / "notes/readme.md", "hello")
    assert "no images" in fails(tmp_path / "notes")
    assert "needs a file" in fails(tmp_path / "notes", format="coco")


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("t.csv", "picture,caption\na.jpg,x\n", "Columns found: picture, caption"),
        ("t.tsv", "URL\tTEXT\nhttps://a.org/1.jpg\tx\n", "(column URL), where files are needed. Fetch them first"),
        ("t.csv", "image,caption\nhttps://a.org/1.jpg,x\n", "addresses on the web (https://a.org/1.jpg)"),
        ("t.csv", "image,caption\na.jpg,a dog, wet\n", "line 2: 3 fields"),
        ("t.csv", "a.jpg,a dog\n", "no row after the first line, which names the columns: 'a.jpg,a dog'"),
        ("t.csv", "", "the file is empty"),
        ("t.json", " ", "the file is empty"),
        ("t.json", '{"images": [], "annotations": []}', "it has no images"),
        ("t.json", "[]", "the table has no rows"),
        ("t.jsonl", "\n", "the table has no rows"),
        *((f"t.{suffix}", LFS, "git lfs pull") for suffix in ("csv", "jsonl", "json", "parquet", "tar")),
        ("t.json", "<!DOCTYPE html><html>", "a web page"),
        ("t.xlsx", "", "save it as CSV"),
        ("t.csv", b"PK\x03\x04" + bytes(26) + b"[Content_Types].xml", "save it as CSV"),
        ("t.jsonl", '{"image": "a.jpg", "caption": "x"}\n\n{"image": \n', "line 3: not valid JSON"),
        ("t.jsonl", "[1]\n", "line 1: a list"),
        ("t.jsonl", '{"image": null, "caption": "x"}', "row 1: no image"),
        ("t.jsonl", b"\xff\xfe\x00", "not UTF-16"),
        ("t.jsonl", b"\xff\xd8\xff", "not UTF-8"),
        ("t.json", '{"image": "a.jpg"}\n{"image": "b.jpg"}\n', ".jsonl"),
        ("t.json", '{"weights": [1]}', "keys weights"),
        ("t.parquet", "PAR?", "not a readable Parquet"),
        ("t.tar", "no tar at all", "not a complete"),
        ("t.tar.gz", b"\x1f\x8b", "compressed"),
        ("t.pt", b"\x80\x04.", "pickle"),
        ("t.pkl", b"\x80\x04.", "pickle"),
        ("t.txt", "some notes", "not a data set"),
        ("t.jpg", JPEG, "an image alone"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, name: str, content: str | bytes, expected: str) -> None:
    message = fails(put(tmp_path / name, content))
    assert expected in message
    assert name in message


def test_formats_are_forced_and_misspelt(tmp_path: Path) -> None:
    path = put(tmp_path / "t.json", [{"image": "a.jpg", "caption": "x"}])
    assert read_examples(path, format="table")
    assert '"annotations"' in fails(path, format="coco")
    assert "Did you mean 'webdataset'?" in fails(path, format="webdatset")
    assert "needs a folder" in fails(path, format="sidecar")


def test_images_are_not_touched_on_reading(tmp_path: Path) -> None:
    (example,) = read_examples(put(tmp_path / "t.jsonl", [{"image": "nowhere.jpg", "caption": "x"}]))
    with pytest.raises(OSError, match="nowhere"):
        example.images[0].open()


def test_tables_a_folder_further_down_are_named(tmp_path: Path) -> None:
    """As COCO's own archives unpack."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "captions_train2017.json").write_text("{}")
    Image.new("RGB", (8, 8)).save(tmp_path / "1.jpg")
    with pytest.raises(UserError, match=r"give its path: annotations/captions_train2017\.json\."):
        read_examples(str(tmp_path))


def test_texts_of_a_parquet_file_that_are_damaged(tmp_path: Path) -> None:
    texts = pyarrow.array([b"a dog", b"a\xff"]).view(pyarrow.string())
    table = pyarrow.table({"image": ["1.jpg", "2.jpg"], "caption": texts})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"t\.parquet: not a readable Parquet file \('utf-8' codec"):
        read_examples(str(tmp_path / "t.parquet"))
