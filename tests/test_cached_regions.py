"""Evaluation reads the very regions that training cached."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from latentcap.data.example import Example, ImageRef
from latentcap.evaluation.baselines import mean_regions, write_captions
from latentcap.training.cached_regions import cached_regions
from tests.helpers import tiny_captioner


def test_captions_from_cached_regions_are_those_from_images(tmp_path: Path) -> None:
    examples = []
    for place, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{colour}.png")
        examples.append(Example(colour, (ImageRef(str(tmp_path / f"{colour}.png")),), context=f"square {place}"))
    (tmp_path / "broken.png").write_bytes(b"no image")
    captioner = tiny_captioner()
    broken = Example("broken", (ImageRef(str(tmp_path / "broken.png")),))
    regions = cached_regions(captioner, [*examples, broken], tmp_path / "cache")
    assert regions.usable([*examples, broken]) == [True, True, True, False]
    written = write_captions(captioner, regions, examples)
    direct = captioner.caption([example.images[0] for example in examples], [e.context for e in examples])
    assert written.texts == [caption.text for caption in direct]
    means = mean_regions(regions, examples)
    assert means.shape == (3, captioner.model.backbone.num_channels)
    assert not torch.allclose(means[0], means[1])
