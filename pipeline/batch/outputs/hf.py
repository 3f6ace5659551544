"""A Hugging Face data set: Parquet shards of images and captions, with a card, for ``load_dataset(FOLDER)``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import IO, Any

from latentcap.batch.inputs import Input
from latentcap.batch.journal import Record, written_to_disk
from latentcap.batch.outputs.copied import Lost, copied, why_not_copied
from latentcap.batch.outputs.parts import ParquetParts
from latentcap.data.image import ImageRef

ROW_GROUP = 50  # images in memory at once
TEXT, NUMBER = {"dtype": "string", "_type": "Value"}, {"dtype": "float64", "_type": "Value"}
FEATURES = {
    "image": {"_type": "Image"},
    "file": TEXT,
    "caption": TEXT,
    "alternatives": {"feature": TEXT, "_type": "Sequence"},
    "score": NUMBER,
    "confidence": NUMBER,
    "context": TEXT,
}
CARD = """---
task_categories:
- image-to-text
tags:
- latentcap
- synthetic
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---

# Captioned images

The captions were written by a model, with latentcap. Whether somebody has read them is not known.

| column | what it is |
|---|---|
| `image` | the file, as it was |
| `file` | its name |
| `caption`, `alternatives` | the best caption, and the next best ones where they were asked for |
| `score`, `confidence` | of the best: its log-probability, and the mean probability of a word |
| `context` | what the model was told besides, if anything |
"""


class HuggingFaceFolder(ParquetParts):
    """``data/train-00000.parquet``, ... of a thousand images each, and ``README.md``, which is written once."""

    needs_images = True
    per_part = 1000
    part = "data/train-{}.parquet"

    def prepare(self, item: Input, *, known: bool) -> Input | None:
        if item.images and not item.error:
            if reason := why_not_copied(item, "hf"):
                return replace(item, error=reason)
            if len(item.images) > 1:
                return replace(item, error=f"{len(item.images)} views, where --format hf has one image for a caption")
        return item

    def write(self, records: Iterator[tuple[int, Record]], file: IO[bytes]) -> None:
        write_images(records, file)

    def finish(self, *, quiet: bool = False) -> None:
        super().finish(quiet=quiet)
        write_card(self.folder)

    def clear(self) -> None:
        super().clear()
        card = self.folder / "README.md"
        if card.is_file() and card.read_bytes() == CARD.encode():
            card.unlink()


def write_card(folder: Path) -> None:
    """``README.md``, unless there is one."""
    if not (folder / "README.md").exists():
        with written_to_disk(folder / "README.md", "w", encoding="utf-8") as file:
            file.write(CARD)


def write_images(records: Iterator[tuple[int, Record]], file: IO[bytes]) -> None:
    """Rows with images, in the columns of ``FEATURES``, which the file's metadata tell ``datasets``.

    Records come with where in the journal they begin. Raises Lost, at the end, for images that cannot be copied.
    """
    import pyarrow as pa
    import pyarrow.parquet

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    types = {"image": image, "alternatives": pa.list_(pa.string()), "score": pa.float64(), "confidence": pa.float64()}
    told = {b"huggingface": json.dumps({"info": {"features": FEATURES}}).encode()}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in FEATURES], metadata=told)
    lost: dict[int, Record] = {}
    rows = _rows(records, lost)
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        while some := list(islice(rows, ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(some, schema=schema))
    if lost:
        raise Lost(lost)


def _rows(records: Iterator[tuple[int, Record]], lost: dict[int, Record]) -> Iterator[dict[str, Any]]:
    for start, record in records:
        try:
            yield _row(record)
        except OSError as error:
            lost[start] = {"file": record["file"], "error": str(error)}


def _row(record: Record) -> dict[str, Any]:
    image = ImageRef(*record["_images"][0])
    name = _text(os.path.basename(image.name or image.path))
    return {
        "image": {"bytes": copied(image), "path": name},
        "file": _text(record["file"]),
        "caption": record["caption"],
        "alternatives": [other["caption"] for other in record.get("alternatives", ())],
        "score": record.get("score"),
        "confidence": record.get("confidence"),
        "context": record.get("context"),
    }


def _text(name: str) -> str:
    """A name as Parquet holds it: bytes that are not UTF-8 as ``\\\\udcff``."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
