"""Images that are captioned and gone before they are copied into a data set: failures, which stop nothing."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet
import pytest

from latentcap.batch.inputs import Inputs
from latentcap.batch.journal import Journal, Record
from latentcap.batch.outputs import make_output
from latentcap.batch.pool import Block
from latentcap.batch.run import Run
from latentcap.batch.run_folder import RunFolder
from latentcap.batch.summary import Summary
from latentcap.data.errors import UserError

KINDS = ("hf", "webdataset")
PER_FILE = 3


@pytest.fixture(autouse=True)
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentcap.batch.outputs.hf.HuggingFaceFolder.per_part", PER_FILE)
    monkeypatch.setattr("latentcap.batch.outputs.webdataset.PER_TAR", PER_FILE)


class DataSet:
    """Images 0.jpg, 1.jpg, ... from an hour ago, and one output; the caption of an image is its content."""

    def __init__(self, root: Path, kind: str, images: int) -> None:
        self.root, self.kind, self.path = root, kind, root / "out"
        self.photos = root / "photos"
        self.photos.mkdir()
        for number in range(images):
            self.write(number)

    def write(self, number: int, text: str = "", *, age: float = 3600.0) -> None:
        (self.photos / f"{number}.jpg").write_text(text or f"image {number}")
        os.utime(self.photos / f"{number}.jpg", (time.time() - age,) * 2)

    def lose(self, *numbers: int) -> None:
        for number in numbers:
            (self.photos / f"{number}.jpg").unlink()

    def run(self, *, changed: bool = False, after: Callable[[], object] = lambda: None) -> Summary:
        """Caption all; ``after`` that, and before the end, something happens."""

        def pool(blocks: Iterator[Block]) -> Iterator[list[Record]]:
            for block in blocks:
                yield [
                    {
                        "file": item.name,
                        "caption": Path(item.images[0].path).read_text(),
                        "_images": [list(image.place) for image in item.images],
                    }
                    for item in block
                ]
            after()

        output = make_output(self.path, self.root / "out.run", self.kind)
        with RunFolder(self.root / "out.run", output="out") as folder:
            folder.begin({}, empty=False)
            run = Run(Inputs([str(self.photos)]), output, folder, block=2, quiet=True)
            if changed:
                run.renew(run.inputs)
            summary = run(pool)
        told = json.loads((self.root / "out.run" / "summary.json").read_text())
        assert not summary.left
        assert sum(told["why_failed"].values()) == told["failed"] == summary.failed == len(self.errors)
        return summary

    @property
    def errors(self) -> dict[str, str]:
        return {record["file"]: record["error"] for record in Journal(self.root / "out.run" / "errors.jsonl")}

    @property
    def files(self) -> list[Path]:
        return sorted(self.path.rglob("*.parquet" if self.kind == "hf" else "*.tar"))

    @property
    def captions(self) -> list[list[str]]:
        """Of each file, checked against its images."""
        return [self._parquet(file) if self.kind == "hf" else self._tar(file) for file in self.files]

    def _parquet(self, file: Path) -> list[str]:
        rows = pyarrow.parquet.read_table(file).to_pylist()
        assert [row["image"]["bytes"].decode() for row in rows] == [row["caption"] for row in rows]
        return [row["caption"] for row in rows]

    def _tar(self, file: Path) -> list[str]:
        with tarfile.open(file) as archive:
            found = {member.name: archive.extractfile(member).read().decode() for member in archive}  # type: ignore[union-attr]
        images = [name for name in found if name.endswith(".jpg")]
        assert [found[name] for name in images] == [found[f"{name[:-4]}.txt"] for name in images]
        return [found[name] for name in images]


def images(*numbers: int) -> list[str]:
    return [f"image {number}" for number in numbers]


@pytest.mark.parametrize("kind", KINDS)
def test_what_vanishes_while_a_run_goes_on(kind: str, tmp_path: Path) -> None:
    data = DataSet(tmp_path, kind, 8)
    summary = data.run(after=lambda: data.lose(1, 4))
    assert str(summary).startswith("6 captioned, 2 failed of 8 seen")
    assert data.errors == dict.fromkeys(
        ("1.jpg", "4.jpg"), "was captioned and cannot be read now (No such file or directory)"
    )
    assert data.captions == [images(0, 2, 3), images(5, 6, 7)]
    data.write(4)
    assert str(data.run()).startswith("1 captioned, 6 captioned before, 0 failed of 7 seen")
    assert data.captions == [images(0, 2, 3), images(5, 6, 7), images(4)]


def test_what_vanishes_before_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal goes on being written."""
    monkeypatch.setattr("latentcap.batch.run.MANIFEST_SECONDS", 0.0)
    data = DataSet(tmp_path, "hf", 8)
    original = Journal.append

    def lose_the_first(self: Journal, records: list[Record]) -> None:
        original(self, records)
        if self.path.name == "captions.jsonl" and records[0]["file"] == "2.jpg":
            data.lose(0)

    monkeypatch.setattr(Journal, "append", lose_the_first)
    assert str(data.run()).startswith("7 captioned, 1 failed of 8 seen")
    assert data.captions == [images(1, 2, 3), images(4, 5, 6), images(7)]


@pytest.mark.parametrize("kind", KINDS)
def test_one_is_gone_and_another_has_changed(kind: str, tmp_path: Path) -> None:
    data = DataSet(tmp_path, kind, 7)
    data.run()
    data.lose(5)
    data.write(1, "changed", age=-1)
    summary = data.run(changed=True)
    assert str(summary).startswith("1 captioned, 5 captioned before, 1 failed of 7 seen")
    assert data.captions == [images(0, 2, 3), [*images(4, 6), "changed"]]
    os.utime(data.photos / "1.jpg", (time.time() - 60,) * 2)
    assert str(data.run(changed=True)).startswith("0 captioned, 6 captioned before, 0 failed of 6 seen")
    assert data.captions == [images(0, 2, 3), [*images(4, 6), "changed"]]


@pytest.mark.parametrize("kind", KINDS)
def test_one_is_gone_and_another_has_come(kind: str, tmp_path: Path) -> None:
    data = DataSet(tmp_path, kind, 5)
    data.run()
    full, _ = (file.stat().st_mtime_ns for file in data.files)
    data.lose(0, 4)
    assert str(data.run()).startswith("0 captioned, 3 captioned before, 0 failed of 3 seen")
    assert data.captions == [images(0, 1, 2), images(3, 4)]  # what has been copied stays
    data.write(7)
    assert str(data.run()).startswith("1 captioned, 3 captioned before, 1 failed of 5 seen")
    assert data.captions == [images(0, 1, 2), images(3, 7)]
    assert data.files[0].stat().st_mtime_ns == full


@pytest.mark.parametrize("kind", KINDS)
def test_files_stay_until_others_take_their_place(kind: str, tmp_path: Path) -> None:
    """A run with --changed that ends early leaves them, and the next one replaces them."""
    data = DataSet(tmp_path, kind, 7)
    data.run()
    data.write(1, "changed", age=-1)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.run(changed=True, after=stop)
    assert data.captions == [images(0, 1, 2), images(3, 4, 5), images(6)]
    data.run()
    assert data.captions == [images(0, 2, 3), images(4, 5, 6), ["changed"]]


@pytest.mark.parametrize("kind", KINDS)
def test_where_the_disk_is_gone_no_caption_is_lost(kind: str, tmp_path: Path) -> None:
    data = DataSet(tmp_path, kind, 7)
    with pytest.raises(UserError, match=r"0\.jpg: was captioned and cannot be read now .* 2 images after it\. Where"):
        data.run(after=lambda: data.photos.rename(tmp_path / "elsewhere"))
    shutil.move(tmp_path / "elsewhere", data.photos)
    assert str(data.run()).startswith("0 captioned, 7 captioned before, 0 failed of 7 seen")
    assert data.captions == [images(0, 1, 2), images(3, 4, 5), images(6)]
