"""Captioning on a Ray cluster gives what captioning on one machine gives, and loses nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from latentcap.batch.journal import Record
from latentcap.batch.pool import Block
from latentcap.batch.worker import WorkerSettings
from latentcap.cli import caption, caption_ray
from latentcap.data.errors import UserError

pq = pytest.importorskip("pyarrow.parquet")
IMAGES = 200


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A local cluster of one core, as the program starts it, for all tests of this file."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'latentcap[scale]'")
    temporary = tempfile.mkdtemp(prefix="ray")  # paths of sockets must be short
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", temporary)
        with caption_ray.cluster(caption_ray.LOCAL, cpus=1):
            yield ray
    shutil.rmtree(temporary, ignore_errors=True)


def command(*given: str | Path) -> list[str]:
    return [str(argument) for argument in (*given, "--batch-size", "4", "--beam-size", "2")]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for part in sorted(folder.glob("part-*.parquet")) for row in pq.read_table(part).to_pylist()]


def test_it_gives_what_one_machine_gives(
    ray: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(10):
        Image.new("RGB", (80, 60), (25 * index, 99, 250 - 25 * index)).save(tmp_path / f"{index}.png")
    (tmp_path / "broken.jpg").write_text("no image")
    table = tmp_path / "table.csv"
    names = [*(f"{index}.png" for index in range(10)), "broken.jpg", "gone.png"]
    table.write_text("image,context\n" + "".join(f"{name},the left circle\n" for name in names))
    monkeypatch.chdir(tmp_path)  # actors are elsewhere
    given = command("table.csv", "--model", os.path.relpath(model), "--num-captions", "2", "--prefix", "a photo: ")
    assert caption.main([*given, "--output", "one", "--format", "parts"]) == 3
    assert caption_ray.main([*given, "--output", "many"]) == 3
    one, many = rows(tmp_path / "one"), rows(tmp_path / "many")
    assert [row["file"] for row in many] == names[:10]
    for row, known in zip(many, one, strict=True):
        assert row["score"] == pytest.approx(known["score"], abs=2e-4)
        assert {name: row[name] for name in ("file", "caption", "context")} == {
            name: known[name] for name in ("file", "caption", "context")
        }
        assert len(row["alternatives"]) == 1
    errors = [(tmp_path / f"{name}.run" / "errors.jsonl").read_text() for name in ("one", "many")]
    assert errors[0] == errors[1]
    assert [json.loads(line)["file"] for line in errors[1].splitlines()] == ["broken.jpg", "gone.png"]
    assert "10 captioned, 2 failed" in capsys.readouterr().err

    with pytest.raises(UserError, match=r'prefix was "a photo: " and is "". Use those to go on'):
        caption_ray.main([*given, "--output", "many", "--prefix", ""])
    asked: list[str] = []

    def mended(self: Any, blocks: Iterator[Block]) -> Iterator[list[Record]]:
        for block in blocks:
            asked.extend(item.name for item in block)
            yield [{"file": item.name, "caption": "now", "score": 0.0, "confidence": 0.0} for item in block]

    monkeypatch.setattr("latentcap.batch.ray_engine.RayEngine.map", mended)
    assert caption_ray.main([*given, "--output", "many"]) == 0
    assert asked == names[10:]
    assert [row["file"] for row in rows(tmp_path / "many")] == names


def test_killed_it_goes_on_and_has_every_row_once(ray: Any, model: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (80, 60), "red").save(photos / "000.png")
    for index in range(1, IMAGES):
        os.link(photos / "000.png", photos / f"{index:03}.png")
    given = command(photos, "--model", model, "--output", tmp_path / "out", "--quiet")
    address = ray.get_runtime_context().gcs_address
    program = [sys.executable, "-m", "latentcap.cli.main", "caption-ray", *given, "--address", address]
    journal = tmp_path / "out.run" / "captions.jsonl"
    driver = subprocess.Popen(program)
    try:
        while not (journal.is_file() and journal.stat().st_size):
            assert driver.poll() is None
            time.sleep(0.005)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    before = journal.read_bytes()
    assert 0 < before.count(b"\n") < IMAGES
    assert caption_ray.main(given) == 0
    assert journal.read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    assert [row["file"] for row in rows(tmp_path / "out")] == [f"{index:03}.png" for index in range(IMAGES)]


def test_a_model_that_actors_cannot_load_is_told(ray: Any, model: Path, tmp_path: Path) -> None:
    from latentcap.batch.inputs import Input
    from latentcap.batch.ray_engine import RayEngine

    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    engine = RayEngine(WorkerSettings(str(folder)), {})
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=r"cannot go on: /.*config\.json: cannot be read.*All nodes need"):
        list(engine.map(iter([[Input("x", ())]])))


def test_what_the_cluster_does_not_have_is_told(ray: Any, model: Path) -> None:
    from latentcap.batch.ray_engine import RayEngine

    with pytest.raises(UserError, match="no node of the cluster has 64 cores"):
        RayEngine(WorkerSettings(str(model)), {}, cpus=64)
    with pytest.raises(UserError, match="no node of the cluster has a GPU"):
        RayEngine(WorkerSettings(str(model), device="cuda"), {})


def test_mistakes_are_told_before_ray_starts(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = command(tmp_path, "--model", model, "--output", tmp_path / "out")
    with pytest.raises(UserError, match="Ray Client does not carry Ray Data"):
        caption_ray.main([*given, "--address", "ray://head:10001"])
    for wrong in ("127.0.0.1:9", "head", "127.0.0.1:99999"):  # nothing listens there
        with pytest.raises(UserError, match=f"--address {wrong}: cannot be reached"):
            caption_ray.main([*given, "--address", wrong])
    monkeypatch.setattr(caption_ray, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs Ray: pip install 'latentcap\[scale\]'"):
        caption_ray.main(given)


def test_a_cluster_that_asks_for_a_token_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'latentcap[scale]'")

    def refuse(**_: Any) -> None:
        raise ConnectionError("Failed to connect to Ray cluster at 127.0.0.1:6379")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(caption_ray, "check_address", lambda _: None)
    with (
        pytest.raises(UserError, match=r"If it asks for a token.*RAY_AUTH_MODE=token"),
        caption_ray.cluster("127.0.0.1:6379"),
    ):
        pass
