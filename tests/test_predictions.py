"""Captions to score: every format that captions are written in reads back, and so do COCO's results."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from latentcap.batch.outputs import FORMATS, make_output
from latentcap.data.errors import UserError
from latentcap.data.readers import read_examples
from latentcap.evaluation.matching import match
from latentcap.evaluation.predictions import read_predictions

TEXTS = {"a/1.png": 'a "red", é box', "b/1.png": "", "b/caf\udce9.png": "two dogs"}


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# By ids, which has a test of its own; in metadata, of videos or as reports, which are not read back.
NOT_READ = ("coco", "xmp", "embed", "srt", "vtt", "fhir", "dicom-sr")


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind not in NOT_READ])
def test_what_is_written_reads_back(tmp_path: Path, kind: str) -> None:
    """Of images in files: each caption comes back to its image, in order."""
    for name in TEXTS:
        put(tmp_path / "in" / name, b"an image")
        (tmp_path / "in" / name).with_suffix(".txt").write_text("what somebody wrote")
    folder = kind in ("parts", "txt", "caption", "webdataset")
    path = tmp_path / ("out" if folder else f"out.{kind}")
    output = make_output(path, tmp_path / "out.run", kind, num_captions=2)
    records: list[dict[str, Any]] = [
        {
            "file": name,
            "caption": text,
            "score": -1.0,
            "confidence": 0.5,
            "alternatives": [{"caption": "next best", "score": -2.0, "confidence": 0.1}] if text else [],
            "_images": [[str(tmp_path / "in" / name), None, None, ""]],
        }
        for name, text in TEXTS.items()
    ]
    if not output.needs_images:
        records = [{name: value for name, value in record.items() if name != "_images"} for record in records]
    with output.journal:
        output.append(records)
    if kind != "jsonl":
        with output.journal:
            output.checkpoint()
    output.finish(quiet=True)
    matches = match(read_predictions(path).captions, read_examples(tmp_path / "in"), path)
    found = {example.id: caption.text for caption, example in matches.pairs}
    assert found == TEXTS
    assert not matches.unmatched_captions


def test_text_files_beside_the_images_are_ours_where_the_suffix_is_caption(tmp_path: Path) -> None:
    for name in ("1", "2"):
        put(tmp_path / f"{name}.png", b"an image")
        put(tmp_path / f"{name}.txt", "somebody's")
        put(tmp_path / f"{name}.caption", f"ours {name}\nnext best\n")
    put(tmp_path / "captions.run" / "captions.txt", "none of the captions")
    found = read_predictions(tmp_path)
    assert [(caption.text, caption.file) for caption in found.captions] == [("ours 1", "1"), ("ours 2", "2")]
    assert found.notes == ["captions are those of the .caption files; .txt files beside them are left aside"]


def test_a_tar_with_the_records_of_somebody_else(tmp_path: Path) -> None:
    """Their JSON holds another caption and another file; the text is ours."""
    with tarfile.open(tmp_path / "val-0.tar", "w") as tar:
        for name, content in (
            ("x.0.jpg", b"an image"),
            ("x.json", b'{"caption": "alt text", "file": "elsewhere.jpg"}'),
            ("x.txt", b"\xef\xbb\xbfours"),
            ("readme.txt", b"no caption"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    for source in (tmp_path, tmp_path / "val-0.tar"):
        (caption,) = read_predictions(source).captions
        assert (caption.text, caption.file, caption.stem) == ("ours", "val-0.tar/x", True)


RESULTS = [{"image_id": 139, "caption": "a room"}, {"image_id": "0285", "caption": "a bear"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results.json", json.dumps(RESULTS)),
        ("results.jsonl", "\n".join(map(json.dumps, RESULTS))),
        ("lines.json", "\n\n".join(map(json.dumps, RESULTS))),  # as --output lines.json writes
        ("annotations.json", json.dumps({"annotations": RESULTS})),
        ("names.json", json.dumps({"139": "a room", "0285": ["a bear"]})),
        ("pycoco.json", json.dumps({"139": [{"caption": "a room"}], "0285": [{"caption": "a bear"}]})),
        ("results.csv", "image_id,caption\n139,a room\n0285,a bear\n"),
        ("bom.jsonl", "\ufeff" + "\n".join(map(json.dumps, RESULTS))),
        ("utf16.csv", "image_id,caption\n139,a room\n0285,a bear\n".encode("utf-16")),
        ("noname", "\n".join(map(json.dumps, RESULTS))),
    ],
)
def test_cocos_results_and_their_likes(tmp_path: Path, name: str, content: str | bytes) -> None:
    images = [{"id": id, "file_name": f"{id:012}.jpg"} for id in (139, 285, 632)]
    wrote = [{"id": id, "image_id": id, "caption": "a caption"} for id in (139, 285, 632)]
    references = put(tmp_path / "captions_val2017.json", json.dumps({"images": images, "annotations": wrote}))
    path = put(tmp_path / "given" / name, content)
    matches = match(read_predictions(path).captions, read_examples(references), path)
    found = {example.id: caption.text for caption, example in matches.pairs}
    assert found == {"000000000139.jpg": "a room", "000000000285.jpg": "a bear"}
    assert matches.unmatched_examples == ["000000000632.jpg"]


KARPATHY = {"filename": "x.jpg", "cocoid": 139, "imgid": 5, "split": "val", "sentences": [{"raw": "a room"}]}


@pytest.mark.parametrize(
    ("name", "references"),
    [
        ("dataset.json", json.dumps({"images": [KARPATHY]})),
        ("refs.jsonl", '{"file_name": "x.jpg", "image_id": 139, "caption": "a room", "split": "val"}'),
        ("refs.csv", "file_name,image_id,caption\nx.jpg,139,a room\n"),
    ],
)
def test_image_ids_of_other_references(tmp_path: Path, name: str, references: str) -> None:
    path = put(tmp_path / "results.json", json.dumps([{"image_id": 139, "caption": "a room"}]))
    examples = read_examples(put(tmp_path / "data" / name, references))
    assert len(match(read_predictions(path).captions, examples, path).pairs) == 1


def test_ids_that_a_table_made_floats_of(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"id": [139.0, None], "file": [None, "b.jpg"], "caption": ["a room", "a bear"]})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    found = read_predictions(tmp_path / "x.parquet").captions
    assert [(caption.id, caption.file) for caption in found] == [("139", ""), ("", "b.jpg")]


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"file": "a.jpg", "error": "truncated"},
        {"file": "b.jpg", "caption": ""},
        {"id": 3, "caption": "x"},
        {"id": 3, "caption": "x"},
    ]
    found = read_predictions(put(tmp_path / "captions.jsonl", "\n".join(map(json.dumps, lines))))
    assert [(caption.file, caption.id, str(caption)) for caption in found.captions] == [
        ("b.jpg", "", "line 2 (b.jpg)"),
        ("", "3", "line 3 (3)"),
    ]
    assert found.notes == [
        "left out: 1 images that could not be captioned: a.jpg",
        "left out: 1 captions that repeat another, word for word: line 4 (3)",
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.jsonl", '{"file": "a.jpg", "caption": "x"}\n{"file"', "line 2: not valid JSON"),
        ("x.jsonl", "[1]", "line 1: a list, no JSON object"),
        (
            "x.jsonl",
            '{"file": "a.jpg", "text": "x"}',
            "line 1: needs a caption, as text, and a file or id; has file, text",
        ),
        ("x.jsonl", '{"caption": "x"}', "needs a caption, as text, and a file or id; has caption"),
        ("x.jsonl", '{"file": "a.jpg", "caption": {"raw": "x"}}', "needs a caption, as text"),
        ("x.csv", "file,text\na.jpg,x\n", "row 1: needs a caption"),
        ("x.json", "[1]", "entry 1: no JSON object"),
        ("x.json", '{"a": 1}', "entry 1: needs a caption"),
        ("x.json", '[{"a": 1', "not valid JSON"),
        ("x.jsonl", "\n", "no captions in it. Accepted"),
        ("x.jsonl", b"caf\xe9", "not UTF-8"),
        ("x.tar", "no tar", "not a complete"),
        ("x/readme.md", "words", "no captions in it. Accepted"),
    ],
)
def test_what_is_no_caption_is_named(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    put(tmp_path / name, text)
    with pytest.raises(UserError, match=message):
        read_predictions(tmp_path / name.partition("/")[0])


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    put(tmp_path / "captions.jsonl", "")
    with pytest.raises(UserError, match=r"the file of captions does not exist.*Did you mean 'captions\.jsonl'"):
        read_predictions(tmp_path / "caption.jsonl")
