"""Flickr8k: the original token file with its lists of images by split, or the one captions.txt that Kaggle carries."""

from __future__ import annotations

import re
from pathlib import Path

from latentcap.data.encoding import read_text
from latentcap.data.errors import UserError
from latentcap.data.example import Example, ImageRef
from latentcap.data.readers.fields import ReadOptions
from latentcap.data.readers.paths import guess_root

TOKEN_FILES = ("Flickr8k.token.txt", "captions.txt")
SPLIT_LISTS = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}
IMAGE_FOLDERS = ("Flicker8k_Dataset", "Flickr8k_Dataset", "Images", "images", "")  # the first as the archive spells it
_TOKEN_LINE = re.compile(r"(\S.*?)#\d+\t(.*)")
_COMMA_LINE = re.compile(r"([^,]+\.\w+),(.*)")


def find_token_file(path: Path) -> Path | None:
    """``path``, or the caption file in the folder ``path``, if it reads as Flickr8k's."""
    candidates = [path / name for name in TOKEN_FILES] if path.is_dir() else [path]
    return next((file for file in candidates if file.is_file() and _looks_right(file)), None)


def read_flickr8k(path: Path, options: ReadOptions) -> list[Example]:
    """Images in no list are left out, as is the use; without lists every image is train."""
    file = find_token_file(path)
    if file is None:
        raise UserError(
            f"{path}: no {' or '.join(TOKEN_FILES)} with lines 'IMAGE.jpg#0<tab>CAPTION', or 'image,caption' and then "
            "'IMAGE.jpg,CAPTION'."
        )
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip() or (number == 1 and _is_header(line)):
            continue
        match = _TOKEN_LINE.fullmatch(line) or _COMMA_LINE.fullmatch(line)
        if match is None:
            raise UserError(f"{file}, line {number}: neither 'IMAGE.jpg#0<tab>CAPTION' nor 'IMAGE.jpg,CAPTION'.")
        captions.setdefault(match[1], []).append(_unquote(match[2].strip()))
    lists = {split: file.parent / name for split, name in SPLIT_LISTS.items() if (file.parent / name).is_file()}
    splits = {name: split for split, path in lists.items() for name in read_text(path).split()}
    folder = options.image_root or file.parent
    first = next((name for name in captions if not lists or name in splits), "")
    root = guess_root((folder,), IMAGE_FOLDERS, first)
    return [
        Example(id=name, images=(ImageRef(str(root / name)),), captions=tuple(texts), split=splits.get(name, "train"))
        for name, texts in captions.items()
        if not lists or name in splits
    ]


def _looks_right(file: Path) -> bool:
    with open(file, encoding="utf-8-sig", errors="replace") as lines:
        first = lines.readline().rstrip("\n")
    return _is_header(first) or _TOKEN_LINE.fullmatch(first) is not None


def _is_header(line: str) -> bool:
    return line.strip().lower() == "image,caption"


def _unquote(caption: str) -> str:
    if len(caption) > 1 and caption[0] == caption[-1] == '"':
        return caption[1:-1].replace('""', '"').strip()
    return caption
