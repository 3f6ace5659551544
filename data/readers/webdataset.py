"""WebDataset tars: ``KEY.jpg`` with ``KEY.txt`` or ``KEY.json``. Indexed over the headers, never unpacked; what is in
a large one is kept beside the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from latentcap.data.archives import Member, members_of
from latentcap.data.errors import UserError
from latentcap.data.example import Example
from latentcap.data.readers.collect import joined
from latentcap.data.readers.fields import ReadOptions
from latentcap.data.readers.formats import Format
from latentcap.data.readers.kept import kept
from latentcap.data.readers.rows import refuse_stand_in
from latentcap.data.readers.samples import SUFFIXES, examples_of, group
from latentcap.data.readers.splits import known_split, split_in_name
from latentcap.data.walk import own_outputs

LEAST_KEPT = 1000  # samples; fewer are indexed again in less than a second


def read_webdataset(path: Path, options: ReadOptions) -> Sequence[Example]:
    """One tar, or every tar of a folder or of the folders in it.

    The split of a sample is that in its JSON, else that of the folder or of the tar's name (``val-00000.tar``), else
    train.
    """
    if not path.is_dir():
        return _read_tar(path, options, split_in_name(path.name))
    tars = find_tars(path)
    if not tars:
        raise UserError(f"{path}: no .tar file in it, nor in the folders in it.")

    def read(tar: Path) -> Sequence[Example]:
        inside = known_split(tar.parent.name) if tar.parent != path else None
        return _read_tar(tar, options, inside or split_in_name(tar.name))

    return joined(map(read, tars), options.columns)


def find_tars(folder: Path) -> list[Path]:
    """The tars in ``folder``, or else those in the folders in it."""
    ours = own_outputs(str(folder), [child.name for child in folder.iterdir()])
    below = (tar for tar in folder.glob("*/*.tar") if tar.parent.name not in ours)
    return sorted(folder.glob("*.tar")) or sorted(below)


def read_members(path: Path) -> Iterator[Member]:
    """The files in a tar that are read, by their headers alone. Raises UserError where it is not whole."""
    refuse_stand_in(path)
    try:
        yield from (member for member in members_of(path) if not member.error)
    except OSError as error:
        raise UserError(f"{path}: {error}.") from None


def _read_tar(path: Path, options: ReadOptions, split: str) -> Sequence[Example]:
    def read() -> Sequence[Example]:
        samples = group(read_members(path), options)
        if not samples:
            looked = f"KEY.jpg (.png, ...) with KEY{', KEY'.join(SUFFIXES)}"
            raise UserError(f"{path}: no images in the tar. Looked for {looked}.")
        return examples_of(samples, options, where=str(path), split=lambda key: split, name=lambda key, _: key)

    return kept([path], options, (str(path), split), read, least=LEAST_KEPT)


FORMAT = Format("webdataset", read_webdataset, find_tars, kind="", looked_for=".tar files (WebDataset)")
