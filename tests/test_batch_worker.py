"""From inputs to records: every kind of broken image, memory that runs out, failures of single images."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latentcap.batch.inputs import Input, Inputs
from latentcap.batch.wording import Wording
from latentcap.batch.worker import Worker, WorkerSettings
from latentcap.captioner import Captioner
from latentcap.data.batches.context import ContextFields
from latentcap.data.errors import UserError
from latentcap.data.example import ImageRef
from tests.helpers import tiny_captioner

RED = Image.new("RGB", (40, 30), "red")


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return tiny_captioner(fields=ContextFields(numbers={"age": (40.0, 10.0)}))


@pytest.fixture
def worker(captioner: Captioner) -> Worker:
    return Worker(captioner, WorkerSettings("tiny"))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)


def readable(folder: Path) -> dict[str, Callable[[Path], object]]:
    """Images that are unusual and can be had."""
    wide = (noise(32, 32).astype(np.uint16) << 8) + 7
    return {
        "cmyk.jpg": lambda path: RED.convert("CMYK").save(path),
        "sixteen_bit.png": lambda path: Image.fromarray(wide).save(path),
        "palette.png": lambda path: RED.convert("P").save(path, transparency=0),
        "animated.gif": lambda path: RED.save(path, save_all=True, append_images=[RED.rotate(90)]),
        "animated.webp": lambda path: RED.save(path, save_all=True, append_images=[RED.rotate(90)]),
        "one.png": lambda path: RED.resize((1, 1)).save(path),
        "long.jpg": lambda path: RED.resize((30_000, 10)).save(path),
        "tall.png": lambda path: RED.resize((1, 3000)).save(path),
        "png_named.jpg": lambda path: RED.save(path, "PNG"),
        "modern.avif": lambda path: RED.save(path),
        "grey_alpha.png": lambda path: RED.convert("LA").save(path),
        "floats.tiff": lambda path: RED.convert("F").save(path),
        "large.jpg": lambda path: RED.resize((4000, 3000)).save(path),
    }


def broken(folder: Path) -> dict[str, tuple[Callable[[Path], object], str]]:
    """Files that no image can be had of, and what is said of each."""
    photo = folder / "photo.png"
    Image.fromarray(noise(64, 64, 3)).save(photo)
    content = photo.read_bytes()
    photo.unlink()
    bomb = bytearray(content)
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2  # width and height, as its header claims

    def claim(path: Path) -> None:
        import zlib

        bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
        path.write_bytes(bomb)

    return {
        "empty.jpg": (lambda path: path.write_bytes(b""), "empty"),
        "truncated.png": (lambda path: path.write_bytes(content[:3000]), "truncated"),
        "text.jpg": (lambda path: path.write_text("a text"), "not an image"),
        "noise.png": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + noise(300).tobytes()), ""),
        "bomb.png": (claim, "bomb"),
        "vanished.jpg": (lambda path: None, "No such file"),
        "a_folder.jpg": (lambda path: path.mkdir(), "a folder"),
        "a_pipe.jpg": (lambda path: os.mkfifo(path), "not a regular file"),
        "loop.jpg": (lambda path: path.symlink_to(path), "symbolic links"),
        "huge.jpg": (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 2 << 30), "larger than 1 GiB"),
    }


def block_of(folder: Path, names: Sequence[str]) -> list[Input]:
    return [Input(name, (ImageRef(str(folder / name)),)) for name in names]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_broken_files_fail_alone_and_unusual_ones_are_captioned(worker: Worker, tmp_path: Path) -> None:
    expected: dict[str, str | None] = {}
    for name, make in readable(tmp_path).items():
        make(tmp_path / name)
        expected[name] = None
    for name, (make, said) in broken(tmp_path).items():
        make(tmp_path / name)
        expected[name] = said
    names = sorted(expected)
    records = worker(block_of(tmp_path, names))
    assert [record["file"] for record in records] == names
    for record in records:
        said = expected[record["file"]]
        if said is None:
            assert record.get("caption"), record
        else:
            assert "caption" not in record
            assert said in record["error"], record


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_said(worker: Worker, tmp_path: Path) -> None:
    RED.save(tmp_path / "x.png")
    (tmp_path / "x.png").chmod(0)
    assert worker(block_of(tmp_path, ["x.png"]))[0]["error"] == "Permission denied"


def test_permission_is_told_whoever_runs_it(worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RED.save(tmp_path / "x.png")

    def refuse(self: ImageRef) -> bytes:
        raise PermissionError(13, "Permission denied", self.path)

    monkeypatch.setattr(ImageRef, "read_bytes", refuse)
    assert worker(block_of(tmp_path, ["x.png"])) == [{"file": "x.png", "error": "Permission denied"}]


def test_a_block_of_nothing_readable(worker: Worker) -> None:
    items = [Input("a", (), error="said before"), Input("b", (ImageRef("gone"), ImageRef("gone")))]
    assert [record["error"] for record in worker(items)] == [
        "said before",
        "2 views, where the model was trained with at most 1",
    ]


def save_all(folder: Path, count: int) -> list[Input]:
    for index in range(count):
        Image.fromarray(noise(20 + index, 20, 3)).save(folder / f"{index}.png")
    return block_of(folder, [f"{index}.png" for index in range(count)])


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, MemoryError, RuntimeError])
def test_a_batch_that_is_too_large_is_halved_from_then_on(
    captioner: Captioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    worker, items = Worker(captioner, WorkerSettings("tiny")), save_all(tmp_path, 8)
    whole = [record["caption"] for record in worker(items)]
    sizes: list[int] = []
    original = Captioner.caption_tensors

    def small(self: Captioner, views: list[Any], *more: Any, **named: Any) -> Any:
        sizes.append(len(views))
        if len(views) > 2:
            raise kind("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return original(self, views, *more, **named)

    monkeypatch.setattr(Captioner, "caption_tensors", small)
    assert [record["caption"] for record in worker(items)] == whole
    assert sizes == [8, 4, 2, 2, 4, 2, 2]
    sizes.clear()
    assert [record["caption"] for record in worker(items)] == whole
    assert sizes == [2, 2, 2, 2]


def test_one_image_that_the_model_fails_with_fails_alone(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = save_all(tmp_path, 4)
    poison = worker._read(items[2])[0]
    original = Captioner.caption_tensors

    def picky(self: Captioner, views: list[Any], *more: Any, **named: Any) -> Any:
        if any(torch.equal(view[0], poison) for view in views):
            raise ValueError("no such picture")
        return original(self, views, *more, **named)

    monkeypatch.setattr(Captioner, "caption_tensors", picky)
    records = worker(items)
    assert [("error" in record) for record in records] == [False, False, True, False]
    assert records[2]["error"] == "ValueError: no such picture"
    monkeypatch.setattr(Captioner, "caption_tensors", lambda *_, **named: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # the fault of no image
        worker(items)


def test_records_hold_what_was_asked_for(captioner: Captioner, tmp_path: Path) -> None:
    search = captioner.search_config(num_captions=2)
    settings = WorkerSettings("tiny", search=search, wording=Wording("a photo: ", "."), keep_images=True)
    RED.save(tmp_path / "x.png")
    image = ImageRef(str(tmp_path / "x.png"))
    (record,) = Worker(captioner, settings)([Input("x.png", (image,), context="left", numbers={"age": 50.0})])
    (known,) = captioner.caption([RED], "left", numbers=[{"age": 50.0}], num_captions=2)
    assert record["caption"] == f"a photo: {known.text}."
    assert record["score"] == pytest.approx(known.score, abs=1e-4)
    assert [other["caption"] for other in record["alternatives"]] == [f"a photo: {known.alternatives[0].text}."]
    assert record["context"] == "left"
    assert record["_images"] == [[str(tmp_path / "x.png"), None, None, "", None]]


def test_the_folder_of_broken_files_as_a_whole(captioner: Captioner, tmp_path: Path) -> None:
    """What the listing finds of them, and that the worker has a record for each."""
    for name, (make, _) in broken(tmp_path).items():
        make(tmp_path / name)
    items = list(Inputs([str(tmp_path)]))
    assert {item.name for item in items} == {
        *("bomb.png", "empty.jpg", "huge.jpg", "loop.jpg", "noise.png", "text.jpg", "truncated.png")
    }
    assert all("error" in record for record in Worker(captioner, WorkerSettings("tiny"))(items))


def test_a_model_folder_that_is_not_there() -> None:
    with pytest.raises(UserError, match="does not exist"):
        Worker.load(WorkerSettings("nowhere"))
