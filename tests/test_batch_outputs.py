"""What is in each format: tables, sidecars, tars, and what --existing does."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from latentcap.batch.inputs import Input, Inputs
from latentcap.batch.journal import Journal, Record
from latentcap.batch.merge import merge
from latentcap.batch.outputs import Output, choose_format, make_output
from latentcap.batch.outputs.base import merge_text
from latentcap.batch.run_folder import RunFolder
from latentcap.data.errors import UserError
from latentcap.data.example import ImageRef
from latentcap.data.readers import read_examples

RECORDS: list[Record] = [
    {
        "file": "a.jpg",
        "caption": 'a "red", é',
        "score": -0.5,
        "confidence": 0.9,
        "words": [["a", 0.8]],
        "alternatives": [{"caption": "b", "score": -1.0, "confidence": 0.5}],
        "labels": {"plane": "axial"},
        "images": ["a.jpg", "caf\udce9.jpg"],
        "sections": {"lungs": ["Clear."]},
    },
    {"file": "caf\udce9.jpg", "caption": "two\nlines", "score": -2.0, "confidence": 0.1, "context": "x, y"},
]


def written(folder: Path, kind: str, records: list[Record], **more: Any) -> Path:
    """An output with these records, finished."""
    path = folder / ("out" if kind in ("txt", "webdataset") else f"out.{kind}")
    output = make_output(path, folder / f"{path.name}.run", kind, **more)
    with output.journal:
        output.append(json.loads(json.dumps(records)))
        output.checkpoint()
    output.finish(quiet=True)
    return path


def test_csv(tmp_path: Path) -> None:
    with open(written(tmp_path, "csv", RECORDS, num_captions=2), newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert first["caption"] == 'a "red", é'
    assert (first["caption_2"], first["score_2"]) == ("b", "-1.0")
    assert json.loads(first["words"]) == [["a", 0.8]]
    assert json.loads(first["images"]) == ["a.jpg", "caf\udce9.jpg"]
    assert (json.loads(first["sections"]), second["images"]) == ({"lungs": ["Clear."]}, "")
    assert second["file"] == "caf\\udce9.jpg"
    assert (second["caption"], second["context"], second["caption_2"]) == ("two\nlines", "x, y", "")


def test_a_carriage_return_tears_no_row(tmp_path: Path) -> None:
    records = [{"file": "cr\rname.jpg", "caption": "new\r style"}, {"file": "b.jpg", "caption": "crlf\r\n"}]
    path = written(tmp_path, "csv", records)
    assert path.read_bytes().count(b"\n") == 4
    assert not path.read_bytes().endswith(b"\r\n")
    with open(path, newline="", encoding="utf-8") as file:
        assert [{name: row[name] for name in ("file", "caption")} for row in csv.DictReader(file)] == records


def test_parquet(tmp_path: Path) -> None:
    import pyarrow.parquet

    first, second = pyarrow.parquet.read_table(written(tmp_path, "parquet", RECORDS)).to_pylist()
    assert first["words"] == [{"word": "a", "probability": 0.8}]
    assert first["alternatives"][0]["caption"] == "b"
    assert json.loads(first["labels"]) == {"plane": "axial"}
    assert first["images"] == ["a.jpg", "caf\\udce9.jpg"]
    assert (json.loads(first["sections"]), second["images"]) == ({"lungs": ["Clear."]}, None)
    assert (second["file"], second["score"], second["context"]) == ("caf\\udce9.jpg", -2.0, "x, y")
    assert second["alternatives"] is None


def test_a_table_that_is_not_ours_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(UserError, match=r"out\.csv: exists, and there is no out\.csv\.run"):
        make_output(tmp_path / "out.csv", tmp_path / "out.csv.run", "csv").check_unknown()


@pytest.mark.parametrize(
    ("existing", "expected"),
    [("skip", "old"), ("overwrite", "new"), ("append", "old; new"), ("prepend", "new; old")],
)
def test_what_becomes_of_a_text(existing: str, expected: str) -> None:
    assert merge_text(" old\n", "new", existing, "; ") == expected
    assert merge_text(None, "new", existing, "; ") == "new"


def image_record(path: Path, name: str = "", **more: Any) -> Record:
    return {"file": name or path.name, "caption": "new", "score": 0.0, "_images": [[str(path), None, None, ""]], **more}


def test_sidecars_mirror_names_and_stay_in_their_folder(tmp_path: Path) -> None:
    records = [image_record(Path("/x/../../up.jpg"), "/x/../../up.jpg"), image_record(Path("a/b.v2.png"), "a/b.v2.png")]
    out = written(tmp_path, "txt", records)
    files = {str(path.relative_to(out)): path.read_text() for path in out.rglob("*") if path.is_file()}
    assert files == {"x/up.txt": "new\n", "a/b.v2.txt": "new\n"}


def test_a_sidecar_that_a_crash_left_unwritten_is_written_by_the_next_run(tmp_path: Path) -> None:
    target = written(tmp_path, "txt", [image_record(tmp_path / "a.jpg")], existing="append") / "a.txt"
    target.write_text("\0\0\0")  # as a crash of the machine leaves it
    (tmp_path / "out.run" / "written").unlink()
    make_output(tmp_path / "out", tmp_path / "out.run", "txt", existing="append").finish()
    assert target.read_text() == "new\n"


def test_two_images_with_one_sidecar(tmp_path: Path) -> None:
    output = make_output(tmp_path, tmp_path / "run", "txt", existing="overwrite")
    items = [Input(name, (ImageRef(name),)) for name in ("x.jpg", "x.png")]
    first, second = (output.prepare(item, known=False) for item in items)
    assert first == items[0]
    assert second is not None
    assert (
        "its .txt file is that of another already, which is called the same but for its ending: rename" in second.error
    )


def test_images_in_archives_have_no_place_beside_them(tmp_path: Path) -> None:
    output = make_output(None, tmp_path / "run", "txt")
    item = output.prepare(Input("x.tar:a.jpg", (ImageRef("x.tar", offset=512, size=3, name="a.jpg"),)), known=False)
    assert item is not None
    assert "no place beside it: give a folder as --output" in item.error


@pytest.mark.parametrize(("kind", "suffix"), [("txt", ".txt"), ("caption", ".caption"), ("xmp", ".jpg.xmp")])
@pytest.mark.parametrize("existing", ["skip", "overwrite"])
def test_where_no_sidecar_can_come_to_be_its_image_alone_fails(
    kind: str, suffix: str, existing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / "locked").mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: "locked" not in str(path))
    output = make_output(None, tmp_path / "run", kind, existing=existing)
    reasons = {}
    for name in ("folder.jpg", "locked/a.jpg", f"{'x' * 251}.jpg", "fine.jpg"):
        item = output.prepare(Input(name, (ImageRef(str(tmp_path / name)),)), known=False)
        assert item is not None
        reasons[name] = item.error.partition(": ")[2]
    long = "" if kind == "txt" else "File name too long"
    assert list(reasons.values()) == ["a folder is called so", "its folder is read-only", long, ""]


def pack(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 1_000_000
            archive.addfile(member, io.BytesIO(content))
    return path


def unpack(path: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        return [(member.name, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]


def captions_of(inputs: Inputs) -> list[Record]:
    return [
        {
            "file": item.name,
            "caption": f"new {item.images[0].name}",
            "score": 0.0,
            "_images": [[image.path, image.offset, image.size, image.name] for image in item.images],
        }
        for item in inputs
    ]


def test_tars_come_out_as_they_went_in_with_captions_beside_their_images(tmp_path: Path) -> None:
    source = tmp_path / "in.tar"
    pack(source, {"1.jpg": b"one", "1.json": b"{}", "2.jpg": b"two", "2.txt": b"old", "2.cls": b"7"})
    out = written(tmp_path, "webdataset", captions_of(Inputs([str(source)])), existing="append")
    assert unpack(out / "in.tar") == [
        ("1.jpg", b"one"),
        ("1.txt", b"new 1.jpg"),
        ("1.json", b"{}"),
        ("2.jpg", b"two"),
        ("2.txt", b"old new 2.jpg"),
        ("2.cls", b"7"),
    ]
    assert [example.captions for example in read_examples(out / "in.tar")] == [("new 1.jpg",), ("old new 2.jpg",)]


def test_files_are_packed_into_tars_that_our_reader_reads(tmp_path: Path) -> None:
    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"pixels")
    out = written(tmp_path, "webdataset", [image_record(photo, context="x")])
    (example,) = read_examples(out)
    assert example.captions == ("new",)
    assert example.images[0].read_bytes() == b"pixels"
    ((_, record),) = [(name, content) for name, content in unpack(out / "captions-00000.tar") if name.endswith("json")]
    assert json.loads(record) == {"file": "a.jpg", "caption": "new", "score": 0.0, "context": "x"}


def test_tars_are_not_written_over_their_source(tmp_path: Path) -> None:
    source = pack(tmp_path / "in.tar", {"1.jpg": b"one"})
    output = make_output(tmp_path, tmp_path / "run", "webdataset")
    with pytest.raises(UserError, match="would be written over"):
        output.prepare(next(iter(Inputs([str(source)]))), known=False)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_parts_are_merged(tmp_path: Path, kind: str) -> None:
    for index in range(2):
        path = tmp_path / f"out-{index:05d}-of-00002.{kind}"
        run = path.with_name(path.name + ".run")
        with RunFolder(run, output=path.name) as folder:
            folder.begin({"model": "m", "shard": f"{index}/2"}, empty=True)
            output = make_output(path, run, kind)
            with output.journal:
                output.append([{"file": f"{index}.jpg", "caption": "c", "score": 0.0, "confidence": 1.0}])
            folder.update(status="complete")
        if index == 0:
            with pytest.raises(UserError, match="of 2 parts, these are missing: 1"):
                merge(tmp_path / f"out.{kind}")
    assert merge(tmp_path / f"out.{kind}") == (2, 2)
    text = (tmp_path / f"out.{kind}").read_text()
    assert text.index("0.jpg") < text.index("1.jpg")
    if kind == "jsonl":
        assert len(list(Journal(tmp_path / "out.jsonl"))) == 2


@pytest.mark.parametrize(
    ("path", "given", "expected"),
    [("x.jsonl", None, "jsonl"), ("x.csv", None, "csv"), ("x.PARQUET", None, "parquet"), ("x", None, "jsonl")],
)
def test_the_name_says_the_format(path: str, given: str | None, expected: str) -> None:
    assert choose_format(Path(path), given) == expected


def test_formats_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Give --output captions\.jsonl, or --format txt"):
        choose_format(None, None)
    with pytest.raises(UserError, match="a folder, where --format jsonl needs a file"):
        choose_format(tmp_path, None)
    assert isinstance(make_output(tmp_path / "x.jsonl", tmp_path / "run", "jsonl"), Output)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_text_with_a_mark_is_added_to_without_it(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_bytes("old \u00e9".encode(encoding))
    record = image_record(tmp_path / "a.jpg")
    target = written(tmp_path, "txt", [record], existing="append") / "a.txt"
    assert target.read_bytes().decode() == f"old é {record['caption']}\n"


@pytest.mark.parametrize(
    ("kind", "found"), [("webdataset", "a.tar"), ("parts", "part-00000.parquet"), ("fhir", "a.fhir.json")]
)
def test_what_nobody_knows_of_is_kept(tmp_path: Path, kind: str, found: str) -> None:
    """The refusal names the run folder that would know of it, whatever that is called."""
    (tmp_path / found).write_bytes(b"x")
    with pytest.raises(UserError, match=rf"no photos\.{kind}\.run beside it says how they were made"):
        make_output(tmp_path, tmp_path.parent / f"photos.{kind}.run", kind).check_unknown()
    assert (tmp_path / found).exists()
