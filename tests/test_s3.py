"""Captions of what lies in S3, on a server of this machine that answers as Amazon's does."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latentcap.cli.caption import main
from latentcap.data.errors import UserError
from tests.helpers import picture

s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'latentcap[cloud]'")
moto = pytest.importorskip("moto.server", reason="moto is not installed: pip install 'moto[server]'")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a bucket, and a folder with the same files."""
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    folder = tmp_path_factory.mktemp("bucket")
    (folder / "images").mkdir()
    for path, content in files().items():
        (folder / path).write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "someone")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        s3fs.S3FileSystem.clear_instance_cache()
        system = s3fs.S3FileSystem()
        system.mkdir("photos")
        for path in files():
            system.put(str(folder / path), f"photos/{path}")
        yield "s3://photos", folder
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def files() -> dict[str, bytes]:
    images = {}
    for number in range(4):
        file = io.BytesIO()
        picture(80, 60, seed=number).save(file, "PNG")
        images[f"{number}.png"] = file.getvalue()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in ("0.png", "1.png"):
            member = tarfile.TarInfo(name)
            member.size = len(images[name])
            archive.addfile(member, io.BytesIO(images[name]))
    rows = [{"file": f"images/{name}", "context": "left"} for name in ("2.png", "3.png")]
    table = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return {
        "x.tar": packed.getvalue(),
        "rows.jsonl": table,
        **{f"images/{name}": images[name] for name in ("2.png", "3.png")},
    }


def captions(model: Path, output: Path, *sources: str) -> list[dict[str, Any]]:
    assert main(["--model", str(model), "--output", str(output), "--quiet", *sources]) == 0
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_captions_are_those_of_the_same_files_here(bucket: tuple[str, Path], model: Path, tmp_path: Path) -> None:
    address, folder = bucket
    there = captions(model, tmp_path / "there.jsonl", f"{address}/x.tar", f"{address}/rows.jsonl")
    here = captions(model, tmp_path / "here.jsonl", f"{folder}/x.tar", f"{folder}/rows.jsonl")
    assert [record["file"] for record in there] == [
        *("s3://photos/x.tar:0.png", "s3://photos/x.tar:1.png"),
        *("s3://photos/images/2.png", "s3://photos/images/3.png"),
    ]
    assert [record | {"file": ""} for record in there] == [record | {"file": ""} for record in here]


@pytest.mark.parametrize("missing", ["s3://photos/gone.tar", "s3://nowhere/x.tar", "s3://nowhere/rows.jsonl"])
def test_what_is_not_there_is_named(bucket: tuple[str, Path], model: Path, tmp_path: Path, missing: str) -> None:
    with pytest.raises(UserError) as caught:
        main(["--model", str(model), "--output", str(tmp_path / "out.jsonl"), "--quiet", missing])
    assert str(caught.value) == f"{missing}: does not exist, or may not be read."


def test_a_row_whose_image_is_gone_fails_alone(bucket: tuple[str, Path], model: Path, tmp_path: Path) -> None:
    address, _ = bucket
    table, output = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    table.write_text("".join(json.dumps({"file": f"{address}/images/{name}.png"}) + "\n" for name in ("2", "gone")))
    assert main(["--model", str(model), "--output", str(output), "--quiet", str(table)]) == 3
    errors = [json.loads(line) for line in (tmp_path / "out.jsonl.run" / "errors.jsonl").read_text().splitlines()]
    assert [error["file"] for error in errors] == ["s3://photos/images/gone.png"]
    assert errors[0]["error"] == "does not exist, or may not be read"
