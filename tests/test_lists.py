"""Lists of names: encodings, separators, folders; and what a folder holds besides images."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from latentcap.batch.inputs import Inputs
from latentcap.batch.tables import Columns
from latentcap.data.errors import UserError


def picture(path: Path, format: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path, format)
    return path


def names(*sources: str) -> list[str]:
    return [item.name for item in Inputs(list(sources))]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\0"])
def test_the_mark_says_the_encoding_and_one_separator_holds(here: Path, encoding: str, end: str) -> None:
    given = ["a.jpg", "deep/\u00e9 \u4e00.jpg", "c.jpg"]
    (here / "list.txt").write_bytes((end.join(given) + end).encode(encoding))
    assert names("@list.txt") == given


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_an_error_and_walks_no_disk(here: Path, encoding: str) -> None:
    (here / "list.txt").write_bytes("/pictures/a.jpg\n./b.jpg\n".encode(encoding))
    with pytest.raises(UserError, match=r"list\.txt: UTF-16 text without a byte-order mark"):
        names("@list.txt")


def test_a_name_may_have_a_newline_where_zeros_separate(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = b"new\nline.jpg\0other.jpg\0"
    (here / "list.txt").write_bytes(b"x" * 100_000 + b".jpg\0" + given)
    assert names("@list.txt")[1:] == ["new\nline.jpg", "other.jpg"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    assert names("-") == ["new\nline.jpg", "other.jpg"]


def test_a_pipe_is_read_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    out, into = os.pipe()
    os.write(into, b"first.jpg\nsec")
    with os.fdopen(out, "r") as pipe:
        monkeypatch.setattr(sys, "stdin", pipe)
        found = iter(Inputs(["-"]))
        assert next(found).name == "first.jpg"
        os.write(into, b"ond.jpg\n")
        os.close(into)
        assert [item.name for item in found] == ["second.jpg"]


def test_standard_input_may_be_json_lines_with_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        b'\xef\xbb\xbf{"file": "a.jpg"}',
        b"",
        b'{"file": "b.jpg", "context": "left", "age": 40}',
        b'{"file": "c.jpg", "context": ',
        b"c.jpg",
        b'{"context": "an image is missing"}',
        b'{"file": "d\xe9.jpg"}',
        b'{"file": ["e.jpg", "f.jpg"], "context": "two views"}',
    ]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\r\n".join(lines))))
    inputs = Inputs(["-"], columns=Columns(root=Path("root"), numbers=("age",)))
    first, second, *broken, last = inputs
    assert [item.name for item in inputs] == [first.name, second.name, *(item.name for item in broken), last.name]
    assert (first.name, first.images[0].path, first.context) == ("a.jpg", "root/a.jpg", None)
    assert (second.context, second.numbers) == ("left", {"age": 40.0})
    assert [item.name for item in broken] == [
        *(f"standard input, line {n}" for n in (4, 5)),
        "row-6",
        "standard input, line 7",
    ]
    assert len({item.error for item in broken[::3]}) == 2
    assert not any("standard input" in item.error for item in broken)
    assert ["JSON" in item.error for item in broken] == [True, True, False, False]
    assert [image.path for image in last.images] == ["root/e.jpg", "root/f.jpg"]


def test_json_lines_are_read_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    out, into = os.pipe()
    os.write(into, b'{"file": "a.jpg"}\n{"file"')
    with os.fdopen(out, "r") as pipe:
        monkeypatch.setattr(sys, "stdin", pipe)
        found = iter(Inputs(["-"]))
        assert next(found).name == "a.jpg"
        os.write(into, b': "b.jpg"}\n')
        os.close(into)
        assert [item.name for item in found] == ["b.jpg"]


def test_json_lines_without_an_image_are_refused_and_names_in_braces_are_names(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"picture_of": "a.jpg"}')))
    with pytest.raises(UserError, match=r"standard input: no image column\. Columns found: picture_of"):
        names("-")
    picture(here / "{a}.png")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"{a}.png\n")))
    assert names("-") == ["{a}.png"]


def test_a_folder_in_a_list_is_an_error_of_its_own(here: Path) -> None:
    picture(here / "sub" / "1.png")
    picture(here / "a.png")
    (here / "list.txt").write_text("a.png\nsub\n.\n/\n")
    items = list(Inputs(["@list.txt"]))
    assert [item.name for item in items] == ["a.png", "sub", ".", "/"]
    assert [bool(item.error) for item in items] == [False, True, True, True]
    assert "give the folder by itself" in items[1].error


def test_a_list_without_a_name_is_called_empty(here: Path) -> None:
    (here / "list.txt").write_text("\n\n")
    with pytest.raises(UserError, match=r"no images in '@list\.txt': the list is empty"):
        names("@list.txt")


def test_lists_and_tables_from_windows(here: Path) -> None:
    picture(here / "images" / "0.png")
    (here / "list.txt").write_text("images\\0.png\r\n")
    (here / "t.csv").write_text("file_name;text\r\nimages\\0.png;x\r\n")
    for source in ("@list.txt", "t.csv"):
        (item,) = Inputs([source])
        assert item.name == "images/0.png"
        assert item.images[0].open().size == (4, 4)


def test_a_folder_says_what_it_leaves_out(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentcap.data.kinds.find_spec", lambda name: None)  # what reads raw files is not installed
    picture(here / "p" / "a.jfif", "JPEG")
    picture(here / "p" / "noext", "JPEG")
    picture(here / "p" / "1.2.840.7", "TIFF")
    for name in ("v.mp4", "raw.DNG", "x.7z", "notes.txt", "captions.jsonl", "odd", "DICOMDIR", "empty"):
        (here / "p" / name).write_text("" if name == "empty" else "some words")
    found = {item.name: item.skipped for item in Inputs(["p"])}
    assert [name for name, reason in found.items() if not reason] == ["1.2.840.7", "a.jfif", "noext"]
    skipped = {name: reason.split(":")[0] for name, reason in found.items() if reason}
    assert set(skipped) == {"v.mp4", "raw.DNG", "x.7z", "odd", "DICOMDIR", "empty"}
    assert skipped["v.mp4"] == "a video"
    assert skipped["empty"] == "the file is empty"


def test_our_own_outputs_are_no_input(here: Path) -> None:
    picture(here / "p" / "a.png")
    picture(here / "p" / "out" / "b.png")
    (here / "p" / "captions.jsonl").write_text('{"file": "a.png", "caption": "x"}\n')
    for name in ("out.run", "captions.jsonl.run"):
        (here / "p" / name).mkdir()
        (here / "p" / name / "manifest.json").write_text(json.dumps({"format": "latentcap-run"}))
    assert {item.name: item.skipped for item in Inputs(["p"])} == {"a.png": "", "out": "an output of captioning"}
    assert names("p/*") == ["p/a.png"]
    assert names("p/captions.jsonl") == ["a.png"]  # a table, where that is what is asked for


@pytest.mark.parametrize("kind", ["txt", "caption", "xmp", "srt", "vtt"])
def test_texts_hide_no_images(kind: str, here: Path) -> None:
    """A folder of images into which the captions of an archive were written."""
    picture(here / "p" / "a.png")
    picture(here / "p" / "ext" / "b.png")
    (here / "p" / "ext.run").mkdir()
    manifest = {"format": "latentcap-run", "settings": {"format": kind}}
    (here / "p" / "ext.run" / "manifest.json").write_text(json.dumps(manifest))
    assert names("p") == ["a.png", "ext/b.png"]
    assert names("p/*") == ["p/a.png", "p/ext/b.png"]
