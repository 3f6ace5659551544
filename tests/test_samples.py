"""Images with texts of the same name, in folders and tars; and data sets as they lie on a hub."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from latentcap.data.errors import UserError
from latentcap.data.example import Example
from latentcap.data.readers import Fields, read_examples
from latentcap.data.readers.fields import Skipped


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), "teal").save(buffer, "JPEG")
    return buffer.getvalue()


JPEG = jpeg()


def content(name: str, text: str) -> bytes:
    return text.encode() if name.endswith((".txt", ".caption", ".json", ".csv", ".jsonl")) else JPEG


def folder(path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content(name, text))
    return path


def tar(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path / "x-train.tar", "w") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content(name, text))
            archive.addfile(info, io.BytesIO(content(name, text)))
    return path / "x-train.tar"


def read(source: Path, **more: object) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Captions by id without suffix, and what was skipped with the reason."""
    skipped: list[Skipped] = []
    examples = read_examples(source, skipped=skipped, **more)  # type: ignore[arg-type]
    captions = {e.id.removesuffix(".jpg"): e.captions for e in examples}
    return captions, {item.name: item.reason for item in skipped}


@pytest.fixture(params=[folder, tar])
def write(request: pytest.FixtureRequest) -> object:
    return request.param


def test_names_may_have_dots(tmp_path: Path, write: object) -> None:
    names = ["IMG_2024.01.00", "IMG_2024.01.01", "plain", "v1.2.final"]
    files = {f"{name}{suffix}": f"of {name}" for name in names for suffix in (".jpg", ".txt")}
    assert read(write(tmp_path, files)) == ({name: (f"of {name}",) for name in names}, {})  # type: ignore[operator]


def test_every_suffix_of_images_and_texts(tmp_path: Path, write: object) -> None:
    files = {"1.jfif": "", "1.txt": "one", "2.AVIF": "", "2.caption": "two", "3.JPG": "", "3.TXT": "", "3.txt": "three"}
    files = {name: text for name, text in files.items() if name != "3.TXT"}
    captions, skipped = read(write(tmp_path, files))  # type: ignore[operator]
    assert sorted(captions.values()) == [("one",), ("three",), ("two",)]
    assert not skipped


def test_what_belongs_to_nothing_is_named(tmp_path: Path, write: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentcap.data.kinds.find_spec", lambda name: None)  # what reads raw files is not installed
    files = {
        "a.jpg": "",
        "a.txt": "one",
        "b.txt": "lost",
        "c.json": '{"caption": "lost too"}',
        "d.mp4": "",
        "e.dng": "",
    }
    files |= {"f.jpg": "", "README.txt": "about", "00000_stats.json": '{"count": 1}', "a.png": ""}
    captions, skipped = read(write(tmp_path, files))  # type: ignore[operator]
    assert {name: text for name, text in captions.items() if "png" not in name} == {"a": ("one",), "f": ()}
    assert {name: reason.split(":")[0] for name, reason in skipped.items()} == {
        "b.txt": "a caption without an image of that name",
        "c.json": "a caption without an image of that name",
        "d.mp4": "a video",
        "e.dng": "a camera's raw file; it needs the extra 'raw'",
        "a.png": "a second image of 'a'; views of one are called a.0.jpg, a.1.jpg, ...",
    }


def test_views_have_numbers(tmp_path: Path, write: object) -> None:
    files = {f"c.{n}.jpg": "" for n in (10, 2, 0)} | {"c.json": '{"caption": "five"}'}
    (example,) = read_examples(write(tmp_path, files))  # type: ignore[operator]
    assert example.id == "c"
    assert [Path(ref.name or ref.path).name for ref in example.images] == ["c.0.jpg", "c.2.jpg", "c.10.jpg"]


def test_an_unpacked_webdataset_is_read(tmp_path: Path) -> None:
    files: dict[str, str] = {}
    for key in ("00000/000000000", "00000/000000001", "00001/000010000"):
        files |= {
            f"{key}.jpg": "",
            f"{key}.txt": "text",
            f"{key}.json": json.dumps({"caption": f"of {key}", "width": 8}),
        }
    files |= {"00000_stats.json": '{"count": 2}', "00001_stats.json": '{"count": 1}'}
    folder(tmp_path, files)
    (tmp_path / "00000.parquet").write_bytes(b"PAR1")
    captions, skipped = read(tmp_path)
    assert captions["00000/000000001"] == ("of 00000/000000001",)
    assert len(captions) == 3
    assert not skipped
    (example, *_) = read_examples(tmp_path, fields=Fields(numbers=("width",)))
    assert example.numbers == {"width": 8.0}


def test_json_without_a_caption_leaves_it_to_the_text(tmp_path: Path, write: object) -> None:
    files = {"a.jpg": "", "a.txt": "one\ntwo\u2028three", "a.json": '{"caption": null, "age": 3}'}
    files |= {"b.jpg": "", "b.json": '["four", "five"]', "c.jpg": "", "c.jpg.txt": "six"}
    captions, _ = read(write(tmp_path, files))  # type: ignore[operator]
    assert list(captions.values()) == [("one", "two\u2028three"), ("four", "five"), ("six",)]


def test_the_same_name_twice_in_a_tar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name in ("a.jpg", "a.txt", "a.jpg", "a.txt"):
            info = tarfile.TarInfo(name)
            info.size = len(content(name, "one"))
            archive.addfile(info, io.BytesIO(content(name, "one")))
    captions, skipped = read(tmp_path / "x.tar")
    assert captions == {"a": ("one",)}
    assert set(skipped) == {"a.jpg", "a.txt"}


def test_files_without_a_suffix_are_known_by_their_content(tmp_path: Path) -> None:
    folder(tmp_path, {"IM0001": "", "IM0001.txt": "one", "1.2.840.7": "", "1.2.840.7.txt": "two"})
    (tmp_path / "Makefile").write_text("all:")
    captions, _ = read(tmp_path)
    assert captions == {"IM0001": ("one",), "1.2.840.7": ("two",)}


def test_images_that_no_metadata_name_are_named(tmp_path: Path) -> None:
    folder(tmp_path, {"train/a.jpg": "", "train/b.jpg": "", "metadata.csv": "file_name,text\ntrain/a.jpg,one\n"})
    assert read(tmp_path) == ({"train/a": ("one",)}, {"train/b.jpg": "no row of the metadata names it"})


def test_our_own_outputs_are_no_data(tmp_path: Path) -> None:
    folder(tmp_path, {"a.jpg": "", "a.txt": "one", "out/b.jpg": "", "out/b.txt": "ours", "out.run/x": ""})
    (tmp_path / "out.run" / "manifest.json").write_text('{"format": "latentcap-run"}')
    assert read(tmp_path)[0] == {"a": ("one",)}


def test_what_training_wrote_among_the_images_is_no_data(tmp_path: Path) -> None:
    folder(tmp_path, {"a.jpg": "", "a.txt": "one", "captions_val.jsonl": '{"file": "a.jpg", "caption": "ours"}'})
    assert read(tmp_path)[0] == {"a": ("one",)}


def test_what_is_skipped_in_training_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_examples(folder(tmp_path, {"a.jpg": "", "a.txt": "one", "b.mp4": "", "c.mp4": ""}))
    assert "2 skipped: 2 (b.mp4, ...): a video" in caplog.text


# hubs


def parquet(path: Path, rows: list[dict[str, object]]) -> None:
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def splits(examples: list[Example]) -> list[tuple[str, str]]:
    return [(example.split, example.captions[0]) for example in examples]


@pytest.mark.parametrize("place", ["data", "", "default"])
def test_a_repository_of_parquet(tmp_path: Path, place: str) -> None:
    for shard in range(2):
        row = {"image": {"bytes": JPEG, "path": None}, "caption": [f"t{shard}"]}
        parquet(tmp_path / place / f"train-0000{shard}-of-00002.parquet", [row])
    parquet(tmp_path / place / "validation-00000-of-00001.parquet", [{"image": {"bytes": JPEG}, "text": "v"}])
    (tmp_path / "README.md").write_text("---")
    examples = read_examples(tmp_path)
    assert splits(examples) == [("train", "t0"), ("train", "t1"), ("val", "v")]
    assert len({example.id.partition("#")[0] for example in examples}) == 3


def test_folders_of_splits_and_tables_of_text(tmp_path: Path) -> None:
    parquet(tmp_path / "a" / "train" / "0000.parquet", [{"image": {"bytes": JPEG}, "text": "t"}])
    parquet(tmp_path / "a" / "test" / "0000.parquet", [{"image": {"bytes": JPEG}, "text": "x"}])
    assert sorted(splits(read_examples(tmp_path / "a"))) == [("test", "x"), ("train", "t")]
    folder(tmp_path / "b", {"train.csv": "image,caption\n1.jpg,t\n", "val.jsonl": '{"image": "2.jpg", "text": "v"}'})
    folder(tmp_path / "b", {"images/1.jpg": "", "images/2.jpg": ""})
    examples = read_examples(tmp_path / "b")
    assert splits(examples) == [("train", "t"), ("val", "v")]
    assert all(example.images[0].read_bytes() == JPEG for example in examples)


def test_several_sets_in_one_folder_need_a_choice(tmp_path: Path) -> None:
    for name in ("en", "de"):
        parquet(tmp_path / name / "train-00000.parquet", [{"image": {"bytes": JPEG}, "text": name}])
    with pytest.raises(UserError, match=r"2 data sets in it \(de, en\)"):
        read_examples(tmp_path)
    assert splits(read_examples(tmp_path / "en")) == [("train", "en")]
