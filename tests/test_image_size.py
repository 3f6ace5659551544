"""The size of an image is told before its pixels are decoded, and what is too large is not decoded."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentcap.data import dicom, dicom_file, jxl, tiff
from latentcap.data.dicom_header import read_header
from latentcap.data.image import ImageRef, decode_image, size_of


def encoded(size: tuple[int, int], kind: str, **more: Any) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, "red").save(content, kind, **more)
    return content.getvalue()


def bands(count: int) -> bytes:
    tifffile = pytest.importorskip("tifffile")
    content = io.BytesIO()
    tifffile.imwrite(content, np.zeros((30, 40, count), np.uint16), planarconfig="contig", photometric="minisblack")
    return content.getvalue()


def x_ray(*, deflated: bool = False, stated: int | None = None) -> bytes:
    """A DICOM image of 40 x 30 pixels, or one that states another number of rows and columns."""
    pydicom = pytest.importorskip("pydicom")
    from tests.test_dicom import make

    content = make(np.zeros((30, 40), np.uint16))
    dataset = pydicom.dcmread(io.BytesIO(content))
    if stated is not None:
        dataset.Rows = dataset.Columns = stated
    if deflated:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    written = io.BytesIO()
    dataset.save_as(written, enforce_file_format=True)
    return written.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_pillows_kinds(kind: str) -> None:
    assert size_of(encoded((40, 30), kind)) == (40, 30, 3)


def test_kinds_that_pillow_does_not_open() -> None:
    assert size_of(bands(7)) == (40, 30, 7)
    assert size_of(x_ray()) == (40, 30, 1)
    heif = pytest.importorskip("pillow_heif")
    content = io.BytesIO()
    heif.from_pillow(Image.new("RGB", (64, 48))).save(content)
    assert size_of(content.getvalue()) == (64, 48, 3)


@pytest.mark.parametrize("container", [False, True])
def test_jpeg_xl_is_not_decoded_for_its_size(container: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pillow_jxl")
    sizes = [(1, 1), (40, 30), (64, 64), (256, 128), (255, 17), (1920, 1080), (9000, 8), (8, 9000), (600, 500)]
    written = {size: encoded(size, "JXL", use_container=container) for size in sizes}
    monkeypatch.setattr(Image, "open", None)
    assert {size: size_of(content)[:2] for size, content in written.items()} == {size: size for size in sizes}


def test_a_damaged_jpeg_xl() -> None:
    for content in (b"\xff\x0a\0", b"\0\0\0\x0cJXL \r\n\x87\n", b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0\0\0\0ftyp"):
        with pytest.raises(OSError, match="JPEG XL image that is damaged"):
            jxl.jxl_size(content)


def test_what_is_no_image() -> None:
    with pytest.raises(OSError, match="not an image"):
        size_of(b"hello")


def test_of_a_deflated_file_only_the_header_is_unpacked_for_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    content = x_ray(deflated=True)
    assert decode_image(content).size == (40, 30)
    with monkeypatch.context() as patch:
        patch.setattr(dicom_file, "LARGEST_HEADER", 1000)
        patch.setattr(dicom_file, "LARGEST_UNPACKED", 1000)
        assert size_of(content) == (40, 30, 1)
        assert read_header(ImageRef("", data=content)) is not None
        with pytest.raises(OSError, match="unpacks to more than"):
            decode_image(content)
    with pytest.raises(OSError, match="cut off"):
        decode_image(content[:-8])


def test_jpeg_2000_of_more_pixels_than_its_header_states_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    pydicom = pytest.importorskip("pydicom")

    def wrapped(size: tuple[int, int]) -> bytes:
        content = io.BytesIO()
        Image.new("L", size, 7).save(content, "JPEG2000")
        dataset = pydicom.dcmread(io.BytesIO(x_ray()))
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit = 7
        dataset.PixelData = pydicom.encaps.encapsulate([content.getvalue()])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
        written = io.BytesIO()
        dataset.save_as(written, enforce_file_format=True)
        return written.getvalue()

    assert np.asarray(decode_image(wrapped((40, 30)))).max() == 7
    decoded: list[int] = []
    monkeypatch.setattr(pydicom.Dataset, "pixel_array", property(lambda self: decoded.append(1)))
    with pytest.raises(OSError, match="JPEG 2000"):
        decode_image(wrapped((41, 30)))
    assert not decoded


def test_too_many_pixels_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    huge = x_ray(stated=65_535)
    assert size_of(huge) == (65_535, 65_535, 1)
    with pytest.raises(OSError, match=r"more than 178,956,970 pixels"):
        decode_image(huge)
    monkeypatch.setattr(tiff, "LARGEST", 1200)
    with pytest.raises(OSError, match=r"more than 4,800 values"):
        decode_image(bands(7))
    monkeypatch.setattr(dicom, "LARGEST", 1199)
    with pytest.raises(OSError, match=r"more than 1,199 pixels"):
        decode_image(x_ray())
