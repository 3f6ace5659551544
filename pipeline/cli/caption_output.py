"""Where captions go: the output that the options name, and the run folder beside it."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from latentcap.batch.outputs import BESIDE, Output, make_output
from latentcap.batch.run_folder import RunFolder
from latentcap.batch.shards import Shard
from latentcap.data.archives import is_archive
from latentcap.data.errors import UserError
from latentcap.data.kinds import is_image, is_video


def choose_output(options: argparse.Namespace, kind: str, shard: Shard) -> tuple[Output, RunFolder]:
    """The output and its run folder, ``OUTPUT.run``; ``PHOTOS.txt.run`` where texts stand among the images, which stay
    inputs of other runs and may have captions in several formats."""
    path = options.output
    if path is not None and path.is_file() and is_source(path, options.images):
        raise UserError(f"--output {path}: is what is to be captioned, and would be written over. Choose another.")
    if path is not None and kind not in BESIDE:
        path = shard.output(path)  # each part has an output of its own
    if path is None:
        only = options.images[0].removeprefix("@") if len(options.images) == 1 and options.images[0] != "-" else ""
        base = Path(os.path.abspath(only)) if os.path.exists(only) else Path("captions")
    else:
        base = Path(os.path.abspath(path))
    among = path is None or holds_any(path, options.images)
    run = base.parent / f"{base.name or 'captions'}{f'.{kind}' if among else ''}.run"
    if kind in BESIDE:
        run = shard.output(run)
    if path is not None and path.exists() and not (path.is_file() or path.is_dir()):
        run = Path(tempfile.mkdtemp(prefix="captions-")) / "captions.run"  # a pipe or terminal: nothing to go on with
    output = make_output(
        path,
        run,
        kind,
        num_captions=options.num_captions or 1,
        existing=options.existing,
        separator=options.separator,
        xmp_name=options.xmp_name,
        image_ids=options.image_ids,
        keep_identifiers=options.keep_identifiers,
    )
    return output, RunFolder(run, output=str(output))


def holds_any(folder: Path, images: Sequence[str]) -> bool:
    """Whether some of the images lie in a folder that is written into."""
    place = folder.resolve()
    return folder.is_dir() and any(Path(path).resolve().is_relative_to(place) for path in images)


def is_source(file: Path, images: Sequence[str]) -> bool:
    """Whether a file is among what is captioned, or could be."""
    if is_image(file.name) or is_video(file.name) or is_archive(file.name):
        return True
    named = (path.removeprefix("@") for path in images)
    return any(os.path.exists(path) and os.path.samefile(path, file) for path in named)
