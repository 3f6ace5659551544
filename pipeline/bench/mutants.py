"""Files of many kinds, broken in many ways."""

from __future__ import annotations

import csv
import io
import json
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence

from PIL import Image

from latentcap.batch.metadata.xmp import with_description

PICTURES = {
    "jpg": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "gif": "GIF",
    "tif": "TIFF",
    "bmp": "BMP",
    "ppm": "PPM",
    "ico": "ICO",
    "tga": "TGA",
    "jp2": "JPEG2000",
    "avif": "AVIF",
    "apng": "PNG",
}
IMAGES = (*PICTURES, "dcm", "tar", "zip")
TEXTS = ("jsonl", "json", "csv", "tsv", "parquet", "xmp")


def mutants(
    kinds: Sequence[str], pictures: Sequence[Image.Image], count: int, chance: random.Random
) -> Iterator[tuple[str, bytes]]:
    """``count`` files, kind after kind: the kind and what is in the file, some of it as it should be."""
    turned = [[*pictures[at:], *pictures[:at]] for at in range(min(8, len(pictures)))]
    whole = {kind: [sample(kind, order) for order in turned] for kind in kinds}
    for number in range(count):
        kind = kinds[number % len(kinds)]
        yield kind, mutated(chance.choice(whole[kind]), chance)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One to three changes; for one in twenty none."""
    if chance.random() < 0.05:
        return data
    for _ in range(chance.randint(1, 3)):
        data = chance.choice(CHANGES)(data, chance)
    return data


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _flipped(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 20) if data else 0):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def _header(data: bytes, chance: random.Random) -> bytes:
    """A number near the start becomes very large, very small or negative."""
    at = chance.randrange(min(64, len(data) + 1))
    value = chance.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000))
    return data[:at] + struct.pack(chance.choice("<>") + "I", value) + data[at + 4 :]


def _blank(data: bytes, chance: random.Random) -> bytes:
    at, size = chance.randrange(len(data) + 1), chance.randint(1, 512)
    return data[:at] + bytes(len(data[at : at + size])) + data[at + size :]


def _twice(data: bytes, chance: random.Random) -> bytes:
    at, size = chance.randrange(len(data) + 1), chance.randint(1, 512)
    return data[: at + size] + data[at : at + size] + data[at + size :]


def _without(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + data[at + chance.randint(1, 64) :]


def _more(data: bytes, chance: random.Random) -> bytes:
    at = chance.choice((0, chance.randrange(len(data) + 1), len(data)))
    return data[:at] + chance.randbytes(chance.randint(1, 64)) + data[at:]


CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...]
CHANGES = (_cut, _flipped, _flipped, _header, _header, _blank, _twice, _without, _more)


def sample(kind: str, pictures: Sequence[Image.Image]) -> bytes:
    """A whole file of a kind."""
    if kind in PICTURES:
        return _encoded(pictures[0], kind, pictures[1:3])
    if kind in ("tar", "zip"):
        return _archive(kind, pictures[:3])
    return {"dcm": _dicom, "parquet": _parquet, "xmp": _xmp}.get(kind, _text)(pictures[0], kind)


def _encoded(picture: Image.Image, kind: str, others: Sequence[Image.Image] = ()) -> bytes:
    several = {"save_all": True, "append_images": list(others)} if kind in ("gif", "apng", "tif", "webp") else {}
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    picture.save(file, PICTURES[kind], **several, **({"exif": exif} if kind in ("jpg", "png") else {}))
    return file.getvalue()


def _archive(kind: str, pictures: Sequence[Image.Image]) -> bytes:
    file = io.BytesIO()
    contents = {f"{number}.jpg": _encoded(picture, "jpg") for number, picture in enumerate(pictures)}
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as packed:
            for name, content in contents.items():
                packed.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        return file.getvalue()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def _dicom(picture: Image.Image, kind: str) -> bytes:
    """A grey image in explicit little endian, element by element."""
    grey = picture.convert("L")

    def element(group: int, number: int, kind: bytes, value: bytes) -> bytes:
        value += b"\0" * (len(value) % 2)
        size = struct.pack("<HI", 0, len(value)) if kind in (b"OB", b"OW") else struct.pack("<H", len(value))
        return struct.pack("<HH", group, number) + kind + size + value

    short = struct.Struct("<H").pack
    meta = element(2, 0x10, b"UI", b"1.2.840.10008.1.2.1")
    body = element(8, 0x60, b"CS", b"OT") + element(0x28, 2, b"US", short(1)) + element(0x28, 4, b"CS", b"MONOCHROME2")
    sizes = ((0x10, grey.height), (0x11, grey.width), (0x100, 8), (0x101, 8), (0x102, 7), (0x103, 0))
    body += b"".join(element(0x28, number, b"US", short(value)) for number, value in sizes)
    body += element(0x7FE0, 0x10, b"OB", grey.tobytes())
    return bytes(128) + b"DICM" + element(2, 0, b"UL", struct.pack("<I", len(meta))) + meta + body


def _rows() -> list[dict[str, str]]:
    return [{"file": f"{n}.jpg", "caption": f'number {n}, "a" dog', "context": "où", "id": str(n)} for n in range(5)]


def _text(picture: Image.Image, kind: str) -> bytes:
    if kind == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in _rows()).encode()
    if kind == "json":
        images = [{"id": n, "file_name": f"{n}.jpg"} for n in range(5)]
        annotations = [{"id": n, "image_id": n, "caption": "a dog"} for n in range(5)]
        return json.dumps({"images": images, "annotations": annotations}).encode()
    file = io.StringIO()
    writer = csv.DictWriter(file, list(_rows()[0]), delimiter="\t" if kind == "tsv" else ",")
    writer.writeheader()
    writer.writerows(_rows())
    return file.getvalue().encode()


def _parquet(picture: Image.Image, kind: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet

    content = _encoded(picture, "jpg")
    rows = [row | {"image": {"bytes": content, "path": row["file"]}} for row in _rows()]
    file = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def _xmp(picture: Image.Image, kind: str) -> bytes:
    return with_description(None, "a dog & a cat")
