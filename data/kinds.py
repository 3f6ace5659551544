"""What a file is: by its name, for what is looked for in folders; by its first bytes, for what is opened."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec

from latentcap.data.dicom import is_dicom

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
RAW_SUFFIXES = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw")
PLUGINS = {  # what is read with a package of an extra: suffixes, how it is called, the extra
    "pillow_heif": ((".heic", ".heif", ".hif"), "a HEIC photo", "heic"),
    "pillow_jxl": ((".jxl",), "a JPEG XL image", "heic"),
    "rawpy": (RAW_SUFFIXES, "a camera's raw file", "raw"),
}
IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".gif", ".bmp", ".dib"),
        *(".tif", ".tiff", ".jp2", ".j2k", ".jpx", ".pbm", ".pgm", ".ppm", ".pnm", ".tga", ".ico", ".qoi", ".psd"),
        *DICOM_SUFFIXES,
        *(suffix for suffixes, *_ in PLUGINS.values() for suffix in suffixes),
    )
)
"""What is taken for an image by its name, everywhere."""
RAW = "a camera's raw file: its name has to end as the camera called it (.cr2, .raf)"
VIDEO = "a video: 'latentcap caption --every 2s' reads it, all else needs its frames as images"
PACKED = "a compressed archive: unpack it (to caption images, a .zip and a plain .tar may stay as they are)"
DRAWING = "a document or drawing: export it as PNG or JPEG"
SPREADSHEET = "a spreadsheet: save it as CSV (UTF-8)"
VIDEO_SUFFIXES = (
    *(".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".3gp"),
    *(".mpg", ".mpeg", ".wmv", ".m2ts", ".ogv", ".flv"),
)
NOT_READ = {
    **dict.fromkeys(VIDEO_SUFFIXES, VIDEO),
    **dict.fromkeys((".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"), PACKED),
    **dict.fromkeys((".pdf", ".svg", ".eps", ".ai"), DRAWING),
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".numbers"), SPREADSHEET),
}
"""What people have among their images and what is not read, with what to do about it."""
COMPANIONS = frozenset(
    (
        *(".txt", ".caption", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".xml", ".yaml", ".yml"),
        *(".md", ".html", ".htm", ".css", ".js", ".py", ".ipynb", ".sh", ".log", ".npy", ".npz", ".pt", ".pth"),
        *(".ckpt", ".safetensors", ".onnx", ".part", ".lock", ".db", ".ini", ".xmp", ".aae", ".cls", ".tar", ".arrow"),
        *(".srt", ".vtt"),
    )
)
"""What stands beside images and is never looked into for one."""
START = 512  # bytes that :func:`begins_as_image` and :func:`what_it_is` look at
_BEGINNINGS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    *(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"\0\0\0\x0cJXL ", b"\xff\x0a", b"qoif", b"8BPS"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
STAND_INS = (  # what is found in place of a file, whatever that was to be
    (re.compile(rb"version https://git-lfs"), "a pointer of Git LFS in place of the file: fetch it with git lfs pull"),
    (
        re.compile(rb"\s*<(!doctype )?html", re.IGNORECASE),
        "a web page, as failed downloads leave: fetch it again",
    ),
    (re.compile(rb"PK\x03\x04.{26,40}(\[Content_Types\]|_rels/|docProps/|xl/)", re.DOTALL), SPREADSHEET),
    (re.compile(rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), SPREADSHEET),
)
_CONTENTS = (
    *STAND_INS,
    (re.compile(rb"%PDF"), DRAWING),
    (re.compile(rb"PK\x03\x04"), "a zip archive: its name has to end in .zip"),
    (re.compile(rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!"), PACKED),
    (re.compile(rb".{4}ftyp|\x1aE\xdf\xa3|RIFF.{4}AVI ", re.DOTALL), VIDEO),
    (re.compile(rb".{257}ustar", re.DOTALL), "a tar archive: its name has to end in .tar"),
    (re.compile(rb"PAR1"), "a Parquet table: its name has to end in .parquet"),
    (re.compile(rb"FUJIFILMCCD-RAW|.{8}CR\x02", re.DOTALL), RAW),
    (re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*-->\s*)?<svg", re.DOTALL), DRAWING),
    (
        re.compile(rb"(\xef\xbb\xbf)?\s*[{\[]\s*[\"\[{\]}]"),
        "JSON: a table of images to caption is JSON Lines, CSV or Parquet (.jsonl, .csv, .tsv, .parquet), "
        "@FILE a list of their names",
    ),
    (
        re.compile(rb"(\xef\xbb\xbf)?[\t\r\n\x20-\x7e\x80-\xff]+$"),
        "text: @FILE is a list of images, a table of them ends in .csv, .tsv or .jsonl",
    ),
)


def is_image(name: str) -> bool:
    """Whether a file name is that of an image, hidden files aside."""
    base = os.path.basename(name)
    return suffix_of(base) in IMAGE_SUFFIXES and not base.startswith(".")


def is_video(name: str) -> bool:
    """Whether a file name is that of a video, hidden files aside."""
    return suffix_of(name) in VIDEO_SUFFIXES and not os.path.basename(name).startswith(".")


def suffix_of(name: str) -> str:
    """``.jpg`` of ``a/b.JPG``."""
    return os.path.splitext(name)[1].lower()


def may_be_image(name: str) -> bool:
    """Whether only its content says what a file is: it has no suffix that is known (``IM0001``, ``1.2.7``)."""
    suffix = suffix_of(name)
    known = suffix in IMAGE_SUFFIXES or suffix in NOT_READ or suffix in COMPANIONS
    return not known and not os.path.basename(name).startswith(".")


def why_not_read(name: str) -> str:
    """Why a file of this name is no image that is read here, or "" where it is one or has nothing to do with images."""
    suffix = suffix_of(name)
    for module, (suffixes, *_) in PLUGINS.items():
        if suffix in suffixes and find_spec(module) is None:
            return needs_plugin(module)
    if is_dicom_directory(name):
        return "the directory of a DICOM medium: its images are in the files beside it"
    return NOT_READ.get(suffix, "")


def is_dicom_directory(name: str) -> bool:
    """Whether a file is the directory of a DICOM medium, by its name."""
    return os.path.basename(name).upper() == "DICOMDIR"


def is_raw(name: str) -> bool:
    """Whether a file name is that of a camera's raw file."""
    return suffix_of(name) in RAW_SUFFIXES


def needs_plugin(module: str) -> str:
    _, what, extra = PLUGINS[module]
    return f"{what}; it needs the extra '{extra}': pip install 'latentcap[{extra}]'"


def begins_as_image(start: bytes) -> bool:
    """Whether a file begins as an image does, given its first :data:`START` bytes."""
    riff = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    bitmap = start[:2] == b"BM" and start[6:10] == bytes(4)
    return start.startswith(_BEGINNINGS) or riff or bitmap or plugin_of(start) is not None or is_dicom(start)


def plugin_of(start: bytes) -> str | None:
    """The module that reads a file which begins so, where it is one of :data:`PLUGINS`."""
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        return "pillow_heif"
    return "pillow_jxl" if start.startswith((b"\0\0\0\x0cJXL ", b"\xff\x0a")) else None


def stand_in(start: bytes) -> str:
    """What a file is that begins so, where it can be neither a table, nor an archive, nor an image; else ""."""
    return next((what for pattern, what in STAND_INS if pattern.match(start[:START])), "")


def what_it_is(start: bytes, name: str = "") -> str:
    """What is said of a file that cannot be opened as an image: what it is instead, and what to do about it."""
    if not start:
        return "the file is empty"
    plugin = plugin_of(start)
    if plugin is not None:
        missing = find_spec(plugin) is None
        return needs_plugin(plugin) if missing else f"{PLUGINS[plugin][1]} that is damaged"
    if begins_as_image(start):
        return "damaged, or an image of a kind that Pillow does not read"
    for pattern, what in _CONTENTS:
        if pattern.match(start[:START]):
            kind = what.split(":")[0]
            failed = is_image(name) and kind in ("JSON", "text")  # that an image was to be here
            return f"not an image but {f'{kind}, as failed downloads leave: fetch it again' if failed else what}"
    if why_not_read(name):
        return why_not_read(name)
    return "not an image, or of a kind that Pillow does not read"
