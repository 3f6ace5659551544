"""Image geometry and normalisation, against torchvision's and by their meaning."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latentcap.data.batches.augmentation import Augmentation, VariedImage
from latentcap.data.batches.image_config import INTERPOLATIONS, ImageConfig
from latentcap.data.batches.transforms import VECTORISED, decode_for, eval_transform, load_image
from latentcap.data.errors import UserError
from latentcap.data.example import ImageRef
from tests.helpers import picture


def encoded(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


@pytest.mark.parametrize("interpolation", VECTORISED)
@pytest.mark.parametrize("size", [(300, 200), (90, 61)])
def test_fast_resizing_is_pillows_but_for_roundings(interpolation: str, size: tuple[int, int]) -> None:
    config = ImageConfig(size=(128, 96), mean=(0.0,) * 3, std=(1.0,) * 3, interpolation=interpolation)
    image = picture(*size)
    ours = eval_transform(config)(image).mul(255).round()
    theirs = np.array(image.resize((96, 128), INTERPOLATIONS[interpolation])).transpose(2, 0, 1)
    away = (ours - torch.from_numpy(theirs)).abs()
    assert away.max() <= 2
    assert away.mean() < 0.02


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
@pytest.mark.parametrize("crop_mode", ["resize", "crop"])
@pytest.mark.parametrize("size", [(300, 200), (200, 301), (90, 61), (128, 128)])
def test_eval_equals_torchvision_exactly(interpolation: str, crop_mode: Any, size: tuple[int, int]) -> None:
    from torchvision.transforms import InterpolationMode, v2

    config = ImageConfig(size=(128, 128), interpolation=interpolation, crop_mode=crop_mode, crop_pct=0.875)
    mode = InterpolationMode(interpolation)
    geometry = (
        [v2.Resize((128, 128), interpolation=mode)]
        if crop_mode == "resize"
        else [v2.Resize(146, interpolation=mode), v2.CenterCrop(128)]
    )
    if interpolation in VECTORISED:
        geometry.insert(0, v2.ToImage())  # on bytes of a tensor, not by Pillow
    theirs = v2.Compose(
        [*geometry, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(config.mean, config.std)]
    )
    image = picture(*size)
    ours = eval_transform(config)(image)
    assert ours.dtype == torch.float32
    assert torch.equal(ours, theirs(image).as_subclass(torch.Tensor))


@pytest.mark.parametrize(("interpolation", "away"), [("lanczos", 0), ("bicubic", 2 / 255)])
def test_eval_crop_equals_timm(interpolation: str, away: float) -> None:
    import timm.data

    data_config: dict[str, Any] = {
        "input_size": (3, 96, 96),
        "interpolation": interpolation,
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.2, 0.1),
        "crop_pct": 0.9,
        "crop_mode": "center",
    }
    config = ImageConfig.from_timm(data_config, crop_mode="crop")
    image = picture(257, 190)
    theirs = timm.data.create_transform(**data_config, is_training=False)(image)
    assert torch.allclose(eval_transform(config)(image), theirs, atol=1e-6 + away / min(config.std))


def test_pad_shows_the_whole_picture_on_the_mean_colour() -> None:
    config = ImageConfig(size=(60, 80), crop_mode="pad")
    wide = eval_transform(config)(Image.new("RGB", (400, 100), "white"))
    white = (1 - torch.tensor(config.mean)) / torch.tensor(config.std)
    assert wide.shape == (3, 60, 80)
    assert torch.allclose(wide[:, 20:40], white.view(3, 1, 1).expand(3, 20, 80))
    assert wide[:, :20].abs().max() < 0.01
    assert wide[:, 40:].abs().max() < 0.01


@pytest.mark.parametrize("crop_mode", ["resize", "crop", "pad"])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (37, 53)])
def test_any_image_size_fits(crop_mode: Any, size: tuple[int, int]) -> None:
    config = ImageConfig(size=(48, 32), crop_mode=crop_mode, crop_pct=0.9)
    assert eval_transform(config)(picture(*size)).shape == (3, 48, 32)
    assert VariedImage(config, Augmentation(rotate90=True))(picture(*size), seed=1).shape == (3, 48, 32)


def test_grey_backbones_get_one_channel() -> None:
    timm_config = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.25,) * 3, "interpolation": "bilinear"}
    config = ImageConfig.from_timm(timm_config, in_chans=1, crop_mode="pad")
    assert config.in_chans == 1
    assert config.mean == pytest.approx((0.5,))
    out = eval_transform(config)(Image.new("RGB", (20, 10), (64, 64, 64)))
    assert out.shape == (1, 32, 32)
    assert out[0, 16].mean().item() == pytest.approx((64 / 255 - 0.5) / 0.25, abs=1e-5)
    assert VariedImage(config, Augmentation())(picture(), seed=1).shape == (1, 32, 32)


def test_config_survives_json_and_pickle() -> None:
    import json

    config = ImageConfig(size=(40, 50), mean=(0.1,), std=(0.2,), crop_mode="pad", crop_pct=0.9)
    assert ImageConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    image = picture()
    transform, varied = eval_transform(config), VariedImage(config, Augmentation(color_jitter=0))
    assert torch.equal(pickle.loads(pickle.dumps(transform))(image), transform(image))
    assert torch.equal(pickle.loads(pickle.dumps(varied))(image, 7), varied(image, 7))


def test_large_jpegs_are_decoded_small_and_look_the_same() -> None:
    config = ImageConfig(size=(64, 64))
    large = picture(1000, 800)
    data = encoded(large, format="JPEG", quality=95)
    small = decode_for(data, config)
    assert small.size == (250, 200)
    difference = (eval_transform(config)(small) - eval_transform(config)(large)).abs()
    assert difference.mean().item() * 0.225 * 255 < 1.5  # grey levels
    assert decode_for(encoded(large, format="PNG"), config).size == (1000, 800)
    assert decode_for(encoded(picture(120, 100), format="JPEG"), config).size == (120, 100)


def test_load_image_turns_upright_and_reads_grey() -> None:
    config = ImageConfig(size=(32, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    turned = ImageRef("x.jpg", data=encoded(picture(600, 400), format="JPEG", exif=exif))
    assert load_image(turned, config).size == (100, 150)
    grey = load_image(ImageRef("x.jpg", data=encoded(picture(600, 400).convert("L"), format="JPEG")), config)
    assert grey.mode == "RGB"


@pytest.mark.parametrize("data", [b"", b"no image", encoded(picture(), format="JPEG")[:2000], b"\x89PNG\r\n\x1a\n" * 9])
def test_broken_images_raise_oserror(data: bytes) -> None:
    with pytest.raises(OSError, match=r".+"):
        load_image(ImageRef("broken", data=data), ImageConfig())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crop_mod": "pad"}, "Did you mean 'crop_mode'"),
        ({"crop_mode": "centre"}, "resize, crop, pad"),
        ({"interpolation": "cubic"}, "Did you mean 'bicubic'"),
        ({"size": [224]}, "height and width"),
        ({"mean": [0.5]}, "3 values each"),
        ({"std": [0.1, 0.1, 0.0]}, "positive"),
        ({"crop_pct": 1.2}, "at most 1"),
    ],
)
def test_mistakes_in_image_settings(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ImageConfig.from_dict(values)


def test_captioning_does_not_import_torchvision() -> None:
    code = "import sys, latentcap.data.batches.transforms; sys.exit('torchvision' in sys.modules)"
    root = Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


@pytest.mark.skipif("LATENTCAP_DATA" not in os.environ, reason="set LATENTCAP_DATA to a folder with chest X-rays")
def test_real_xrays() -> None:
    paths = sorted((Path(os.environ["LATENTCAP_DATA"]) / "iu_xray" / "images").glob("*.png"))
    config = ImageConfig(size=(96, 96), crop_mode="pad")
    for path in paths:
        out = eval_transform(config)(load_image(ImageRef(str(path)), config))
        assert out.isfinite().all()
        assert out.std() > 0.1
    assert paths
