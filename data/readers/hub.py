"""A data set as it lies on a hub: tables whose names say the split, ``data/train-00000-of-00001.parquet``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from latentcap.data.errors import UserError
from latentcap.data.example import Example
from latentcap.data.readers.collect import joined
from latentcap.data.readers.fields import ReadOptions
from latentcap.data.readers.formats import Format
from latentcap.data.readers.rows import TABLE_SUFFIXES
from latentcap.data.readers.splits import known_split, split_in_name
from latentcap.data.readers.table import read_table
from latentcap.data.walk import own_outputs


def read_hub(folder: Path, options: ReadOptions) -> Sequence[Example]:
    """Every table of every split. Raises UserError where there is none, or where several folders each have a set."""
    tables = find_tables(folder)
    if not tables:
        raise UserError(f"{folder}: no tables named by their split in it, such as train-00000.parquet or val.csv.")

    def read(table: Path, split: str) -> Sequence[Example]:
        prefix = f"{table.relative_to(folder).with_suffix('')}/" if table.suffix.lower() == ".parquet" else ""
        return read_table(table, options, split=split, id_prefix=prefix)

    return joined((read(table, split) for table, split in tables), options.columns)


def find_tables(folder: Path) -> list[tuple[Path, str]]:
    """The tables with their splits: those in the folder or in ``data/``, in folders named by split, or in one other."""
    for place in (folder, folder / "data"):
        found = [(table, split) for table in _tables(place) if (split := split_in_name(table.name, default=""))]
        if found:
            return found
    folders = [child for child in _children(folder) if child.is_dir() and not child.name.startswith(".")]
    by_split = [
        (table, named)
        for child in folders
        if (named := known_split(child.name))
        for table in _tables(child)
        if table.suffix.lower() == ".parquet"
    ]
    if by_split:
        return by_split
    sets = {child: tables for child in folders if (tables := find_tables_one_deeper(child))}
    if len(sets) > 1:
        raise UserError(
            f"{folder}: {len(sets)} data sets in it ({', '.join(child.name for child in sets)}). Give the path of one."
        )
    return next(iter(sets.values()), [])


def find_tables_one_deeper(folder: Path) -> list[tuple[Path, str]]:
    """As :func:`find_tables`, Parquet alone, without looking for sets in sets."""
    named = [(table, split) for table in _tables(folder) if (split := split_in_name(table.name, default=""))]
    inside = [(table, own) for sub in _children(folder) for table in _tables(sub) if (own := known_split(sub.name))]
    return [(table, split) for table, split in named or inside if table.suffix.lower() == ".parquet"]


def _tables(folder: Path) -> list[Path]:
    names = [child.name for child in _children(folder)]
    ours = own_outputs(str(folder), names)
    return [folder / name for name in names if name.lower().endswith(TABLE_SUFFIXES) and name not in ours]


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError:
        return []


FORMAT = Format(
    "hub",
    read_hub,
    find_tables,
    kind="folder",
    looked_for="tables named by split, here or in data/ (train-00000.parquet, val.csv)",
)
