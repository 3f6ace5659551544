"""Descriptions in XMP sidecars and in images: what else is there stays, pixels too; exiftool reads them."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from latentcap.batch.inputs import Input
from latentcap.batch.metadata.exif import with_image_description
from latentcap.batch.metadata.image_file import read_description, write_description
from latentcap.batch.metadata.xmp import description_of, with_description
from latentcap.batch.outputs import make_output
from latentcap.data.example import ImageRef

TEXT = 'a "red" <bridge> & é\nsecond line'
KEYWORDS = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<!-- kept > --><r:Description r:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4" '
    b'xmlns:dc="http://purl.org/dc/elements/1.1/"%s</r:RDF></x:xmpmeta>'
)
BAG = b"<dc:subject><r:Bag><r:li>sea</r:li></r:Bag></dc:subject>"
ALT = b'<dc:description><r:Alt><r:li xml:lang="%s">%s</r:li></r:Alt></dc:description>'
SHAPES = {
    "closed": b"/>",
    "none": b">" + BAG + b"</r:Description>",
    "default": b">" + BAG + ALT % (b"x-default", b"old") + b"</r:Description>",
    "german": b">" + BAG + ALT % (b"de", b"alt") + b"</r:Description>",
    "plain": b">" + BAG + b"<dc:description>old</dc:description></r:Description>",
}


def exiftool(path: Path) -> dict[str, object]:
    if not shutil.which("exiftool"):
        pytest.skip("exiftool is not installed (Debian: libimage-exiftool-perl)")
    command = ["exiftool", "-json", "-validate", "-warning", "-XMP:all", str(path)]
    return dict(json.loads(subprocess.run(command, capture_output=True, check=True).stdout)[0])


def seen(path: Path) -> tuple[bytes, dict[int, object]]:
    """The decoded picture, and its Exif."""
    with Image.open(path) as image:
        return image.convert("RGBA").tobytes(), dict(image.getexif())


@pytest.mark.parametrize("shape", SHAPES)
def test_a_description_is_put_into_a_packet_and_all_else_stays(shape: str, tmp_path: Path) -> None:
    before = KEYWORDS % SHAPES[shape]
    after = with_description(before, TEXT)
    assert description_of(after) == TEXT
    assert with_description(after, TEXT) == after
    assert b"<!-- kept > -->" in after
    assert b'xmp:Rating="4"' in after
    assert after.count(b"<dc:description") == 1
    assert (BAG in after) == (BAG in before)
    assert (b'"de">alt<' in after) == (shape == "german")
    (tmp_path / "x.xmp").write_bytes(after)
    told = exiftool(tmp_path / "x.xmp")
    assert told["Validate"] == "OK"
    assert told["Description"] == TEXT
    assert told["Rating"] == 4


def test_a_new_packet_and_one_in_utf_16(tmp_path: Path) -> None:
    (tmp_path / "x.xmp").write_bytes(with_description(None, TEXT))
    assert exiftool(tmp_path / "x.xmp")["Description"] == TEXT
    wide = (KEYWORDS % SHAPES["none"]).decode().encode("utf-16")
    assert description_of(with_description(wide, TEXT)) == TEXT


@pytest.mark.parametrize("broken", [b"", b"text", b"<a><b></a>", b"<a/>", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'])
def test_what_is_no_xmp(broken: bytes) -> None:
    with pytest.raises(ValueError, match=r"well-formed|rdf:Description|DOCTYPE"):
        description_of(broken)


def picture(path: Path, **more: object) -> Path:
    image = Image.radial_gradient("L").resize((61, 43)).convert("RGBA" if "alpha" in path.name else "RGB")
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    exif[0x0112] = 6
    image.save(path, exif=exif, **more) if "plain" not in path.name else image.save(path, **more)
    return path


def pixels(path: Path) -> bytes:
    """The encoded picture itself."""
    data = path.read_bytes()
    if path.suffix == ".jpg":
        return data[data.index(b"\xff\xda") :]
    kinds = (b"IDAT",) if path.suffix == ".png" else (b"VP8 ", b"VP8L", b"ALPH")
    at, found = (8, b"") if path.suffix == ".png" else (12, b"")
    while at < len(data):
        png = path.suffix == ".png"
        kind = data[at + 4 : at + 8] if png else data[at : at + 4]
        size = int.from_bytes(data[at : at + 4] if png else data[at + 4 : at + 8], "big" if png else "little")
        found += data[at : at + size + 8] if kind in kinds else b""
        at += size + (12 if png else 8 + size % 2)
    return found


@pytest.mark.parametrize(
    "name",
    ["a.jpg", "plain.jpg", "a.png", "alpha.png", "plain.webp", "lossless-plain.webp", "alpha-plain.webp", "a.webp"],
)
def test_an_image_gets_a_description_and_keeps_its_pixels_and_times(name: str, tmp_path: Path) -> None:
    path = picture(tmp_path / name, **({"lossless": True} if "lossless" in name else {}))
    os.utime(path, ns=(10**18 + 7, 10**18 + 9))
    os.chmod(path, 0o640)
    before, shown = pixels(path), seen(path)
    valid = exiftool(path)["Validate"] if shutil.which("exiftool") else None
    assert read_description(path) == ""
    for text in ("first", TEXT):
        write_description(path, text)
        assert read_description(path) == text
    assert before
    assert pixels(path) == before
    assert path.stat().st_mtime_ns == 10**18 + 9
    assert path.stat().st_mode & 0o777 == 0o640
    picture_then, exif_then = seen(path)
    if path.suffix == ".jpg":
        assert exif_then[0x010E].encode("latin-1").decode() == TEXT
        exif_then = {tag: value for tag, value in exif_then.items() if tag in shown[1]}
    assert (picture_then, exif_then) == shown
    assert [file.name for file in tmp_path.iterdir()] == [name]
    told = exiftool(path)
    assert told["Description"] == TEXT
    assert told["Validate"] == valid


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_keeps_what_somebody_wrote_and_where_everything_is(order: str) -> None:
    description, maker = b"by hand\0", b"MAKER"
    at = 8 + 2 + 2 * 12 + 4
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, 2)
    entries = struct.pack(order + "HHII", 0x010E, 2, 8, at) + struct.pack(order + "HHII", 0x9999, 7, 5, at + 8)
    tiff = start + entries + bytes(4) + description + maker
    assert with_image_description(tiff, "ours", ours="") is None
    assert with_image_description(tiff, "ours", ours="other") is None
    shorter = with_image_description(tiff, "short", ours="by hand")
    longer = with_image_description(tiff, "rather a long text", ours="by hand")
    blank = with_image_description(tiff.replace(b"by hand", b"       "), "short", ours="")
    for changed, text in ((shorter, b"short"), (blank, b"short"), (longer, b"rather a long text")):
        assert changed is not None
        assert changed[at + 8 : at + 13] == maker
        _, _, size, place = struct.unpack_from(order + "HHII", changed, 10)
        assert changed[place : place + size] == text + b"\0"
    assert len(shorter or b"") == len(tiff)
    for cut in range(len(tiff)):  # what cannot be followed stays as it is, or is followed as far as it goes
        with_image_description(tiff[:cut], "x", ours="")
    assert with_image_description(b"", "x", ours="") is None


def test_links_lead_to_what_is_written_and_others_are_refused(tmp_path: Path) -> None:
    real = picture(tmp_path / "a.jpg")
    link = tmp_path / "link.jpg"
    link.symlink_to(real)
    write_description(link, "x")
    assert link.is_symlink()
    assert read_description(real) == "x"
    output = make_output(None, tmp_path / "run", "embed")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.gif")
    (tmp_path / "cut.png").write_bytes(picture(tmp_path / "whole.png").read_bytes()[:-20])
    for name, reason in (("a.gif", "neither JPEG, PNG nor WebP"), ("cut.png", "its end is missing")):
        refused = output.prepare(Input(name, (ImageRef(str(tmp_path / name)),)), known=False)
        assert refused is not None
        assert reason in refused.error
    assert output.prepare(Input("a.jpg", (ImageRef(str(real)),)), known=False) is None
    tar = output.prepare(Input("x.tar:a.jpg", (ImageRef("x.tar", 512, 3, "a.jpg"),)), known=False)
    assert tar is not None
    assert "archive" in tar.error


def test_a_png_keeps_what_somebody_wrote(tmp_path: Path) -> None:
    told = PngInfo()
    told.add_text("Description", "my own words")
    told.add_text("Title", "mine")
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path, pnginfo=told)
    for text in ("first", " second "):
        write_description(path, text)
        assert read_description(path) == text.strip()
        with Image.open(path) as image:
            assert (image.text["Description"], image.text["Title"]) == ("my own words", "mine")  # type: ignore[attr-defined]
    Image.new("RGB", (4, 4)).save(path)
    for text in (" first\x07 ", "second"):
        write_description(path, text)
        with Image.open(path) as image:
            assert image.text["Description"] == read_description(path)  # type: ignore[attr-defined]


def test_xmp_that_cannot_be_read_is_an_error_of_its_own(tmp_path: Path) -> None:
    told = PngInfo()
    told.add_itxt("XML:com.adobe.xmp", "x" * 100, zip=True)
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path, pnginfo=told)
    data = bytearray(path.read_bytes())
    at = data.index(b"XML:com.adobe.xmp") + 22
    data[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="its XMP is damaged"):
        read_description(path)
    with pytest.raises(ValueError, match=r"without an rdf:Description"):
        description_of(b"<a>" * 5000 + b"</a>" * 5000)


def test_texts_of_all_languages_stay_whole() -> None:
    text = "\u4e2d\u3000\u6587 \U0001f469\u200d\U0001f467 1\u00a0000"
    assert description_of(with_description(None, f"{text}\x00\x0b\x85\ud800")) == f"{text}?"


def test_sidecars_beside_images(tmp_path: Path) -> None:
    image = picture(tmp_path / "a.jpg")
    original = image.read_bytes()
    for naming, name in (("full", "a.jpg.xmp"), ("stem", "a.xmp")):
        (tmp_path / name).write_bytes(KEYWORDS % SHAPES["default"])
        item = Input("a.jpg", (ImageRef(str(image)),))
        assert make_output(None, tmp_path / "run", "xmp", xmp_name=naming).prepare(item, known=False) is None
        output = make_output(None, tmp_path / naming, "xmp", xmp_name=naming, existing="append")
        assert output.prepare(item, known=False) == item
        with output.journal:
            output.append([{"file": "a.jpg", "caption": "new", "_images": [[str(image), None, None, ""]]}])
        assert description_of((tmp_path / name).read_bytes()) == "old new"
        (tmp_path / naming / "written").unlink(missing_ok=True)
        make_output(None, tmp_path / naming, "xmp", xmp_name=naming, existing="append").finish()
        assert description_of((tmp_path / name).read_bytes()) == "old new"
        (tmp_path / name).write_text("torn")
        broken = make_output(None, tmp_path / "run", "xmp", xmp_name=naming).prepare(item, known=False)
        assert broken is not None
        assert f"{name} is no XMP" in broken.error
        assert (tmp_path / name).read_text() == "torn"
    assert image.read_bytes() == original
