"""JSON annotation files: COCO captions, Karpathy splits, and plain lists of rows."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from latentcap.data.errors import UserError
from latentcap.data.example import Example, ImageRef
from latentcap.data.readers.fields import ReadOptions, to_captions
from latentcap.data.readers.paths import guess_root
from latentcap.data.readers.rows import load_json
from latentcap.data.readers.splits import known_split, normalise_split, split_in_name
from latentcap.data.readers.table import examples_from_rows


def read_json(path: Path, options: ReadOptions, *, format: str | None = None) -> list[Example]:
    """A JSON file, by what it holds. Raises UserError where that is not what ``format`` says, or nothing known."""
    content = load_json(path)
    found = _kind(content)
    if found is None or (format is not None and found != format):
        if isinstance(content, dict):
            holds = f"an object with the keys {', '.join(list(content)[:10]) or '(none)'}"
        else:
            holds = "a list" if isinstance(content, list) else f"a {type(content).__name__}"
        accepted = {
            "coco": '{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]} (coco)',
            "karpathy": '{"images": [{"filename", "split", "sentences": [{"raw"}]}]} (karpathy)',
            "table": 'a list of objects, or {"train": [...], "val": [...]} of such lists (table)',
        }
        wanted = accepted[format] if format else "; ".join(accepted.values())
        raise UserError(f"{path}: holds {holds}. Accepted: {wanted}.")
    if found == "coco":
        return _coco(content, path, options)
    if found == "karpathy":
        return _karpathy(content, path, options)
    return _rows(content, path, options)


def _kind(content: Any) -> str | None:
    if _is_rows(content):
        return "table"
    if not isinstance(content, dict):
        return None
    if _is_rows(content.get("images")):
        if "sentences" in content["images"][0]:
            return "karpathy"
        return "coco" if _is_rows(content.get("annotations")) and "caption" in content["annotations"][0] else None
    if content and all(known_split(name) and isinstance(rows, list) for name, rows in content.items()):
        return "table"
    return None


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _coco(content: Any, path: Path, options: ReadOptions) -> list[Example]:
    """The file name says the split (``captions_val2014.json``); images are looked for as COCO lays them out."""
    captions: dict[Any, list[str]] = defaultdict(list)
    images = content["images"]
    try:
        for annotation in content["annotations"]:
            captions[annotation["image_id"]] += to_captions(annotation["caption"])
        names = [image["file_name"] for image in images]
        ids = [image["id"] for image in images]
    except KeyError as error:
        raise UserError(
            f"{path}: an entry without {error}; images need id and file_name, annotations image_id."
        ) from None
    split = split_in_name(path.name)
    folder = path.stem.rpartition("_")[2]  # captions_train2014 -> train2014
    root = _image_root(path, options, ("", folder, split), names[0])
    return [
        Example(name, (ImageRef(str(root / name)),), tuple(captions[id]), split=split, aliases=(str(id),))
        for id, name in zip(ids, names, strict=True)
    ]


def _karpathy(content: Any, path: Path, options: ReadOptions) -> list[Example]:
    try:
        entries = [
            (
                str(Path(image.get("filepath", ""), image["filename"])),
                to_captions([sentence["raw"] for sentence in image["sentences"]]),
                normalise_split(image["split"], str(path)),
                tuple(str(image[key]) for key in ("cocoid", "imgid") if key in image)[:1],
            )
            for image in content["images"]
        ]
    except KeyError as error:
        raise UserError(f"{path}: an image without {error}; every one needs filename, split and sentences.") from None
    root = _image_root(path, options, ("",), entries[0][0])
    return [
        Example(name, (ImageRef(str(root / name)),), captions, split=split, aliases=aliases)
        for name, captions, split, aliases in entries
    ]


def _rows(content: Any, path: Path, options: ReadOptions) -> list[Example]:
    root = _rows_root(content, path, options)
    if isinstance(content, list):
        return examples_from_rows(content, options, root=root, split=split_in_name(path.name), where=str(path))
    examples: list[Example] = []
    for name, rows in content.items():
        if rows:
            split = normalise_split(name, str(path))
            examples += examples_from_rows(rows, options, root=root, split=split, where=f"{path}, '{name}'")
    return examples


def _rows_root(content: Any, path: Path, options: ReadOptions) -> Path:
    """The given root or the file's folder; its ``images/`` where the first image is there, as R2Gen lays them out."""
    lists = [content] if isinstance(content, list) else [rows for rows in content.values() if rows]
    columns = options.fields.resolve(lists[0][0], str(path)) if lists else None
    first = lists[0][0].get(columns.image) if columns and columns.image else None
    name = first[0] if isinstance(first, list) and first else first
    folders = [options.image_root] if options.image_root else [path.parent, path.parent / "images"]
    return guess_root(folders, ("",), name) if isinstance(name, str) else folders[0]


def _image_root(path: Path, options: ReadOptions, folders: tuple[str, ...], first_image: str) -> Path:
    """Where the images are: the given root or what lies beside the file; a folder of the split inside is found."""
    if options.image_root:
        return guess_root((options.image_root,), folders, first_image)
    here = path.parent
    return guess_root((here, here / "images", here.parent, here.parent / "images"), folders, first_image)
