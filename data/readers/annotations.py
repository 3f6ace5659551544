"""JSON annotation files: COCO captions, Karpathy splits, and plain lists of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from latentcap.data.errors import UserError
from latentcap.data.example import Example, ImageRef
from latentcap.data.readers.captions import is_null, to_captions
from latentcap.data.readers.collect import joined
from latentcap.data.readers.fields import ReadOptions
from latentcap.data.readers.formats import Format
from latentcap.data.readers.paths import guess_root, native
from latentcap.data.readers.rows import load_json
from latentcap.data.readers.splits import known_split, normalise_split, split_in_name
from latentcap.data.readers.table import examples_from_rows, rows_root


def read_json(path: Path, options: ReadOptions, *, format: str | None = None) -> Sequence[Example]:
    """A JSON file, by what it holds. Raises UserError where that is not what ``format`` says, or nothing known."""
    content = load_json(path)
    if content == []:
        raise UserError(f"{path}: the table has no rows.")
    if isinstance(content, dict) and content.get("images") == []:
        raise UserError(f"{path}: it has no images; the list under 'images' is empty.")
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
        if any("sentences" in image for image in content["images"]):
            return "karpathy"
        return "coco" if _is_rows(content.get("annotations")) else None
    if content and all(known_split(name) and isinstance(rows, list) for name, rows in content.items()):
        return "table"
    return None


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _coco(content: Any, path: Path, options: ReadOptions) -> list[Example]:
    """The file name says the split (``captions_val2014.json``); images are looked for as COCO lays them out.

    Ids match as text, without leading zeros where that leaves no two alike: 139, "139" and "000000000139" are one.
    """
    images = _coco_images(content["images"], path, options)
    key = _id_key([id for id, _ in images])
    captions: dict[str, list[str]] = {key(id): [] for id, _ in images}
    for number, annotation in enumerate(content["annotations"], start=1):
        at = f"{path}, annotation {number}"
        texts = to_captions(annotation.get("caption"), at)
        if not texts:
            options.skip(at, "it has no caption (but boxes, keypoints or the like)", expected=True)
        elif is_null(annotation.get("image_id")):
            options.skip(at, "a caption without an image: it has no image_id")
        elif (id := key(annotation["image_id"])) not in captions:
            options.skip(at, f"a caption without an image: no image has the id {annotation['image_id']!r}")
        else:
            captions[id] += texts
    if options.fields.caption != "" and not any("caption" in annotation for annotation in content["annotations"]):
        raise UserError(
            f"{path}: its annotations have no captions (keys: {', '.join(content['annotations'][0])}). COCO's captions "
            "are in captions_*.json; instances_*.json and the like hold boxes and shapes."
        )
    split = split_in_name(path.name)
    folder = path.stem.rpartition("_")[2]  # captions_train2014 -> train2014
    root = _image_root(path, options, ("", folder, split), images[0][1])
    return [
        Example(name, (ImageRef(str(root / name)),), tuple(captions[key(id)]), split=split, aliases=(_id_text(id),))
        for id, name in images
    ]


def _coco_images(entries: Any, path: Path, options: ReadOptions) -> list[tuple[Any, str]]:
    """The id and file name of each image, the first of those with one id."""
    found: dict[str, tuple[Any, str]] = {}
    for number, entry in enumerate(entries, start=1):
        at = f"{path}, image {number}"
        for name in ("id", "file_name"):
            if is_null(entry.get(name)):
                raise UserError(f"{at}: no {name}. Every image needs id and file_name; it has {', '.join(entry)}.")
        first = found.setdefault(_id_text(entry["id"]), (entry["id"], native(str(entry["file_name"]), path.parent)))
        if first[1] != native(str(entry["file_name"]), path.parent):
            options.skip(str(entry["file_name"]), f"{first[1]} has the same id, {entry['id']!r}")
    return list(found.values())


def _id_text(id: Any) -> str:
    """An id as text: 139 of 139, 139.0 and " 139"."""
    return str(int(id) if isinstance(id, float) and id.is_integer() else id).strip()


def _id_key(ids: Sequence[Any]) -> Callable[[Any], str]:
    """What ids are compared by."""
    texts = {_id_text(id) for id in ids}

    def without_zeros(id: Any) -> str:
        text = _id_text(id)
        return text.lstrip("0") or "0" if text.isdecimal() else text

    return without_zeros if len({without_zeros(text) for text in texts}) == len(texts) else _id_text


def _karpathy(content: Any, path: Path, options: ReadOptions) -> list[Example]:
    entries = []
    for number, image in enumerate(content["images"], start=1):
        at = f"{path}, image {number}"
        missing = [name for name in ("filename", "split", "sentences") if is_null(image.get(name))]
        if missing:
            raise UserError(f"{at}: no {' and no '.join(missing)}; every one needs filename, split and sentences.")
        name = native(str(Path(image.get("filepath") or "", image["filename"])), path.parent)
        aliases = tuple(_id_text(image[key]) for key in ("cocoid", "imgid") if key in image)[:1]
        entries.append((name, to_captions(image["sentences"], at), normalise_split(image["split"], at), aliases))
    root = _image_root(path, options, ("",), entries[0][0])
    return [
        Example(name, (ImageRef(str(root / name)),), captions, split=split, aliases=aliases)
        for name, captions, split, aliases in entries
    ]


def _rows(content: Any, path: Path, options: ReadOptions) -> Sequence[Example]:
    lists = [content] if isinstance(content, list) else [rows for rows in content.values() if rows]
    root = rows_root(lists[0] if lists else [], path, options)
    if isinstance(content, list):
        return examples_from_rows(content, options, root=root, split=split_in_name(path.name), where=str(path))

    def read(name: str, rows: list[Any]) -> Sequence[Example]:
        split = normalise_split(name, str(path))
        return examples_from_rows(rows, options, root=root, split=split, where=f"{path}, '{name}'")

    return joined((read(name, rows) for name, rows in content.items() if rows), options.columns)


def _image_root(path: Path, options: ReadOptions, folders: tuple[str, ...], first_image: str) -> Path:
    """Where the images are: the given root or what lies beside the file; a folder of the split inside is found."""
    if options.image_root:
        return guess_root((options.image_root,), folders, first_image)
    here = path.parent
    return guess_root((here, here / "images", here.parent, here.parent / "images"), folders, first_image)


COCO = Format("coco", partial(read_json, format="coco"), kind="file")
KARPATHY = Format("karpathy", partial(read_json, format="karpathy"), kind="file")
