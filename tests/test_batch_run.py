"""A run that is killed at any moment, in every format, ends as if it had not been; full disks and second runs."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import resource
import shutil
import signal
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pyarrow.parquet
import pytest
from PIL import Image

from latentcap.batch.inputs import Input, Inputs
from latentcap.batch.journal import Journal, Record, digest
from latentcap.batch.metadata.image_file import read_description, write_description
from latentcap.batch.outputs import make_output
from latentcap.batch.pool import Block
from latentcap.batch.run import Run, block_sizes
from latentcap.batch.run_folder import RunFolder
from latentcap.batch.summary import Summary
from latentcap.data.errors import UserError

BLOCK, IMAGES = 4, 30
FORMATS = ("jsonl", "csv", "parquet", "coco", "parts", "hf", "txt", "xmp", "webdataset")


def fake(block: Block, *, needs_images: bool = True) -> list[Record]:
    """A caption that depends on the whole block, as numbers of a real model can; every seventh image fails."""
    composition = digest("".join(item.name for item in block)) % 10**6
    records: list[Record] = []
    for item in block:
        if item.error or digest(item.name) % 7 == 0:
            records.append({"file": item.name, "error": item.error or "broken"})
            continue
        record: Record = {"file": item.name, "caption": f"picture {item.name}", "score": composition / 1e6}
        if needs_images:
            record["_images"] = [list(image.place) for image in item.images]
        records.append(record)
    return records


def pool(blocks: Iterator[Block]) -> Iterator[list[Record]]:
    for block in blocks:
        time.sleep(0.0005)
        yield fake(block)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("parts.ParquetParts", "hf.HuggingFaceFolder"):
        monkeypatch.setattr(f"latentcap.batch.outputs.{name}.per_part", 8)


def plain_pool(blocks: Iterator[Block]) -> Iterator[list[Record]]:
    return (fake(block, needs_images=False) for block in blocks)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in files of two folders, in a zip, and in a tar with texts of its own."""
    folder = tmp_path_factory.mktemp("in") / "photos"
    (folder / "deep").mkdir(parents=True)
    data = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(data, "JPEG")
    for index in range(IMAGES):
        (folder / ("deep" if index % 2 else "") / f"{index:02}.jpg").write_bytes(data.getvalue())
    with tarfile.open(folder / "shard.tar", "w") as archive:
        for name, content in (("a.jpg", data.getvalue()), ("a.txt", b"old"), ("b.jpg", data.getvalue())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with zipfile.ZipFile(folder / "export.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in ("a.jpg", "deep/b.jpg"):
            packed.writestr(name, data.getvalue())
    return folder


def run(folder: Path, kind: str, photos: Path, *, use: Callable = pool, existing: str = "append") -> Summary:
    """One run in this process, into ``folder``."""
    path = folder / ("out" if kind in ("parts", "hf", "txt", "xmp", "webdataset") else f"out.{kind}")
    output = make_output(path, folder / f"{path.name}.run", kind, existing=existing)
    with RunFolder(folder / f"{path.name}.run", output=str(path)) as run_folder:
        run_folder.begin({"model": "x"}, empty=False)
        return Run(Inputs([str(photos)]), output, run_folder, block=BLOCK, quiet=True)(use)


def files(folder: Path) -> dict[str, bytes]:
    """Everything under a folder that a run leaves, but for what differs by its nature: dates, process and places."""
    changing = ("manifest.json", "summary.json", "times.jsonl", "lock", "writer", "written", "tars.json")
    return {
        str(path.relative_to(folder)): path.read_bytes().replace(os.fsencode(folder), b"")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in changing
    }


def in_child(work: Callable[[], object]) -> int:
    """Fork, and run ``work`` there. Returns the child's process id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


@pytest.mark.parametrize("kind", FORMATS)
def test_killed_at_any_moment_it_ends_the_same(kind: str, photos: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    if kind == "txt":
        (whole / "out").mkdir()
        (whole / "out" / "00.txt").write_text("what was there")
    start = time.monotonic()
    summary = run(whole, kind, photos)
    duration = time.monotonic() - start
    assert summary.captioned + summary.failed == IMAGES + 4
    assert summary.failed
    moments = random.Random(kind)
    for attempt in range(4):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        if kind == "txt":
            (folder / "out").mkdir()
            (folder / "out" / "00.txt").write_text("what was there")
        for _ in range(15):
            child = in_child(lambda folder=folder: run(folder, kind, photos))
            time.sleep(moments.uniform(0, duration))
            os.kill(child, signal.SIGKILL)
            if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
                break
        run(folder, kind, photos)
        expected = files(whole)
        assert {name: content for name, content in files(folder).items() if not name.endswith(".part")} == expected


def test_images_that_are_written_to_survive_being_killed(photos: Path, tmp_path: Path) -> None:
    def embed(folder: Path) -> Summary:
        output = make_output(None, folder / "out.run", "embed", existing="append")
        with RunFolder(folder / "out.run", output="x") as run_folder:
            run_folder.begin({"model": "x"}, empty=False)
            return Run(Inputs([str(folder / "photos")]), output, run_folder, block=BLOCK, quiet=True)(pool)

    moments = random.Random(1)
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        shutil.copytree(photos, folder / "photos")
        for image in (folder / "photos").rglob("*.jpg"):
            write_description(image, "old")
        for _ in range(6):
            child = in_child(lambda folder=folder: embed(folder))
            time.sleep(moments.uniform(0, 0.3))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        summary = embed(folder)
        assert summary.left == 0
        for image in (folder / "photos").rglob("*.jpg"):
            name = str(image.relative_to(folder / "photos"))
            expected = "old" if digest(name) % 7 == 0 else f"old picture {name}"
            assert read_description(image) == expected
            assert (image.parent / image.name).read_bytes()[-600:] == (photos / name).read_bytes()[-600:]


def test_full_parts_are_written_once(photos: Path, tmp_path: Path) -> None:
    run(tmp_path, "parts", photos, use=plain_pool)
    parts = sorted((tmp_path / "out").glob("*"))
    rows = [pyarrow.parquet.read_table(part)["file"].to_pylist() for part in parts]
    known = [record["file"] for record in Journal(tmp_path / "out.run" / "captions.jsonl")]
    assert [name for part in rows for name in part] == known
    assert [len(part) for part in rows] == [8] * (len(known) // 8) + [len(known) % 8]
    before = [(part.name, part.stat().st_ino) for part in parts]
    Image.new("RGB", (4, 4)).save(tmp_path / "zz.png")
    run(tmp_path, "parts", tmp_path / "zz.png", use=plain_pool)
    after = [(part.name, part.stat().st_ino) for part in sorted((tmp_path / "out").glob("*"))]
    assert after[: len(known) // 8] == before[: len(known) // 8]
    (tmp_path / "out.run" / "captions.jsonl").unlink()
    with pytest.raises(UserError, match="has more captions than"):
        run(tmp_path, "parts", tmp_path / "zz.png", use=plain_pool)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_second_run_of_the_same_command_changes_nothing(kind: str, photos: Path, tmp_path: Path) -> None:
    first = run(tmp_path, kind, photos)
    before = files(tmp_path)
    second = run(tmp_path, kind, photos)
    assert files(tmp_path) == before
    assert (second.captioned, second.resumed, second.failed) == (0, first.captioned, first.failed)


def test_what_failed_is_tried_again_and_mended_errors_go(photos: Path, tmp_path: Path) -> None:
    run(tmp_path, "jsonl", photos, use=plain_pool)
    errors = tmp_path / "out.jsonl.run" / "errors.jsonl"
    assert errors.is_file()

    def mended(blocks: Iterator[Block]) -> Iterator[list[Record]]:
        return ([{"file": item.name, "caption": "now", "score": 0.0} for item in block] for block in blocks)

    summary = run(tmp_path, "jsonl", photos, use=mended)
    assert summary.failed == 0
    assert not errors.exists()
    names = [record["file"] for record in Journal(tmp_path / "out.jsonl")]
    assert len(names) == len(set(names)) == IMAGES + 4


def test_files_that_are_added_later_are_all_that_is_captioned(photos: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for index in range(9):
        os.link(photos / "00.jpg", source / f"{index}.jpg")
    run(tmp_path, "jsonl", source, use=plain_pool)
    os.link(photos / "00.jpg", source / "44.jpg")
    asked: list[str] = []

    def watching(blocks: Iterator[Block]) -> Iterator[list[Record]]:
        for block in blocks:
            asked.extend(item.name for item in block)
            yield fake(block, needs_images=False)

    run(tmp_path, "jsonl", source, use=watching)
    assert "44.jpg" in asked
    names = [record["file"] for record in Journal(tmp_path / "out.jsonl")]
    assert len(names) == len(set(names))


def test_ctrl_c_finishes_what_is_under_way(photos: Path, tmp_path: Path) -> None:
    def interrupted(blocks: Iterator[Block]) -> Iterator[list[Record]]:
        for count, block in enumerate(blocks):
            if count == 2:
                os.kill(os.getpid(), signal.SIGINT)
            yield fake(block, needs_images=False)

    summary = run(tmp_path, "jsonl", photos, use=interrupted)
    assert summary.interrupted
    assert summary.captioned + summary.failed == 3 * BLOCK
    assert json.loads((tmp_path / "out.jsonl.run" / "manifest.json").read_text())["status"] == "interrupted"
    assert not run(tmp_path, "jsonl", photos, use=plain_pool).interrupted


def test_two_runs_at_once_and_other_settings_are_refused(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "x.run"
    with RunFolder(folder, output="x") as first:
        first.begin({"model": "a", "search": {"beam_size": 3}}, empty=True)
        with (
            pytest.raises(UserError, match=rf"x: another run is writing it \(process {os.getpid()} on "),
            RunFolder(folder, output="x"),
        ):
            pass
    with RunFolder(folder, output="x") as second:
        message = r"search\.beam_size was 3 and is 5\. Use those to go on, --overwrite to start anew"
        with pytest.raises(UserError, match=message):
            second.begin({"model": "a", "search": {"beam_size": 5}}, empty=False)
        second.begin({"model": "a", "search": {"beam_size": 5}}, empty=True)


def test_a_full_disk_is_told_and_loses_nothing(photos: Path, tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands for the disk: a write is cut off in the middle of a line, and then fails."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
        with pytest.raises(UserError, match="What was captioned before is kept"):
            run(tmp_path, "jsonl", photos, use=plain_pool)

    assert os.waitstatus_to_exitcode(os.waitpid(in_child(limited), 0)[1]) == 0
    kept = (tmp_path / "out.jsonl").read_bytes()
    assert kept.endswith(b"\n")
    assert 0 < len(kept) <= 1500
    run(tmp_path, "jsonl", photos, use=plain_pool)
    other = tmp_path / "other"
    other.mkdir()
    run(other, "jsonl", photos, use=plain_pool)
    assert (tmp_path / "out.jsonl").read_bytes() == (other / "out.jsonl").read_bytes()


def test_a_hundred_thousand_inputs_are_not_held(tmp_path: Path) -> None:
    """Blocks are asked for one by one: no more inputs exist than are under way."""
    alive, most = 0, 0

    class Endless(Inputs):
        def __init__(self) -> None:
            self.made = 0

        def __iter__(self) -> Iterator[Input]:
            for self.made in range(1, 2001):
                yield Input(f"{self.made}.jpg", ())

    inputs = Endless()

    def counting(blocks: Iterator[Block]) -> Iterator[list[Record]]:
        nonlocal alive, most
        for done, block in enumerate(blocks, start=1):
            most = max(most, inputs.made - done * BLOCK)
            yield [{"file": item.name, "caption": "x", "score": 0.0} for item in block]

    output = make_output(tmp_path / "x.jsonl", tmp_path / "x.jsonl.run", "jsonl")
    with RunFolder(tmp_path / "x.jsonl.run", output="x") as folder:
        assert Run(inputs, output, folder, block=BLOCK, quiet=True)(counting).captioned == 2000
    assert most <= BLOCK


def test_sidecars_left_unwritten_are_written_where_only_failures_are_left(photos: Path, tmp_path: Path) -> None:
    run(tmp_path, "txt", photos)
    (tmp_path / "out.run" / "written").unlink()
    lost = sorted((tmp_path / "out").rglob("*.txt"))[-1]
    before = lost.read_text()
    lost.unlink()
    run(tmp_path, "txt", photos)
    assert lost.read_text() == before


def test_the_first_blocks_are_small() -> None:
    assert list(islice(block_sizes(64), 9)) == [8, 8, 16, 16, 32, 32, 64, 64, 64]
    assert list(islice(block_sizes(4), 2)) == [4, 4]


def test_what_is_no_image_is_skipped_counted_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentcap.data.kinds.find_spec", lambda name: None)  # what reads raw files is not installed
    folder = tmp_path / "phone"
    folder.mkdir()
    for name in ("1.jpg", "2.jpg"):
        Image.new("RGB", (4, 4)).save(folder / name)
    for name in ("v.mp4", "raw.dng", "notes.txt"):
        (folder / name).write_bytes(b"x")

    def one_fails(blocks: Iterator[Block]) -> Iterator[list[Record]]:
        answers = {"1.jpg": {"caption": "x", "score": 0.0}, "2.jpg": {"error": "broken"}}
        return ([{"file": item.name, **answers[item.name]} for item in block] for block in blocks)

    for summary in (run(tmp_path, "jsonl", folder, use=one_fails), run(tmp_path, "jsonl", folder, use=one_fails)):
        assert (summary.captioned + summary.resumed, summary.skipped, summary.failed) == (1, 2, 1)
        assert summary.missed == 1  # the raw file is a picture
        told = [record["file"] for record in Journal(tmp_path / "out.jsonl.run" / "skipped.jsonl")]
        assert told == ["raw.dng", "v.mp4"]
    (folder / "raw.dng").unlink()
    (folder / "v.mp4").unlink()
    assert run(tmp_path, "jsonl", folder, use=one_fails).skipped == 0
    assert not (tmp_path / "out.jsonl.run" / "skipped.jsonl").exists()


def told(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "summary.json").read_text()))


def test_the_summary_s_counts_add_up_where_writing_fails(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_of_each(blocks: Iterator[Block]) -> Iterator[list[Record]]:
        for block in blocks:
            yield [{**record, "error": "broken"} if number else record for number, record in enumerate(fake(block))]

    monkeypatch.setattr("latentcap.batch.outputs.sidecar.Sidecars.write", Mock(side_effect=OSError(errno.ENOSPC, "")))
    with pytest.raises(UserError, match=r"00\.txt: cannot be written \(no space is left on its disk\)\. What"):
        run(tmp_path, "txt", photos, use=one_of_each, existing="overwrite")
    counts = told(tmp_path / "out.run")
    assert counts["failed"] == sum(counts["why_failed"].values()) > 0
    assert len(list(Journal(tmp_path / "out.run" / "errors.jsonl"))) == counts["failed"]


def test_the_summary_s_counts_add_up_after_every_run(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "00.txt").write_text("mine")

    def interrupted(blocks: Iterator[Block]) -> Iterator[list[Record]]:
        for count, block in enumerate(blocks):
            if count == 2:
                os.kill(os.getpid(), signal.SIGINT)
            yield fake(block)

    names = ("captioned", "captioned_before", "skipped", "failed", "left")
    results = []
    for use in (interrupted, pool, pool):
        summary = run(tmp_path, "txt", photos, use=use, existing="skip")
        counts = told(tmp_path / "out.run")
        assert sum(counts[name] for name in names) == counts["seen"] == summary.seen
        assert sum(counts["why_skipped"].values()) == counts["skipped"] == 1
        assert sum(counts["why_failed"].values()) == counts["failed"]
        results.append(counts)
    assert [counts["status"] for counts in results] == ["interrupted", "complete", "complete"]
    assert [counts["captioned_before"] for counts in results[1:]] == [
        results[0]["captioned"],
        results[0]["captioned"] + results[1]["captioned"],
    ]
    assert results[1]["seen"] == results[2]["seen"] == IMAGES + 4
    assert set(results[2]["why_failed"]) == {"broken"}
