"""Images in zips and tars, read in place; what an archive may hold that is not to be followed, unpacked or trusted."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from latentcap.cli.caption import main
from latentcap.data.archives import as_path
from latentcap.data.image import ImageRef
from latentcap.data.listing import Listed, iter_images
from tests.helpers import tiny_captioner


def picture(colour: str = "blue", format: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(data, format)
    return data.getvalue()


def pack(path: Path, contents: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def listed(path: Path) -> list[Listed]:
    return list(iter_images([path]))


def problem(image: ImageRef) -> str:
    with pytest.raises(OSError, match=r".") as caught:
        image.read_bytes()
    return str(caught.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_read_in_place(tmp_path: Path, method: int) -> None:
    contents = {"b.png": picture("blue"), "a/r.jpg": picture("red", "JPEG"), "IM0001": picture("lime")}
    others = {"notes.txt": b"x", "v.mp4": b"x", "__MACOSX/._b.png": b"x", "a/": b""}
    path = pack(tmp_path / "Photos.ZIP", {**contents, **others}, method)
    found = listed(path)
    assert [one.name for one in found] == list(contents)
    assert [one.image.read_bytes() for one in found] == list(contents.values())
    assert found[2].image.open().getpixel((0, 0)) == (0, 255, 0)
    assert os.listdir(tmp_path) == ["Photos.ZIP"]


def test_names_of_an_archive_in_a_folder(tmp_path: Path) -> None:
    pack(tmp_path / "export.zip", {"deep\\x.png": picture()})
    (tmp_path / "y.png").write_bytes(picture())
    found = listed(tmp_path)
    assert [one.name for one in found] == ["export.zip:deep/x.png", "y.png"]
    assert as_path("a/Export.ZIP:deep/x.png") == "a/Export.ZIP/deep/x.png"


def test_a_packed_file_behind_a_stream_without_sizes_is_read(tmp_path: Path) -> None:
    """What writes to a pipe leaves the sizes in the local headers empty."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

    stream = Pipe()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", picture())
        archive.writestr("b.png", picture("red"))
    (tmp_path / "x.zip").write_bytes(stream.getvalue())
    assert [one.image.read_bytes() for one in listed(tmp_path / "x.zip")] == [picture(), picture("red")]


def test_names_that_lead_out_and_links_are_errors_in_zips_and_tars(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("../../up.png", "/etc/root.png", "C:/drive.png", "fine.png"):
            archive.writestr(name, picture())
        link = zipfile.ZipInfo("link.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("../../up.png", "/etc/root.png", "fine.png"):
            header = tarfile.TarInfo(name)
            header.size = len(picture())
            tar.addfile(header, io.BytesIO(picture()))
        for name, kind in (("link.png", tarfile.SYMTYPE), ("hard.png", tarfile.LNKTYPE), ("link.txt", tarfile.SYMTYPE)):
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, "../../../etc/passwd"
            tar.addfile(header)
    for path, count in ((tmp_path / "x.zip", 5), (tmp_path / "x.tar", 5)):
        errors = {one.name: one.error for one in listed(path)}
        assert len(errors) == count
        assert [name for name, error in errors.items() if not error] == ["fine.png"]
        assert "leads out of the archive" in errors["../../up.png"]
        assert "leads out of the archive" in errors["/etc/root.png"]
        assert "links are not followed" in errors["link.png"]


def test_an_encrypted_file_is_an_error(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", {"a.png": picture()})
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flag in the local header
    data[data.rindex(b"PK\x01\x02") + 8] |= 1  # and in the directory
    path.write_bytes(data)
    (found,) = listed(path)
    assert found.error.startswith("encrypted")
    assert problem(found.image).startswith("encrypted")


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pack(tmp_path / "x.zip", {"bomb.png": bytes(1 << 20), "liar.bmp": bytes(1 << 20)})
    monkeypatch.setattr("latentcap.data.zips.BOMB_SIZE", 1 << 18)
    bomb, liar = listed(path)
    assert "a decompression bomb: " in problem(bomb.image)
    understated = ImageRef(liar.image.path, liar.image.offset, liar.image.size, "liar.bmp", 1000)
    assert "does not unpack to the size" in problem(understated)


def test_damage_and_other_methods_are_errors_of_one_file(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", {"a.png": picture(), "b.png": picture(), "c.png": picture()})
    data = bytearray(path.read_bytes())
    first, second = data.index(b"PK\x03\x04"), data.index(b"PK\x03\x04", 4)
    data[first + 35 : first + 45] = b"\xff" * 10
    data[second : second + 4] = b"gone"
    path.write_bytes(data)
    a, b, c = listed(path)
    assert problem(a.image).startswith("damaged: it cannot be unpacked")
    assert "not where its archive says" in problem(b.image)
    assert c.image.read_bytes() == picture()
    (packed,) = listed(pack(tmp_path / "y.zip", {"a.png": picture()}, zipfile.ZIP_LZMA))
    assert "packed by method 14" in problem(packed.image)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no zip at all" * 100])
def test_what_is_no_zip_is_one_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    (found,) = listed(tmp_path / "x.zip")
    assert found.error.startswith("not a complete zip")


def test_a_truncated_zip_is_one_error_and_the_rest_of_a_folder_is_read(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", {"a.png": picture(), "b.png": picture()})
    path.write_bytes(path.read_bytes()[:-40])
    (tmp_path / "z.png").write_bytes(picture())
    broken, fine = listed(tmp_path)
    assert (broken.name, fine.name, fine.error) == ("x.zip", "z.png", "")
    assert "not a complete zip" in broken.error


@pytest.mark.parametrize(
    ("cut", "whole"), [(3 * 512 + 100, 1), (2 * 512 + 300, 1), (3 * 512, 1), (5 * 512 + 9, 2), (700, 0)]
)
def test_of_a_tar_that_is_cut_off_the_images_before_that_are_read(tmp_path: Path, cut: int, whole: int) -> None:
    """Each of its members takes two blocks; it is cut in data, in a header or between them."""
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("a.png", "b.png", "c.png"):
            header = tarfile.TarInfo(name)
            header.size = 500
            archive.addfile(header, io.BytesIO(bytes(500)))
    path.write_bytes(path.read_bytes()[:cut])
    found = listed(path)
    names = ["a.png", "b.png"][: len(found) - 1]
    assert [one.name for one in found[:-1]] == names
    assert len(names) == whole
    assert "not a complete, uncompressed tar (" in found[-1].error


def test_a_hostile_zip_is_captioned_counted_and_written_nowhere_else(tmp_path: Path) -> None:
    tiny_captioner().save(tmp_path / "model")
    (tmp_path / "in").mkdir()
    path = pack(tmp_path / "in" / "x.zip", {"a.png": picture(), "../../up.png": picture(), "broken.png": b"\x89PNG"})
    out = tmp_path / "out" / "texts"
    arguments = ["--model", tmp_path / "model", "--format", "txt", "--output", out, "--quiet", path.parent]
    assert main([str(argument) for argument in arguments]) == 3
    assert [str(file.relative_to(out)) for file in out.rglob("*.txt")] == ["x.zip/a.txt"]
    summary = json.loads((tmp_path / "out" / "texts.run" / "summary.json").read_text())
    assert (summary["seen"], summary["captioned"], summary["failed"]) == (3, 1, 2)
    assert not list(tmp_path.glob("up*"))


def test_images_of_a_zip_are_packed_into_tars(tmp_path: Path) -> None:
    tiny_captioner().save(tmp_path / "model")
    path = pack(tmp_path / "x.zip", {"a.png": picture()})
    arguments = ["--model", tmp_path / "model", "--format", "webdataset", "--output", tmp_path / "out", "--quiet", path]
    assert main([str(argument) for argument in arguments]) == 0
    with tarfile.open(tmp_path / "out" / "captions-00000.tar") as archive:
        image, *texts = archive.getmembers()
        assert archive.extractfile(image).read() == picture()  # type: ignore[union-attr]
    assert image.name.endswith(".png")
    assert len(texts) == 2
