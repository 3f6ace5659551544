"""Texts beside images and below a folder: each its own image's, whatever came before and whatever names are like."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from latentcap.batch.journal import Journal, Record, digest
from latentcap.batch.metadata.image_file import read_description
from latentcap.batch.metadata.xmp import description_of, with_description
from latentcap.batch.outputs import make_output
from latentcap.batch.outputs.places import check_place
from latentcap.batch.pool import Block
from latentcap.cli.caption import main
from latentcap.data.jsonl import read_jsonl
from tests.test_batch_outputs import image_record, written
from tests.test_batch_run import run

Caption = Callable[..., int]


@pytest.fixture
def caption(model: Path, tmp_path: Path) -> Caption:
    def run(*arguments: str | Path) -> int:
        given = [tmp_path / "in", "--model", model, "--batch-size", "2", "--quiet", *arguments]
        return main([str(argument) for argument in given])

    (tmp_path / "in").mkdir()
    return run


def draw(folder: Path, *names: str) -> list[Path]:
    """Images, each of another colour."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), ("red", "lime", "blue")[number % 3]).save(folder / name)
    return [folder / name for name in names]


def texts(folder: Path) -> dict[str, str]:
    found = (path for path in sorted(folder.rglob("*.txt")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_text().strip() for path in found}


def errors(run: Path) -> dict[str, str]:
    return {record["file"]: record["error"] for record in read_jsonl(run / "errors.jsonl")}


# Names ----------------------------------------------------------------------------------------------------------------


def test_a_name_that_grows_too_long_is_an_error_of_its_image(caption: Caption, tmp_path: Path) -> None:
    long = f"sub/{'b' * 250}.jpg"
    draw(tmp_path / "in", "a.jpg", long, "sub/c.jpg")
    out = tmp_path / "out"
    for _ in range(2):
        assert caption("--format", "xmp", "--output", out) == 3
        assert sorted(path.name for path in out.rglob("*.xmp")) == ["a.jpg.xmp", "c.jpg.xmp"]
        assert errors(tmp_path / "out.run") == {long: "its .xmp file cannot be written: File name too long"}


def test_so_it_is_in_an_archive(caption: Caption, tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.new("RGB", (40, 30)).save(data, "PNG")
    with tarfile.open(tmp_path / "in" / "x.tar", "w") as archive:
        for name in (f"{'b' * 300}.png", "c.png"):
            member = tarfile.TarInfo(name)
            member.size = len(data.getvalue())
            archive.addfile(member, io.BytesIO(data.getvalue()))
    assert caption("--format", "txt", "--output", tmp_path / "out") == 3
    assert list(texts(tmp_path / "out")) == ["x.tar/c.txt"]


@pytest.mark.parametrize("earlier", ["", "x.jpg", "x.txt/1.jpg"])
def test_a_text_called_as_a_folder_of_texts(caption: Caption, tmp_path: Path, earlier: str) -> None:
    """The one that has a caption already keeps it, else the one that is listed first has it."""
    out, names, first = tmp_path / "out", {"x.jpg", "x.txt/1.jpg"}, earlier or "x.jpg"
    if earlier:
        draw(tmp_path / "in", earlier)
        assert caption("--format", "txt", "--output", out, "--existing", "overwrite") == 0
    draw(tmp_path / "in", *names, "z.jpg")
    assert caption("--format", "txt", "--output", out, "--existing", "overwrite") == 3
    assert list(texts(out)) == sorted([first.replace(".jpg", ".txt"), "z.txt"])
    assert set(errors(tmp_path / "out.run")) == names - {first}


def test_a_place_is_judged_below_folders_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_place(tmp_path / "new" / "newer" / "a.txt")
    for name, reason in (("new/" + "b" * 256, "too long"), ("b" * 256 + "/a", "too long"), ("file/new/a", "Not a dir")):
        with pytest.raises(OSError, match=reason):
            check_place(tmp_path / name)


def test_a_text_that_the_file_system_refuses_is_an_error_of_its_image_alone(tmp_path: Path) -> None:
    """Both when the image is captioned and when the text of an earlier run is written again."""
    target, place = tmp_path / "out" / "00.txt", tmp_path / "in"
    place.mkdir()
    for name in ("00.jpg", "01.jpg", "02.jpg"):
        (place / name).touch()

    def all_well(blocks: Iterator[Block]) -> Iterator[list[Record]]:
        for block in blocks:
            yield [
                {"file": item.name, "error": item.error}
                if item.error
                else {"file": item.name, "caption": "c", "_images": [list(image.place) for image in item.images]}
                for item in block
            ]

    def in_the_way(blocks: Iterator[Block]) -> Iterator[list[Record]]:
        for records in all_well(blocks):
            target.mkdir(parents=True, exist_ok=True)
            yield records

    def counts(use: Callable) -> tuple[int, int, int]:
        summary = run(tmp_path, "txt", place, use=use, existing="overwrite")
        assert len(list(Journal(tmp_path / "out.run" / "captions.jsonl"))) == summary.resumed + summary.captioned
        assert sum(1 for _ in Journal(tmp_path / "out.run" / "errors.jsonl")) == summary.failed
        return summary.resumed, summary.captioned, summary.failed

    assert counts(in_the_way) == (0, 2, 1)
    assert counts(in_the_way) == (2, 0, 1)
    target.rmdir()
    assert counts(all_well) == (2, 1, 0)
    target.unlink()
    target.mkdir()
    (tmp_path / "out.run" / "written").unlink()
    assert counts(all_well) == (2, 0, 1)


# One text for two images ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("existing", ["overwrite", "skip", "append"])
def test_the_second_image_of_one_text_fails_again(caption: Caption, tmp_path: Path, existing: str) -> None:
    draw(tmp_path / "in", "a.jpg", "a.png")
    command = ["--format", "txt", "--existing", existing]
    assert caption(*command) == 3
    before = texts(tmp_path / "in")
    assert caption(*command, "--retry-failed") == 3
    assert caption(*command) == 3
    assert texts(tmp_path / "in") == before
    assert list(errors(tmp_path / "in.txt.run")) == ["a.png"]


def test_an_image_that_comes_later_does_not_get_the_text_of_another_that_is_there(
    caption: Caption, tmp_path: Path
) -> None:
    command = ["--format", "txt", "--existing", "overwrite"]
    (png,) = draw(tmp_path / "in", "a.png")
    assert caption(*command) == 0
    (tmp_path / "in" / "a.txt").write_text("of the first\n")
    draw(tmp_path / "in", "a.jpg")
    assert caption(*command) == 3
    assert texts(tmp_path / "in") == {"a.txt": "of the first"}
    png.unlink()
    assert caption(*command) == 0
    assert texts(tmp_path / "in") != {"a.txt": "of the first"}


def test_images_of_one_text_are_in_one_part(caption: Caption, tmp_path: Path) -> None:
    draw(tmp_path / "in", *(f"{letter}.{kind}" for letter in "abc" for kind in ("jpg", "png", "webp")))
    codes = [caption("--format", "txt", "--num-shards", "4", "--shard-index", str(index)) for index in range(4)]
    assert 3 in codes
    runs = list(tmp_path.glob("*.run"))
    done = [record["file"] for run in runs for record in read_jsonl(run / "captions.jsonl")]
    assert sorted(done) == ["a.jpg", "b.jpg", "c.jpg"]
    assert sum(len(errors(run)) for run in runs if (run / "errors.jsonl").exists()) == 6


def test_an_image_id_that_an_earlier_run_gave_is_not_given_again(caption: Caption, tmp_path: Path) -> None:
    draw(tmp_path / "in", "a_1.jpg", "x_1.jpg")
    command = ["--format", "coco", "--output", tmp_path / "out.json"]
    for more in ([], ["--retry-failed"], []):
        assert caption(*command, *more) == 3
        assert [row["image_id"] for row in json.loads((tmp_path / "out.json").read_text())] == [1]


# Texts that are there -------------------------------------------------------------------------------------------------


def test_to_start_anew_takes_our_texts_back_and_leaves_those_that_were_edited(
    caption: Caption, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "in"
    draw(place, "a.jpg", "b.jpg", "c.jpg")
    assert caption("--format", "txt") == 0
    old = texts(place)
    capsys.readouterr()
    assert caption("--format", "txt", "--overwrite", "--prefix", "NEW ", "--dry-run") == 0
    assert capsys.readouterr().out.split()[:3] == ["a.jpg", "b.jpg", "c.jpg"]
    (place / "b.txt").write_text("edited")
    assert caption("--format", "txt", "--overwrite", "--prefix", "NEW ") == 0
    assert texts(place) == {"a.txt": f"NEW {old['a.txt']}", "b.txt": "edited", "c.txt": f"NEW {old['c.txt']}"}


@pytest.mark.parametrize("existing", ["append", "prepend", "overwrite"])
def test_to_start_anew_does_not_add_to_our_own_text(caption: Caption, tmp_path: Path, existing: str) -> None:
    draw(tmp_path / "in", "a.jpg")
    (tmp_path / "in" / "a.txt").write_text("mine\n")
    command = ["--format", "txt", "--existing", existing]
    assert caption(*command) == 0
    first = texts(tmp_path / "in")
    assert caption(*command, "--overwrite") == 0
    assert texts(tmp_path / "in") == first


def test_to_start_anew_takes_descriptions_back(caption: Caption, tmp_path: Path) -> None:
    place = tmp_path / "in"
    jpeg, png = draw(place, "a.jpg", "b.png")
    (place / "b.png.xmp").write_bytes(with_description(None, ""))  # somebody's, with no description yet
    for kind, read in (
        ("xmp", lambda: [description_of((place / f"{path.name}.xmp").read_bytes()) for path in (jpeg, png)]),
        ("embed", lambda: [read_description(path) for path in (jpeg, png)]),
    ):
        assert caption("--format", kind) == 0
        old = read()
        assert all(old)
        assert caption("--format", kind, "--overwrite", "--prefix", "NEW ") == 0
        assert read() == [f"NEW {text}" for text in old]


@pytest.mark.parametrize("before", [None, "mine"])
def test_of_an_xmp_that_is_taken_back_the_rest_stays(tmp_path: Path, before: str | None) -> None:
    target = tmp_path / "out.xmp" / "a.jpg.xmp"
    if before:
        target.parent.mkdir()
        target.write_bytes(with_description(None, before))
    written(tmp_path, "xmp", [image_record(tmp_path / "a.jpg")], existing="append")
    assert description_of(target.read_bytes()).endswith("new")
    make_output(tmp_path / "out.xmp", tmp_path / "out.xmp.run", "xmp", existing="append").clear()
    assert target.exists() == bool(before)
    assert not before or description_of(target.read_bytes()) == before


@pytest.mark.parametrize("blank", ["", " \n"])
def test_a_blank_text_is_none(caption: Caption, tmp_path: Path, blank: str) -> None:
    draw(tmp_path / "in", "a.jpg", "b.jpg")
    (tmp_path / "in" / "a.txt").write_text(blank)
    (tmp_path / "in" / "b.txt").write_text("mine")
    assert caption("--format", "txt") == 0
    assert texts(tmp_path / "in")["a.txt"]
    assert texts(tmp_path / "in")["b.txt"] == "mine"


@pytest.mark.parametrize(
    ("left", "found"),
    [("old\n", "old new"), ("", "old new"), ("\0\0\0", "old new"), (None, "old new"), ("my own words", "my own words")],
)
def test_a_text_that_was_edited_after_a_crash_is_not_written_over(tmp_path: Path, left: str | None, found: str) -> None:
    target = tmp_path / "out" / "a.txt"
    target.parent.mkdir()
    target.write_text("old\n")
    written(tmp_path, "txt", [image_record(tmp_path / "a.jpg")], existing="append")
    target.unlink() if left is None else target.write_text(left)
    (tmp_path / "out.run" / "written").unlink()
    make_output(tmp_path / "out", tmp_path / "out.run", "txt", existing="append").finish()
    assert target.read_text().strip() == found


def test_an_outdated_text_is_written_over_after_a_crash(tmp_path: Path) -> None:
    target = written(tmp_path, "txt", [image_record(tmp_path / "a.jpg")]) / "a.txt"
    output = make_output(tmp_path / "out", tmp_path / "out.run", "txt")
    output.renew({digest("a.jpg"): 0})
    with output.journal:
        output.append([image_record(tmp_path / "a.jpg") | {"caption": "newer"}])
    target.write_text("new\n")
    make_output(tmp_path / "out", tmp_path / "out.run", "txt").finish()
    assert target.read_text() == "newer\n"
