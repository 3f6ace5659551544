"""Hugging Face data sets, with the ``hf`` extra: a folder saved with ``save_to_disk``, or ``hf:NAME`` from the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentcap.data.errors import UserError
from latentcap.data.example import Example
from latentcap.data.readers.collect import joined
from latentcap.data.readers.fields import IMAGE_COLUMNS, ReadOptions
from latentcap.data.readers.formats import Format
from latentcap.data.readers.paths import HUGGINGFACE_PREFIX, shorten
from latentcap.data.readers.splits import known_split
from latentcap.data.readers.table import examples_from_rows

MARKERS = ("dataset_dict.json", "dataset_info.json")


def is_saved_dataset(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote the folder."""
    return any((folder / name).is_file() for name in MARKERS)


def read_huggingface(source: str | Path, options: ReadOptions) -> Sequence[Example]:
    """Every split of the data set; one of no usual name is train. Embedded images are held in memory.

    Raises:
        UserError: the ``datasets`` package is missing, or the data set cannot be loaded.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"{shorten(source)}: reading Hugging Face data sets needs the 'datasets' package, in the hf extra: "
            "pip install 'latentcap[hf]'."
        ) from None
    name = str(source)
    try:
        if name.startswith(HUGGINGFACE_PREFIX):
            loaded = datasets.load_dataset(name.removeprefix(HUGGINGFACE_PREFIX))
        else:
            loaded = datasets.load_from_disk(name)
    except Exception as error:  # the package raises its own, the hub's and the network's errors
        raise UserError(f"{shorten(name)}: cannot be loaded as a Hugging Face data set ({error}).") from None
    splits = dict(loaded) if isinstance(loaded, dict) else {str(getattr(loaded, "split", None) or "train"): loaded}

    def read(split: str, part: Any) -> Sequence[Example]:
        return examples_from_rows(
            _rows(part, options, datasets.Image),
            options,
            root=options.image_root or Path(),
            split=known_split(split) or "train",
            where=f"{name}, split {split}",
            id_prefix=f"{split}/",
        )

    return joined((read(split, part) for split, part in splits.items()), options.columns)


def _rows(part: Any, options: ReadOptions, image_type: Any) -> list[dict[str, Any]]:
    """Rows with encoded images as ``{"bytes", "path"}`` and class labels by their names."""
    fields = options.fields
    images = (fields.image,) if fields.image else IMAGE_COLUMNS
    for name, feature in part.features.items():
        if name in images and isinstance(feature, image_type):
            part = part.cast_column(name, image_type(decode=False))
    labels = {
        name: feature.int2str
        for name, feature in part.features.items()
        if name in fields.categories and hasattr(feature, "int2str")
    }
    return [
        {name: labels[name](value) if name in labels and value is not None else value for name, value in row.items()}
        for row in part
    ]


FORMAT = Format(
    "huggingface", read_huggingface, is_saved_dataset, kind="folder", looked_for="a saved Hugging Face data set"
)
