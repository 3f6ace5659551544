"""How training pictures vary: within bounds, and by their seed alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latentcap.data.batches.augmentation import Augmentation, VariedImage
from latentcap.data.batches.image_config import ImageConfig
from latentcap.data.batches.transforms import eval_transform
from latentcap.data.errors import UserError
from tests.helpers import picture


def test_training_depends_on_the_seed_alone() -> None:
    augmentation = Augmentation(horizontal_flip=0.5, vertical_flip=0.5, rotate90=True)
    transform = VariedImage(ImageConfig(size=(32, 32)), augmentation)
    image = picture()
    before = image.copy()
    first, second = transform(image, 3), transform(image, 4)
    torch.manual_seed(8)
    assert torch.equal(first, transform(image, 3))
    assert torch.equal(second, transform(image, 4))
    assert not torch.equal(first, second)
    assert image == before


def test_the_seed_0_leaves_a_picture_as_it_is() -> None:
    config = ImageConfig(size=(32, 32))
    assert torch.equal(VariedImage(config, Augmentation())(picture()), eval_transform(config)(picture()))


def test_nothing_set_means_nothing_changed() -> None:
    config = ImageConfig(size=(32, 48), crop_mode="pad")
    still = Augmentation(scale=(1.0, 1.0), color_jitter=0.0)
    for seed in range(5):
        image = picture(seed=seed)
        assert torch.equal(VariedImage(config, still)(image, seed + 1), eval_transform(config)(image))


def variants(augmentation: Augmentation, image: Image.Image, count: int = 64) -> list[torch.Tensor]:
    config = ImageConfig(size=(image.height, image.width), mean=(0.0,) * 3, std=(1.0,) * 3)
    return [VariedImage(config, augmentation)(image, seed) for seed in range(1, count + 1)]


@pytest.mark.parametrize(
    ("options", "count"),
    [({}, 1), ({"horizontal_flip": 0.5}, 2), ({"vertical_flip": 0.5}, 2), ({"rotate90": True}, 4)],
)
def test_flips_and_turns_are_off_unless_set_and_only_rearrange(options: dict[str, Any], count: int) -> None:
    still: dict[str, Any] = {"scale": (1.0, 1.0), "color_jitter": 0.0}
    out = variants(Augmentation(**still, **options), picture(24, 24))
    assert len({x.numpy().tobytes() for x in out}) == count
    assert all(torch.equal(x.flatten().sort().values, out[0].flatten().sort().values) for x in out)


def test_crop_keeps_the_asked_for_area() -> None:
    """On a picture of its own coordinates, a crop's extent can be read off its pixels."""
    y, x = np.mgrid[0:200, 0:200].astype(np.uint8)
    image = Image.fromarray(np.stack([x, y, x], axis=-1))
    for out in variants(Augmentation(scale=(0.3, 0.5), color_jitter=0.0), image):
        red, green = (out[i].max().item() - out[i].min().item() for i in (0, 1))
        assert 0.27 < red * green * (255 / 200) ** 2 < 0.53


def test_colour_jitter_changes_colour_within_bounds() -> None:
    image = Image.new("RGB", (8, 8), (100, 100, 100))
    out = variants(Augmentation(scale=(1.0, 1.0), color_jitter=0.2), image)
    means = [x.mean().item() * 255 for x in out]
    assert min(means) >= 79
    assert max(means) <= 121
    assert max(means) - min(means) > 20


@pytest.mark.parametrize(
    "values", [{"scale": (1.0, 0.5)}, {"scale": (0.0, 0.5)}, {"ratio": (0.0, 1.0)}, {"horizontal_flip": 2.0}]
)
def test_mistakes_in_augmentation(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(values))):
        Augmentation(**values)


def test_small_turns_and_shifts_move_the_picture_and_keep_its_sides() -> None:
    config = ImageConfig(size=(64, 64), mean=(0.0,) * 3, std=(1.0,) * 3)
    image = Image.new("RGB", (64, 64), "black")
    image.paste((255, 255, 255), (10, 28, 18, 36))  # left of the middle
    still: dict[str, Any] = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "color_jitter": 0.0}
    plain = VariedImage(config)(image)
    moved = VariedImage(config, Augmentation(**still, turn=10, shift=0.1))
    places = []
    for seed in range(1, 31):
        found = moved(image, seed)[0] > 0.5
        assert 40 < int(found.sum()) < 90  # nothing is lost, nothing is stretched
        places.append(found.nonzero().float().mean(0))
    spread = torch.stack(places) - (plain[0] > 0.5).nonzero().float().mean(0)
    assert (spread.abs() < 0.1 * 64 + 5).all()
    assert (spread.std(0) > 1).all()
    assert (torch.stack(places)[:, 1] < 32).all()
    for wrong in ({"turn": 200}, {"shift": 2.0}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            Augmentation(**wrong)  # type: ignore[arg-type]
