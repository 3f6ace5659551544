"""What is in a folder, to any depth, for programs that read strangers' folders."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator

RUN = ".run"  # a run's own folder, beside the output that it belongs to
MANIFEST, MARK = "manifest.json", b"latentcap-run"
TEXTS = ("txt", "caption", "xmp", "srt", "vtt")  # formats of texts, whose folder may be one of images


def own_outputs(folder: str, names: Iterable[str], *, texts: bool = False) -> set[str]:
    """Those of the names in a folder that are outputs of captioning, or their run folders: never an input.

    With ``texts`` folders that texts were written into are too. They hide what else is there, so that captions of ours
    are not taken for somebody's; where images alone are looked for, there is nothing to hide.
    """
    formats = {name: _format_of(os.path.join(folder, name)) for name in names if name.endswith(RUN)}
    runs = [name for name, kind in formats.items() if kind is not None]
    return {*runs, *(name.removesuffix(RUN) for name in runs if texts or formats[name] not in TEXTS)}


def is_own_output(path: str) -> bool:
    """Whether a file or folder is one of :func:`own_outputs`."""
    folder, name = os.path.split(path)
    return name in own_outputs(folder, [name, name + RUN])


def files_below(root: str | os.PathLike[str]) -> Iterator[str]:
    """Paths relative to ``root`` of all files below it, folder by folder, sorted; hidden ones and our outputs left out.

    Links to folders are not followed.
    """
    for place, folders, names in os.walk(root):
        left_out = own_outputs(place, [*folders, *names], texts=True)
        folders[:] = sorted(name for name in folders if name not in left_out and not name.startswith("."))
        inside = os.path.relpath(place, root)
        for name in sorted(names):
            if name not in left_out and not name.startswith("."):
                yield name if inside == "." else os.path.join(inside, name)


def _format_of(folder: str) -> str | None:
    """The format that a run folder is of, "" where it does not say; None for a folder that is none."""
    try:
        with open(os.path.join(folder, MANIFEST), "rb") as file:
            content = file.read()
    except OSError:
        return None
    if MARK not in content[:4096]:
        return None
    try:
        return str(json.loads(content)["settings"]["format"])
    except (ValueError, KeyError, TypeError):
        return ""
