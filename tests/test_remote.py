"""Tables, tars, zips and images behind addresses, read in place; fsspec's memory file system stands for a cloud."""

from __future__ import annotations

import io
import json
import re
import tarfile
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
from PIL import Image

from latentcap.batch.inputs import Input, Inputs
from latentcap.cli.caption import main
from latentcap.data.errors import UserError
from latentcap.data.remote import is_remote, read_part
from tests.helpers import tiny_captioner

fsspec = pytest.importorskip("fsspec")


def picture(colour: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(data, "PNG")
    return data.getvalue()


def tar_of(contents: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


@pytest.fixture
def cloud() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    contents = {"a.png": picture("red"), "b.png": picture("blue")}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    files = {
        "x-0.tar": tar_of(contents),
        "x-1.tar": tar_of(contents),
        "x.zip": packed.getvalue(),
        "cut.tar": tar_of(contents)[:700],
        "images/c.png": picture("lime"),
        "t.csv": b"file,context\nimages/c.png,left\nmemory://bucket/gone.png,\n",
    }
    for name, content in files.items():
        system.pipe_file(f"/bucket/{name}", content)
    yield system
    system.rm("/bucket", recursive=True)


def found(*sources: str) -> list[Input]:
    return list(Inputs(list(sources)))


@pytest.mark.parametrize("name", ["x-0.tar", "x.zip"])
def test_archives_are_read_in_place(cloud: Any, name: str) -> None:
    one, two = found(f"memory://bucket/{name}")
    assert (one.name, two.name) == ("a.png", "b.png")
    assert [one.images[0].read_bytes(), two.images[0].read_bytes()] == [picture("red"), picture("blue")]
    assert two.images[0].start(8) == b"\x89PNG\r\n\x1a\n"


def test_several_are_named_with_braces(cloud: Any) -> None:
    items = found("memory://bucket/x-{0..1}.tar")
    assert [item.name for item in items][::2] == ["memory://bucket/x-0.tar:a.png", "memory://bucket/x-1.tar:a.png"]


def test_rows_of_a_table_begin_at_its_folder(cloud: Any) -> None:
    here, gone = found("memory://bucket/t.csv")
    assert (here.name, here.context, here.images[0].path) == ("images/c.png", "left", "memory://bucket/images/c.png")
    assert here.images[0].open().getpixel((0, 0)) == (0, 255, 0)
    with pytest.raises(OSError, match="does not exist, or may not be read"):
        gone.images[0].read_bytes()


def test_what_is_not_there_or_cut_off(cloud: Any) -> None:
    with pytest.raises(UserError, match=r"memory://bucket/no\.tar: does not exist"):
        Inputs(["memory://bucket/no.tar"])
    with pytest.raises(UserError, match=r"named as in x-\{000\.\.099\}\.tar"):
        Inputs(["memory://bucket/x-*.tar"])
    (folder,) = found("memory://bucket")
    with pytest.raises(OSError, match=r"does not exist|a folder"):
        folder.images[0].read_bytes()
    with pytest.raises(UserError, match="Protocol not known"):
        Inputs(["nowhere://bucket/x.tar"])
    whole, broken = found("memory://bucket/cut.tar")
    assert (whole.name, whole.error) == ("a.png", "")
    assert "not a complete" in broken.error


def test_files_of_this_machine_have_addresses_too(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar_of({"a.png": picture("red")}))
    (item,) = found(f"file://{tmp_path}/x.tar")
    assert item.images[0].read_bytes() == picture("red")
    assert not is_remote(str(tmp_path / "x.tar"))
    assert not is_remote("C:/x.tar")


def test_a_server_that_ignores_ranges_is_named(cloud: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(cloud), "cat_file", lambda self, path, start=None, end=None: bytes(100))
    with pytest.raises(OSError, match="whole files alone"):
        read_part("memory://bucket/x-0.tar", 10, 20)


def test_they_are_captioned_and_resumed(cloud: Any, tmp_path: Path) -> None:
    tiny_captioner().save(tmp_path / "model")
    out = tmp_path / "out.jsonl"
    given = ["--model", str(tmp_path / "model"), "--output", str(out), "--quiet"]
    sources = ["memory://bucket/x-0.tar", "memory://bucket/images/c.png", "memory://bucket/cut.tar"]
    assert main([*given, *sources]) == 3
    whole = out.read_bytes()
    records = [json.loads(line) for line in whole.splitlines()]
    assert [record["file"] for record in records] == [
        "memory://bucket/x-0.tar:a.png",
        "memory://bucket/x-0.tar:b.png",
        "memory://bucket/images/c.png",
        "memory://bucket/cut.tar:a.png",
    ]
    out.write_bytes(whole[: len(whole) // 2])
    assert main([*given, *sources]) == 3
    assert out.read_bytes() == whole


def test_texts_need_a_folder_for_what_is_elsewhere(cloud: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_captioner().save(tmp_path / "model")
    given = ["--model", str(tmp_path / "model"), "--format", "txt", "--quiet", "memory://bucket/images/c.png"]
    assert main(given) == 1
    (error,) = Path("captions.txt.run", "errors.jsonl").read_text().splitlines()
    assert "no place beside it: give a folder as --output" in error
    assert main([*given, "--output", str(tmp_path / "texts")]) == 0
    assert [path.name for path in (tmp_path / "texts").rglob("*.txt")] == ["c.txt"]


class Ranges(BaseHTTPRequestHandler):
    """A server of parts of files, as those of clouds are."""

    files: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.wfile.write(self.answer())

    def answer(self) -> bytes:
        content = self.files.get(self.path)
        if content is None:
            self.send_error(404)
            return b""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(asked[1]), int(asked[2] or len(content) - 1)) if asked else (0, len(content) - 1)
        part = content[start : end + 1]
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(content)}")
        self.end_headers()
        return part

    def log_message(self, *_: object) -> None:
        pass


def test_a_web_server(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    Ranges.files = {"/x.tar": tar_of({"a.png": picture("red"), "b.png": picture("blue")})}
    with ThreadingHTTPServer(("127.0.0.1", 0), Ranges) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_port}"
        items = found(f"{root}/x.tar")
        assert [item.images[0].read_bytes() for item in items] == [picture("red"), picture("blue")]
        with pytest.raises(UserError, match="does not exist"):
            Inputs([f"{root}/y.tar"])
        server.shutdown()
