"""Tars whose names, or whose texts' names, are those of others: no caption is lost without a word."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from latentcap.batch.inputs import Input, Inputs
from latentcap.batch.outputs import make_output
from latentcap.batch.outputs.webdataset import Tars


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    return tmp_path / "in"


def pack(path: Path, *names: str) -> None:
    with tarfile.open(path, "w") as archive:
        for name in names:
            content = f"pixels of {name}".encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def caption(*sources: str) -> dict[str, str]:
    """Caption what is not captioned yet. Returns the errors."""
    output = make_output(Path("../out"), Path("../out.run"), "webdataset")
    assert isinstance(output, Tars)
    known = {record["file"] for record in output.journal}
    prepared = [output.prepare(item, known=item.name in known) for item in Inputs(list(sources))]
    items = [item for item in prepared if isinstance(item, Input)]
    with output.journal:
        for item in items:
            if not item.error and item.name not in known:
                places = [list(image.place) for image in item.images]
                output.append([{"file": item.name, "caption": f"of {item.name}", "_images": places}])
    output.finish(quiet=True)
    return {item.name: item.error for item in items if item.error}


def texts(name: str) -> list[str]:
    with tarfile.open(Path("../out", name)) as archive:
        return [
            archive.extractfile(member).read().decode()  # type: ignore[union-attr]
            for member in archive
            if member.name.endswith(".txt")
        ]


def test_files_are_packed_beside_a_tar_of_the_same_name(here: Path) -> None:
    pack(here / "captions-00000.tar", "1.jpg", "2.jpg")
    (here / "3.jpg").write_bytes(b"pixels")
    assert caption(".") == {}
    assert texts("captions-00000.tar") == ["of captions-00000.tar:1.jpg", "of captions-00000.tar:2.jpg"]
    assert texts("captions-00001.tar") == ["of 3.jpg"]


def test_a_tar_that_comes_later_takes_the_name_of_a_packed_one(here: Path) -> None:
    (here / "3.jpg").write_bytes(b"pixels")
    assert caption(".") == {}
    pack(here / "captions-00000.tar", "1.jpg")
    assert caption(".") == {}
    assert texts("captions-00000.tar") == ["of captions-00000.tar:1.jpg"]
    assert texts("captions-00001.tar") == ["of 3.jpg"]


def test_two_tars_with_one_place(here: Path) -> None:
    for path in (here.parent / "i.tar", here / "i.tar"):
        pack(path, "1.jpg", "2.jpg")
    for _ in range(2):
        errors = caption("../i.tar", "i.tar")
        assert list(errors) == ["i.tar:1.jpg", "i.tar:2.jpg"]
        assert set(errors.values()) == {"its tar would be ../out/i.tar, as ../i.tar is: give it another --output"}
        assert texts("i.tar") == ["of ../i.tar:1.jpg", "of ../i.tar:2.jpg"]


def test_two_images_with_one_text(here: Path) -> None:
    pack(here / "h.tar", "k.jpg", "k.png", "deep/k.png")
    (reason,) = caption("h.tar").values()
    assert reason.startswith("k.txt is the text of another image in its tar already")
    assert texts("h.tar") == ["of k.jpg", "of deep/k.png"]


def test_packed_tars_that_are_no_longer_needed_go(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentcap.batch.outputs.webdataset.PER_TAR", 1)
    for name in ("1.jpg", "2.jpg"):
        (here / name).write_bytes(b"pixels")
    caption(".")
    (here.parent / "out" / "theirs.tar").write_bytes(b"")
    output = make_output(Path("../out"), Path("../out.run"), "webdataset")
    output.renew({0: 0})
    output.finish(quiet=True)
    assert sorted(path.name for path in (here.parent / "out").iterdir()) == ["captions-00000.tar", "theirs.tar"]
    assert texts("captions-00000.tar") == ["of 2.jpg"]
    assert list(json.loads((here.parent / "out.run" / "tars.json").read_text())) == ["../out/captions-00000.tar"]
