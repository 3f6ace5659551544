"""COCO's results: a list of ``{"image_id", "caption"}``, as pycocoevalcap and COCO's server read it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

from latentcap.batch.inputs import Input
from latentcap.batch.journal import Record
from latentcap.batch.outputs.table import TableFile
from latentcap.data.archives import as_path
from latentcap.data.errors import UserError

ImageId = int | str
_WHOLE = re.compile(r"(\d+)(\.0)?")  # pandas writes 139.0 where a column of ids has a gap


class CocoFile(TableFile):
    """A file of JSON. An image's id is that of ``ids``, which knows it by path or file name; else the table's; else the
    last number in its file name, one that stands by itself before one among letters. Images without an id fail, and so
    does the second with the same one.
    """

    needs_ids = True

    def __init__(self, path: Path, run: Path, *, ids: dict[str, ImageId] | None = None) -> None:
        super().__init__(path, run)
        self.ids = ids
        self._seen: dict[ImageId, str] | None = None  # whose each id is, from the first that is prepared on

    def id_of(self, name: str, stated: str) -> ImageId | None:
        if self.ids is not None:
            return self.ids.get(name, self.ids.get(_base(name)))
        if stated:
            whole = _WHOLE.fullmatch(stated)
            return int(whole[1]) if whole else stated
        stem = os.path.splitext(_base(name))[0]
        numbers = re.findall(r"(?<![^\W_])\d+(?![^\W_])", stem) or re.findall(r"\d+", stem)
        return int(numbers[-1]) if numbers else None

    def prepare(self, item: Input, *, known: bool) -> Input | None:
        if item.error:
            return item
        id = self.id_of(item.name, item.id)
        if id is None:
            where = "it is not in --image-ids" if self.ids is not None else "its name has no digits (see --image-ids)"
            return replace(item, error=f"no image_id: {where}")
        if self._seen is None:
            self._seen = {record["_image_id"]: record["file"] for record in self.journal}
        if self._seen.setdefault(id, item.name) != item.name:
            return replace(item, error=f"image_id {id} is that of another image already")
        return item

    def append(self, records: Sequence[Record]) -> int:
        for record in records:
            record["_image_id"] = self.id_of(record["file"], record.get("_id", ""))
        return super().append(records)

    def records(self) -> Iterator[Record]:
        return iter(self.journal)

    def write(self, records: Iterator[Record], file: IO[bytes]) -> None:
        seen: dict[ImageId, str] = {}
        file.write(b"[")
        for number, record in enumerate(records):
            name, id = record["file"], record["_image_id"]
            if id in seen:
                raise UserError(
                    f"{self.file}: image_id {id} is that of {seen[id]} and of {name}. COCO's results have one caption "
                    "for each: caption again with --image-ids."
                )
            seen[id] = name
            text = json.dumps({"image_id": id, "caption": record["caption"]}, ensure_ascii=False)
            file.write(f"{',' if number else ''}\n{text}".encode("utf-8", "backslashreplace"))
        file.write(b"\n]\n")


def read_image_ids(path: Path) -> dict[str, ImageId]:
    """Ids by file name, of COCO's annotations: ``{"images": [{"id", "file_name"}]}``. Raises UserError for others."""
    try:
        images = json.loads(path.read_bytes())["images"]
        return {str(image["file_name"]): image["id"] for image in images}
    except OSError as error:
        raise UserError(f"--image-ids {path}: cannot be read ({error.strerror}).") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f'--image-ids {path}: {{"images": [{{"id": 139, "file_name": "000000000139.jpg"}}, ...]}} is needed, as in '
            "COCO's annotations."
        ) from None


def _base(name: str) -> str:
    return os.path.basename(as_path(name))
