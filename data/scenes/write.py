"""The embedded data set as files: JPEG images and a metadata.jsonl, as Hugging Face's imagefolder reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

from latentcap.data.errors import UserError
from latentcap.data.scenes.paint import paint_scene
from latentcap.data.scenes.words import ask, describe
from latentcap.data.scenes.world import sample_scene

HELD_OUT_SHARE = 0.3  # of val and test scenes, those that show a reserved pair
CONTEXT_SHARE = 0.5


def render_scenes(
    folder: str | Path,
    *,
    train: int = 2000,
    val: int = 300,
    test: int = 300,
    size: int = 128,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw the data set and write ``SPLIT/NUMBER.jpg`` files and ``metadata.jsonl``.

    Every line of the metadata holds ``file_name``, five ``captions``, ``split`` (train, val or test), ``held_out``
    (true where a pair of colour and shape is shown that training never shows) and, for half of the images,
    ``context``: a question that the captions answer. Image and text depend on the seed, the split and the number
    alone, so that a larger set begins with a smaller one.

    Args:
        folder: created where missing; files of the same names are replaced.
        train, val, test: numbers of images.
        size: width and height in pixels, 32 or more.
        seed: the same seed gives the same files, byte for byte.
        progress: called with (images written, images in all) after each image.

    Returns:
        The path of ``metadata.jsonl``, which is written last.

    Raises:
        UserError: for a negative number of images, no images at all, or a size that is too small to draw in.
    """
    counts = {"train": train, "val": val, "test": test}
    if min(counts.values()) < 0 or not any(counts.values()):
        raise UserError(f"scenes: train={train}, val={val}, test={test}: give numbers of images, at least one above 0.")
    if size < 32:
        raise UserError(f"scenes: size={size} is too small to draw in; the smallest is 32 pixels, the usual 128.")
    root, total, lines = Path(folder), sum(counts.values()), []
    for split, count in counts.items():
        if count:
            (root / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            random = Random(f"{seed}/{split}/{number}")
            scene = sample_scene(random, held_out=split != "train" and random.random() < HELD_OUT_SHARE)
            record: dict[str, object] = {"file_name": f"{split}/{number:05d}.jpg"}
            if random.random() < CONTEXT_SHARE:
                record["context"], record["captions"] = ask(scene, random)
            else:
                record["captions"] = describe(scene, random)
            record |= {"split": split, "held_out": scene.held_out}
            image = paint_scene(scene, random, size=size)
            image.save(root / str(record["file_name"]), quality=92, subsampling=0)
            lines.append(json.dumps(record) + "\n")
            if progress is not None:
                progress(len(lines), total)
    metadata = root / "metadata.jsonl"
    metadata.write_text("".join(lines), encoding="utf-8")
    return metadata
