from __future__ import annotations

import csv
import io
import json
import os
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from latentcap.data.errors import UserError
from latentcap.data.example import Example
from latentcap.data.readers import Fields, read_examples


def _jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), "teal").save(buffer, "JPEG")
    return buffer.getvalue()


JPEG = _jpeg()


def put(path: Path, content: str | bytes | list | dict = JPEG) -> Path:
    """Write bytes, text, JSON Lines (a list for .jsonl) or JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, list) and path.suffix == ".jsonl":
        content = "\n".join(json.dumps(row) for row in content)
    elif isinstance(content, list | dict):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def put_tar(path: Path, members: dict[str, bytes | str | dict]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            encoded = json.dumps(content).encode() if isinstance(content, dict) else content
            encoded = encoded.encode() if isinstance(encoded, str) else encoded
            info = tarfile.TarInfo(name)
            info.size = len(encoded)
            archive.addfile(info, io.BytesIO(encoded))
    return path


def captions_by_id(examples: list[Example]) -> dict[str, tuple[str, ...]]:
    return {example.id: example.captions for example in examples}


def fails(source: object, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        read_examples(source, **options)  # type: ignore[arg-type]
    return str(caught.value)


# imagefolder and sidecar


def test_imagefolder_with_one_table_and_split_folders(tmp_path: Path) -> None:
    put(tmp_path / "metadata.csv", 'file_name,text\ntrain/a.jpg,"one, two"\nvalidation/b.jpg,three\n')
    put(tmp_path / "train/a.jpg")
    a, b = read_examples(tmp_path)
    assert (a.id, a.captions, a.split) == ("train/a.jpg", ("one, two",), "train")
    assert (b.captions, b.split) == (("three",), "val")
    assert a.images[0].open().size == (8, 6)


def test_imagefolder_with_a_table_in_every_split_folder(tmp_path: Path) -> None:
    put(tmp_path / "train/metadata.jsonl", [{"file_name": "a.jpg", "captions": ["x", "y"]}])
    put(tmp_path / "dev/metadata.jsonl", [{"file_name": "a.jpg", "text": "z"}])
    put(tmp_path / "dev/a.jpg")
    dev, train = read_examples(tmp_path)
    assert (dev.id, dev.split, dev.captions) == ("dev/a.jpg", "val", ("z",))
    assert (train.id, train.split, train.captions) == ("train/a.jpg", "train", ("x", "y"))
    assert dev.images[0].read_bytes() == JPEG


def test_sidecar_is_recursive_and_takes_a_caption_a_line(tmp_path: Path) -> None:
    put(tmp_path / "a.PNG")
    put(tmp_path / "a.txt", "first\n\n second \n")
    put(tmp_path / "test/deep/b.webp")
    put(tmp_path / "test/deep/b.caption", "third")
    put(tmp_path / "c.jpg")
    examples = read_examples(tmp_path)
    assert captions_by_id(examples) == {"a.PNG": ("first", "second"), "c.jpg": (), "test/deep/b.webp": ("third",)}
    assert [example.split for example in examples] == ["train", "train", "test"]


# tables

ROWS = [
    {"image": "a.jpg", "caption": "one", "age": "71", "sex": " F ", "context": "cough", "split": "Validation"},
    {"image": "a.jpg", "caption": "two", "age": "71", "sex": "F", "context": "cough", "split": "val"},
    {"image": "b.jpg", "caption": "three", "age": "N/A", "sex": "", "context": "  ", "split": "restval"},
    {"image": "c.jpg", "caption": "four", "age": "", "sex": "M", "context": "N/A", "split": "test"},
]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_every_kind_of_table_reads_alike(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"data.{suffix}"
    if suffix in ("jsonl", "json"):
        put(path, ROWS)
    elif suffix == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ROWS[0], delimiter="\t" if suffix == "tsv" else ",")
            writer.writeheader()
            writer.writerows(ROWS)
    a, b, c = read_examples(path, fields=Fields(numbers=("age",), categories=("sex",)))
    assert (a.id, a.captions, a.context, a.split) == ("a.jpg", ("one", "two"), "cough", "val")
    assert (a.numbers, a.categories) == ({"age": 71.0}, {"sex": "F"})
    assert (b.context, b.numbers, b.categories, b.split) == (None, {"age": None}, {"sex": None}, "train")
    assert (c.context, c.numbers, c.split) == (None, {"age": None}, "test")
    assert a.images[0].path == str(tmp_path / "a.jpg")


def test_numbers_that_do_not_parse_are_missing(tmp_path: Path) -> None:
    values = [3, "4.5", "N/A", "", None, float("nan"), float("inf"), "about 60", [1]]
    rows = [{"path": f"{i}.jpg", "text": "x", "n": value} for i, value in enumerate(values)]
    examples = read_examples(put(tmp_path / "t.jsonl", rows), fields=Fields(numbers=("n",)))
    assert [example.numbers["n"] for example in examples] == [3.0, 4.5] + [None] * 7


def test_several_views_paraphrases_and_image_root(tmp_path: Path) -> None:
    put(tmp_path / "pictures/1.jpg")
    row = {"id": "study", "image_path": ["1.jpg", "2.jpg"], "report": "clear", "paraphrases": ["no finding"]}
    (example,) = read_examples(put(tmp_path / "t.jsonl", [row]), image_root=tmp_path / "pictures")
    assert (example.id, example.paraphrases) == ("study", ("no finding",))
    assert [Path(ref.path).name for ref in example.images] == ["1.jpg", "2.jpg"]
    assert example.images[0].open().size == (8, 6)


def test_rows_merge_where_only_the_caption_differs_and_a_named_id_keeps_them_apart(tmp_path: Path) -> None:
    rows = [{"id": i, "image": "a.jpg", "caption": f"c{i}"} for i in range(3)]
    path = put(tmp_path / "t.jsonl", rows)
    assert captions_by_id(read_examples(path)) == {"0": ("c0", "c1", "c2")}
    assert [e.captions for e in read_examples(path, fields=Fields(id="id"))] == [("c0",), ("c1",), ("c2",)]
    rows = [{"image": "a.jpg", "caption": "c", "context": text} for text in ("fever", "cough")]
    assert list(captions_by_id(read_examples(put(tmp_path / "u.jsonl", rows)))) == ["a.jpg", "a.jpg#2"]


def test_embedded_images_of_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [
        {"image": {"bytes": JPEG, "path": "a.jpg"}, "text": "x"},
        {"image": {"bytes": None, "path": "b.jpg"}, "text": "y"},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "validation-00000.parquet")
    a, b = read_examples(tmp_path / "validation-00000.parquet")
    assert (a.id, b.id, a.split) == ("a.jpg", "b.jpg", "val")
    assert a.images[0].open().size == (8, 6)
    assert b.images[0].path == str(tmp_path / "b.jpg")


def test_json_of_lists_by_split(tmp_path: Path) -> None:
    rows = {"train": [{"image": "a.jpg", "caption": "x"}], "val": [{"image": "b.jpg", "caption": "y"}], "test": []}
    assert [e.split for e in read_examples(put(tmp_path / "annotation.json", rows))] == ["train", "val"]


# COCO, Karpathy, Flickr8k


def test_coco_beside_its_images(tmp_path: Path) -> None:
    put(tmp_path / "val2014/1.jpg")
    annotations = [{"image_id": 1, "caption": " a\n"}, {"image_id": 1, "caption": "b"}]
    images = [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}]
    path = put(tmp_path / "annotations/captions_val2014.json", {"images": images, "annotations": annotations})
    one, two = read_examples(path)
    assert (one.captions, two.captions, one.split) == (("a", "b"), (), "val")
    assert one.images[0].read_bytes() == JPEG
    assert read_examples(path, image_root=tmp_path)[0].images[0].read_bytes() == JPEG


def test_karpathy(tmp_path: Path) -> None:
    put(tmp_path / "val2014/1.jpg")
    images = [
        {"filename": "1.jpg", "filepath": "val2014", "split": "restval", "sentences": [{"raw": "a"}, {"raw": "b"}]},
        {"filename": "2.jpg", "filepath": "val2014", "split": "test", "sentences": [{"raw": "c"}]},
    ]
    one, two = read_examples(put(tmp_path / "dataset_coco.json", {"images": images, "dataset": "coco"}))
    assert (one.id, one.captions, one.split, two.split) == ("val2014/1.jpg", ("a", "b"), "train", "test")
    assert one.images[0].read_bytes() == JPEG


def test_flickr8k_token_file_with_lists(tmp_path: Path) -> None:
    put(tmp_path / "Flickr8k.token.txt", "a.jpg#0\tone .\na.jpg#1\ttwo .\nb.jpg#0\tthree .\nbroken.jpg.1#0\tno .\n")
    put(tmp_path / "Flickr_8k.trainImages.txt", "a.jpg\n")
    put(tmp_path / "Flickr_8k.devImages.txt", "b.jpg\n")
    put(tmp_path / "Flicker8k_Dataset/a.jpg")
    a, b = read_examples(tmp_path)
    assert (a.captions, a.split, b.split) == (("one .", "two ."), "train", "val")
    assert a.images[0].read_bytes() == JPEG
    assert read_examples(tmp_path / "Flickr8k.token.txt") == [a, b]


def test_flickr8k_captions_with_commas_and_without_lists(tmp_path: Path) -> None:
    put(tmp_path / "captions.txt", 'image,caption\na.jpg,a dog , wet\na.jpg,"a ""wet"" dog, running"\n')
    (example,) = read_examples(tmp_path)
    assert example.captions == ("a dog , wet", 'a "wet" dog, running')
    assert example.split == "train"


# WebDataset


def test_webdataset_reads_at_random_without_unpacking(tmp_path: Path) -> None:
    long_key = "folder/" + "k" * 150
    put_tar(
        tmp_path / "x-00.tar", {"./a.jpg": JPEG, "./a.txt": "one\ntwo\n", "b.PNG": JPEG, "b.txt": "three", "n.txt": "-"}
    )
    put_tar(
        tmp_path / "val-01.tar",
        {
            f"{long_key}.jpg": JPEG,
            f"{long_key}.json": {"caption": "four", "age": "7", "paraphrases": ["quatre"], "split": "test"},
            "c.0.jpg": JPEG,
            "c.1.jpg": JPEG,
            "c.json": {"caption": "five"},
        },
    )
    a, b = read_examples(tmp_path / "x-00.tar")
    assert (a.id, a.captions, b.captions, a.split) == ("a", ("one", "two"), ("three",), "train")
    four, five = read_examples(tmp_path / "val-01.tar", fields=Fields(numbers=("age",)))
    assert (four.id, four.split, four.numbers, four.paraphrases) == (long_key, "test", {"age": 7.0}, ("quatre",))
    assert (five.split, five.numbers, len(five.images)) == ("val", {"age": None}, 2)
    assert all(ref.read_bytes() == JPEG for example in (a, b, four, five) for ref in example.images)


def test_sources_in_lists_globs_braces_and_folders(tmp_path: Path) -> None:
    for number in range(8, 11):
        put_tar(tmp_path / f"x-{number:02}.tar", {f"k{number}.jpg": JPEG, f"k{number}.txt": "c"})
    tars = sorted(tmp_path.glob("*.tar"))
    expected = read_examples(tmp_path)
    assert [example.id for example in expected] == ["k8", "k9", "k10"]
    for source in (
        tars,
        f"{tmp_path}/x-{{08..10}}.tar",
        f"{tmp_path}/x-{{08,09,10}}.tar",
        f"{tmp_path}/x-*.tar",
        ",".join(map(str, tars)),
        f"{tars[0]} {tmp_path}/x-{{09..10}}.tar",
    ):
        assert read_examples(source) == expected
    assert [e.id for e in read_examples([tars[0], tars[0]])] == ["k8", "k8#2"]
    assert "x-11.tar" in fails(f"{tmp_path}/x-{{10..11}}.tar")
    assert "matches" in fails(f"{tmp_path}/y-*.tar")


def test_a_tar_cut_short_is_an_error(tmp_path: Path) -> None:
    path = put_tar(tmp_path / "x.tar", {"a.txt": "c", "a.jpg": JPEG * 40})
    path.write_bytes(path.read_bytes()[:4000])
    assert "not a complete" in fails(path)


# Hugging Face


def test_huggingface_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    put(tmp_path / "dataset_info.json", {})
    assert "latentcap[hf]" in fails(tmp_path)
    assert "latentcap[hf]" in fails("hf:someone/something")


# real data


@pytest.fixture
def real_data() -> Path:
    if "LATENTCAP_DATA" not in os.environ:
        pytest.skip("LATENTCAP_DATA does not name a folder with the RSICD and Open-i data")
    return Path(os.environ["LATENTCAP_DATA"])


def test_rsicd(real_data: Path) -> None:
    examples = read_examples(real_data / "rsicd")
    assert Counter(example.split for example in examples) == {"train": 8734, "val": 1094}
    assert all(len(example.captions) == 5 for example in examples)
    assert len({example.id for example in examples}) == len(examples)
    assert examples[-1].images[0].open().size == (224, 224)


def test_open_i_annotation(real_data: Path) -> None:
    examples = read_examples(real_data / "iu_xray" / "annotation.json")
    assert Counter(example.split for example in examples) == {"train": 2069, "val": 296, "test": 590}
    assert all(len(example.images) == 2 and len(example.captions) == 1 for example in examples)


@pytest.mark.parametrize("column", ["split", "Split", " SPLIT", "set", "subset"])
def test_a_split_column_by_any_name_that_is_usual(tmp_path: Path, column: str) -> None:
    rows = "".join(f"{name}.jpg,a dog,{split}\n" for name, split in (("a", "train"), ("b", "val"), ("c", "test")))
    (tmp_path / "t.csv").write_text(f"Image,caption,{column}\n{rows}")
    assert [example.split for example in read_examples(str(tmp_path / "t.csv"))] == ["train", "val", "test"]


def test_a_set_that_is_no_split_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,caption,set\na.jpg,a dog,train\nb.jpg,a dog,summer\n")
    assert [example.split for example in read_examples(str(tmp_path / "t.csv"))] == ["train", "train"]
