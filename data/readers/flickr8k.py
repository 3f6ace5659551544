"""Flickr8k: the original token file with its lists of images by split, or the one captions.txt that Kaggle carries."""

from __future__ import annotations

import re
from pathlib import Path

from latentcap.data.encoding import read_text
from latentcap.data.errors import UserError
from latentcap.data.example import Example, ImageRef
from latentcap.data.readers.fields import CAPTION_COLUMNS, IMAGE_COLUMNS, ReadOptions
from latentcap.data.readers.folders import name_unlisted
from latentcap.data.readers.formats import Format
from latentcap.data.readers.paths import guess_root, native

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
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        line = line.rstrip("\r")
        if not line.strip() or (number == 1 and _is_header(line)):
            continue
        match = _TOKEN_LINE.fullmatch(line) or _COMMA_LINE.fullmatch(line)
        if match is None:
            raise UserError(f"{file}, line {number}: neither 'IMAGE.jpg#0<tab>CAPTION' nor 'IMAGE.jpg,CAPTION'.")
        captions.setdefault(match[1].strip(), []).append(_unquote(match[2].strip()))
    lists = {split: file.parent / name for split, name in SPLIT_LISTS.items() if (file.parent / name).is_file()}
    splits = {name: split for split, path in lists.items() for name in read_text(path).split()}
    folder = options.image_root or file.parent
    first = next((name for name in captions if not lists or name in splits), "")
    root = guess_root((folder,), IMAGE_FOLDERS, first)
    for name in splits.keys() - captions.keys():
        options.skip(name, f"it is in the lists of splits and has no caption in {file.name}")
    examples = []
    for name, texts in captions.items():
        if lists and name not in splits:
            options.skip(name, "it is in none of the lists of splits", expected=True)
            continue
        image = ImageRef(str(root / native(name, root)))
        examples.append(Example(id=name, images=(image,), captions=tuple(texts), split=splits.get(name, "train")))
    if root.name and root != folder:
        known = [Example(id=name, images=(ImageRef(str(root / native(name, root))),)) for name in captions]
        name_unlisted(root, known, options, f"it has no caption in {file.name}")
    return examples


def _looks_right(file: Path) -> bool:
    with open(file, encoding="utf-8-sig", errors="replace") as lines:
        first = lines.readline().rstrip("\n")
    return _is_header(first) or _TOKEN_LINE.fullmatch(first) is not None


def _is_header(line: str) -> bool:
    image, comma, caption = line.strip().lower().partition(",")
    return bool(comma) and image.strip() in IMAGE_COLUMNS and caption.strip() in CAPTION_COLUMNS


def _unquote(caption: str) -> str:
    if len(caption) > 1 and caption[0] == caption[-1] == '"':
        return caption[1:-1].replace('""', '"').strip()
    return caption


FORMAT = Format("flickr8k", read_flickr8k, find_token_file, looked_for=f"{' or '.join(TOKEN_FILES)} (Flickr8k)")
