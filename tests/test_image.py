"""Images of every kind to 8-bit RGB, and what is said of files that are none."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from latentcap.data.image import ImageRef, decode_image, to_rgb
from latentcap.data.kinds import begins_as_image, why_not_read

RAMP = np.linspace(0, 1, 4096, dtype=np.float32).reshape(64, 64)
GREY = np.round(RAMP * 255)


def encoded(image: Image.Image, format: str = "TIFF", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits, (H, W, 3 or 4)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, bands = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[bands], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(values: np.ndarray, *, tags: dict[int, tuple[int, ...]] | None = None, no_data: str = "") -> bytes:
    """An uncompressed little-endian TIFF (H, W, C), with more or other tags."""
    height, width, bands = values.shape
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    entries: dict[int, tuple[int, ...] | str] = {
        256: (width,), 257: (height,), 258: (values.itemsize * 8,) * bands, 259: (1,),
        262: (2 if bands > 2 else 1,), 277: (bands,), 278: (height,), 279: (values.nbytes,), 339: (kind,) * bands,
        **(tags or {}),
    }  # fmt: skip
    if no_data:
        entries[42113] = no_data
    place = 8 + 2 + 12 * (len(entries) + 1) + 4
    directory, more = b"", b""
    entries[273] = (place + 512,)
    for tag, content in sorted(entries.items()):
        if isinstance(content, str):
            code, count, data = 2, len(content) + 1, content.encode() + b"\0"
        else:
            code, count = (4, len(content)) if tag in (273, 279) else (3, len(content))
            data = struct.pack(f"<{count}{'I' if code == 4 else 'H'}", *content)
        if len(data) > 4:
            more, data = more + data + b"\0" * (len(data) % 2), struct.pack("<I", place + len(more))
        directory += struct.pack("<HHI", tag, code, count) + data.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + directory + bytes(4)
    return head + more.ljust(512, b"\0") + values.tobytes()


def grey(content: bytes) -> np.ndarray:
    array = np.asarray(decode_image(content))
    assert (array[..., 0] == array[..., 2]).all()
    return array[..., 0]


@pytest.mark.parametrize("kind", [np.float32, np.int16, np.uint16])
def test_grey_of_many_bits_is_scaled_to_its_range(kind: type) -> None:
    values = (RAMP * 4000).astype(kind)
    np.testing.assert_allclose(grey(tiff(values[..., None])), GREY, atol=1)


@pytest.mark.parametrize(
    ("missing", "stated"), [(np.nan, ""), (np.inf, ""), (-9999.0, ""), (-3.4028235e38, ""), (7.0, "7")]
)
def test_what_has_no_value_is_black_and_sets_no_range(missing: float, stated: str) -> None:
    values = RAMP.copy()
    values[:16] = missing
    shown = grey(tiff(values[..., None], no_data=stated))
    assert not shown[:16].any()
    assert (shown[16:].min(), shown[16:].max()) == (0, 255)
    values[:] = np.nan
    with pytest.raises(OSError, match="not one of its pixels has a value"):
        decode_image(tiff(values[..., None]))


def test_a_common_value_for_no_data_may_be_a_value() -> None:
    values = (np.linspace(-32768, 32767, 4096)).astype(np.int16).reshape(64, 64)
    np.testing.assert_allclose(grey(tiff(values[..., None])), GREY, atol=1)


def test_a_stated_value_that_no_pixel_can_have_is_no_matter() -> None:
    values = (RAMP * 60000).astype(np.uint16)
    np.testing.assert_allclose(grey(tiff(values[..., None], no_data="-9999")), GREY, atol=1)


def test_hot_pixels_do_not_darken_the_rest() -> None:
    values = (RAMP * 4000).astype(np.uint16)
    values[0, :4] = 65535
    shown = grey(encoded(Image.fromarray(values), "PNG"))
    np.testing.assert_allclose(shown[1:], GREY[1:], atol=3)
    few = np.zeros((64, 64), np.uint16)
    few[3, 3] = 900  # the one thing that there is to see
    assert grey(encoded(Image.fromarray(few), "PNG"))[3, 3] == 255


@pytest.mark.parametrize("write", [png, tiff])
def test_colours_of_twelve_bits_in_sixteen_are_scaled(write: object) -> None:
    values = np.stack([RAMP * 4095, RAMP[::-1] * 4095, RAMP * 2000], axis=-1).astype(np.uint16)
    shown = np.asarray(decode_image(write(values)))  # type: ignore[operator]
    np.testing.assert_allclose(shown, values / 4095 * 255, atol=1)
    values = values * 16  # all 16 bits
    np.testing.assert_allclose(np.asarray(decode_image(write(values))), values / 65535 * 255, atol=1)  # type: ignore[operator]


def test_a_fourth_band_is_no_transparency_unless_the_file_says_so() -> None:
    eight = np.full((8, 8, 4), 100, np.uint8)
    eight[..., 3] = 50
    sixteen = eight.astype(np.uint16) * 40
    assert (np.asarray(decode_image(tiff(eight))) == 100).all()
    assert (np.asarray(decode_image(tiff(eight, tags={338: (0,)}))) == 100).all()
    assert (np.asarray(decode_image(tiff(sixteen))) == 4000 * 255 // 4095).all()
    through = np.asarray(decode_image(tiff(eight, tags={338: (2,)})))
    assert (through == 225).all()
    assert (np.asarray(to_rgb(Image.fromarray(eight))) == 225).all()


def test_deep_transparency_is_laid_on_white() -> None:
    values = np.zeros((8, 8, 4), np.uint16)
    values[:4, :, 3] = 65535
    shown = np.asarray(decode_image(png(values)))
    assert not shown[:4].any()
    assert (shown[4:] == 255).all()


def test_many_bands_and_bands_apart_are_read_with_the_extra() -> None:
    tifffile = pytest.importorskip("tifffile")
    values = np.stack([RAMP * 4095, RAMP[::-1] * 4095, RAMP * 2000, RAMP, RAMP], axis=-1).astype(np.uint16)
    expected = values[..., :3] / 4095 * 255
    for bands, more in (
        (values, {}),
        (values[..., :3], {}),
        (np.moveaxis(values[..., :3], -1, 0), {"planarconfig": 2}),
    ):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, np.ascontiguousarray(bands), photometric="rgb", **more)
        np.testing.assert_allclose(np.asarray(decode_image(buffer.getvalue())), expected, atol=1)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, RAMP.astype(np.float64))
    np.testing.assert_allclose(grey(buffer.getvalue()), GREY, atol=1)


def test_a_broken_tiff_says_nothing_but_its_error(capfd: pytest.CaptureFixture[str]) -> None:
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((5, 4), np.float64))
    whole = buffer.getvalue()
    wide, high = (struct.pack("<HHII", tag, 4, 1, size) for tag, size in ((256, 4), (257, 5)))
    assert whole.count(wide) == whole.count(high) == 1
    for tag in (wide, high):
        whole = whole.replace(tag, tag[:8] + struct.pack("<I", 100_000))
    with pytest.raises(OSError, match="pixels"):
        decode_image(whole, name="x.tif")
    with pytest.raises(OSError, match="TIFF"):
        decode_image(whole.replace(high, high[:2] + b"\xff\xff" + high[4:])[:-30], name="x.tif")
    assert capfd.readouterr().err == ""


def test_many_bands_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(OSError, match=r"latentcap\[tiff\]"):
        decode_image(tiff(np.zeros((4, 4, 6), np.uint16)))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "CMYK", "YCbCr", "LAB", "I", "F"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.fromarray(GREY.astype(np.uint8)).convert("RGB" if mode in ("LAB", "YCbCr") else "L")
    image = image.convert(mode) if mode != "LAB" else Image.new("LAB", (64, 64), (128, 128, 128))
    assert decode_image(encoded(image)).mode == "RGB"


def test_orientation_is_applied_to_deep_colours_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGB", (8, 4))
    assert decode_image(encoded(image, "JPEG", exif=exif)).size == (4, 8)
    assert decode_image(tiff(np.zeros((4, 8, 3), np.uint16), tags={274: (6,)})).size == (4, 8)


def test_the_first_picture_of_a_moving_one() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    moving = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(moving).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b'{"images": [{"id": 1}]}', r"JSON: .*\.jsonl"),
        (b'[{"image": "a.jpg"}]', "JSON"),
        (b"a.jpg\nb.jpg\n", "@FILE is a list"),
        (b"\x1f\x8b\x08\0\0\0", "unpack it"),
        (b"PK\x03\x04\x0a\0", r"has to end in \.zip"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isom", "a video"),
        (b"%PDF-1.7\n", "export it"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x">', "drawing"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"GIF89a", "damaged"),
        (bytes(range(200, 256)) + bytes(9), "not an image, or of a kind"),
    ],
)
def test_what_is_no_image_is_called_what_it_is(content: bytes, said: str) -> None:
    with pytest.raises(OSError, match=said):
        ImageRef("x", data=content).open()


def test_phones_photos_are_read_with_the_extra() -> None:
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(Image.new("RGB", (64, 48), "red")).save(buffer)
    assert begins_as_image(buffer.getvalue()[:512])
    shown = decode_image(buffer.getvalue())
    assert shown.size == (64, 48)
    assert shown.getpixel((9, 9))[0] > 200  # type: ignore[index]


def test_a_damaged_photo_is_not_said_to_need_what_is_there() -> None:
    pytest.importorskip("pillow_heif")
    with pytest.raises(OSError, match=r"^a HEIC photo that is damaged$"):
        decode_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    pytest.importorskip("pillow_jxl")
    with pytest.raises(OSError, match=r"^a JPEG XL image that is damaged$"):
        decode_image(b"\xff\x0a" + bytes(50))


@pytest.mark.parametrize("content", [b'{"error": "rate limit"}', b"too many requests"])
def test_what_was_downloaded_in_place_of_an_image(content: bytes) -> None:
    with pytest.raises(OSError, match=r"as failed downloads leave: fetch it again$"):
        decode_image(content, name="a.jpg")


def test_phones_photos_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    monkeypatch.setattr("latentcap.data.kinds.find_spec", lambda name: None)
    assert "latentcap[heic]" in why_not_read("IMG_0002.HEIC")
    assert "latentcap[heic]" in why_not_read("x.jxl")
    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(OSError, match=r"a HEIC photo; it needs the extra .*latentcap\[heic\]"):
        decode_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")


def refuse(file: object) -> Image.Image:
    from PIL import UnidentifiedImageError

    raise UnidentifiedImageError
