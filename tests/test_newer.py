"""Images that are newer than their captions, and images that arrive while a run goes on."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from latentcap.batch.inputs import Input, Inputs
from latentcap.batch.journal import Record
from latentcap.batch.newer import newer
from latentcap.batch.outputs import Output, make_output
from latentcap.batch.plan import plan
from latentcap.batch.pool import Block
from latentcap.batch.run import Run
from latentcap.batch.run_folder import RunFolder
from latentcap.batch.watch import Watch
from latentcap.cli.caption import check
from latentcap.cli.caption_options import parse
from latentcap.data.errors import UserError


def says_what_it_holds(blocks: Iterator[Block]) -> Iterator[list[Record]]:
    """Captions that are the image's content; "broken" fails."""
    for block in blocks:
        records: list[Record] = []
        for item in block:
            (image,) = item.images
            text = Path(image.path).read_text()
            told: Record = {"error": text} if text == "broken" else {"caption": text, "score": 0.0}
            records.append({"file": item.name, **told, "_images": [[image.path, None, None, ""]]})
        yield records


class Folder:
    """Images of text, from an hour ago, and one output."""

    def __init__(self, root: Path, kind: str, **more: str) -> None:
        self.root, self.kind, self.more = root, kind, more
        self.photos = root / "photos"
        self.photos.mkdir()
        self.path = root / ("out" if kind in ("parts", "txt") else f"out.{kind}")

    def write(self, name: str, text: str, *, age: float = 3600.0) -> None:
        (self.photos / name).write_text(text)
        os.utime(self.photos / name, (time.time() - age,) * 2)

    def output(self) -> Output:
        return make_output(self.path, self.run_folder, self.kind, **self.more)  # type: ignore[arg-type]

    @property
    def run_folder(self) -> Path:
        return self.root / f"{self.path.name}.run"

    def caption(self) -> str:
        """One run with --changed: what the summary says."""
        with RunFolder(self.run_folder, output="out") as folder:
            folder.begin({}, empty=False)
            run = Run(Inputs([str(self.photos)]), self.output(), folder, block=2, quiet=True)
            run.renew(run.inputs)
            return str(run(says_what_it_holds)).split(" seen")[0]

    def captions(self) -> dict[str, str]:
        """By file; a file that comes twice is an error."""
        if self.kind == "txt":
            return {path.stem + ".jpg": path.read_text().strip() for path in self.path.glob("*.txt")}
        if self.kind == "parts":
            rows = pyarrow.parquet.read_table(self.path).to_pylist()
        elif self.kind == "csv":
            rows = [
                dict(zip(("file", "caption"), line.split(","), strict=False))
                for line in self.path.read_text().splitlines()
            ][1:]
        else:
            rows = [json.loads(line) for line in self.path.read_text().splitlines()]
        assert len({row["file"] for row in rows}) == len(rows)
        return {row["file"]: row["caption"] for row in rows}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parts", "txt"])
def test_images_that_are_newer_are_captioned_again(kind: str, tmp_path: Path) -> None:
    folder = Folder(tmp_path, kind)
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        folder.write(name, f"first {name}")
    assert folder.caption() == "3 captioned, 0 failed of 3"
    folder.write("b.jpg", "second", age=-1)
    folder.write("d.jpg", "new")
    assert folder.caption() == "2 captioned, 2 captioned before, 0 failed of 4"
    expected = {"a.jpg": "first a.jpg", "b.jpg": "second", "c.jpg": "first c.jpg", "d.jpg": "new"}
    assert folder.captions() == expected
    os.utime(folder.photos / "b.jpg", (time.time() - 60,) * 2)
    assert folder.caption() == "0 captioned, 4 captioned before, 0 failed of 4"
    assert folder.captions() == expected


def test_what_somebody_wrote_stays(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "txt", existing="append")
    folder.path.mkdir()
    (folder.path / "a.txt").write_text("theirs")
    for name in ("a.jpg", "b.jpg"):
        folder.write(name, "ours")
    folder.caption()
    assert folder.captions() == {"a.jpg": "theirs ours", "b.jpg": "ours"}
    (folder.path / "b.txt").write_text("ours, edited")
    for name in ("a.jpg", "b.jpg"):
        folder.write(name, "newer", age=-1)
    folder.caption()
    assert folder.captions() == {"a.jpg": "theirs newer", "b.jpg": "ours, edited newer"}


def test_a_text_that_somebody_removed_comes_again(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "txt")
    for name in ("a.jpg", "b.jpg"):
        folder.write(name, "ours")
    folder.caption()
    (folder.path / "a.txt").unlink()
    assert folder.caption() == "1 captioned, 1 captioned before, 0 failed of 2"
    assert folder.captions() == {"a.jpg": "ours", "b.jpg": "ours"}


def test_a_plan_counts_what_has_changed(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "jsonl")
    folder.write("a.jpg", "first")
    folder.caption()
    folder.write("a.jpg", "second", age=-1)
    before = folder.path.read_bytes()
    output, inputs = folder.output(), Inputs([str(folder.photos)])
    stale = newer(inputs, output, RunFolder(folder.run_folder, output="out").times)
    summary, names = plan(inputs, output, stale=stale)
    assert names == ["a.jpg"]
    assert summary.left == 1
    assert folder.path.read_bytes() == before


class Changing(Watch):
    """At the second look one file is another, one is mended, and one is being written; when it is captioned, Ctrl-C."""

    looks = 0

    def __init__(self, folder: Folder, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.folder = folder

    def __call__(self) -> list[Input]:
        self.looks += 1
        if self.looks == 2:
            self.folder.write("a.jpg", "changed", age=-1)
            self.folder.write("b.jpg", "mended")
        if self.looks in (2, 3, 4):
            self.folder.write("c.jpg", "half" * self.looks, age=-60 * self.looks)
        if self.looks > 1 and "c.jpg" in self.folder.path.read_text():
            os.kill(os.getpid(), signal.SIGINT)
        return super().__call__()


@pytest.mark.parametrize("changed", [False, True])
def test_watching_takes_what_arrives_once_it_is_whole(
    changed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentcap.batch.watch.SETTLED", 0.2)
    monkeypatch.setattr("latentcap.batch.watch.PAUSE", 0.05)
    folder = Folder(tmp_path, "jsonl")
    folder.write("a.jpg", "there before")
    folder.write("b.jpg", "broken")
    with RunFolder(folder.run_folder, output="out") as run_folder:
        run_folder.begin({}, empty=False)
        inputs = Inputs([str(folder.photos)], may_be_empty=True)
        run = Run(inputs, folder.output(), run_folder, block=1, quiet=True)
        watch = Changing(folder, inputs, failed=run.still_failed, changed=changed)
        for _ in run.watch(says_what_it_holds, watch, lambda count: 2):
            pass
    assert folder.captions() == {
        "a.jpg": "changed" if changed else "there before",
        "b.jpg": "mended",
        "c.jpg": "halfhalfhalfhalf",
    }
    assert not run_folder.errors.path.exists()
    assert json.loads((folder.run_folder / "summary.json").read_text())["status"] == "complete"
    assert not run.summary.left


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.jpg", "--watch"], "--watch a.jpg: not a folder"),
        ([".", "--watch", "--devices", "2"], "one device"),
        ([".", "--watch", "--retry-failed"], "give one of them"),
        ([".", "--changed", "--retry-failed"], "give one of them"),
    ],
)
def test_options_that_contradict_each_other(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(parse([*arguments, "--output", "x.jsonl"]))
