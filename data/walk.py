"""What is in a folder, to any depth, for programs that read strangers' folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

RUN = ".run"  # a run's own folder, beside the output that it belongs to
MANIFEST, MARK = "manifest.json", b"latentcap-run"


def own_outputs(folder: str, names: Iterable[str]) -> set[str]:
    """Those of the names in a folder that are outputs of captioning, or their run folders: never an input."""
    runs = [name for name in names if name.endswith(RUN) and _is_run(os.path.join(folder, name))]
    return {*runs, *(name.removesuffix(RUN) for name in runs)}


def files_below(root: str | os.PathLike[str]) -> Iterator[str]:
    """Paths relative to ``root`` of all files below it, folder by folder, sorted; hidden ones and our outputs left out.

    Links to folders are not followed.
    """
    for place, folders, names in os.walk(root):
        left_out = own_outputs(place, [*folders, *names])
        folders[:] = sorted(name for name in folders if name not in left_out and not name.startswith("."))
        inside = os.path.relpath(place, root)
        for name in sorted(names):
            if name not in left_out and not name.startswith("."):
                yield name if inside == "." else os.path.join(inside, name)


def _is_run(folder: str) -> bool:
    try:
        with open(os.path.join(folder, MANIFEST), "rb") as file:
            return MARK in file.read(4096)
    except OSError:
        return False
