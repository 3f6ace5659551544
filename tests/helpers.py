"""Small things that several tests build on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latentcap.captioner import Captioner
from latentcap.cli.caption import main as caption
from latentcap.config import BackboneConfig, ContextConfig, DecoderConfig, FusionConfig, ModelConfig
from latentcap.data.batches.context import ContextFields
from latentcap.data.batches.image_config import ImageConfig
from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.model.caption_model import CaptionModel

WORDS = "a red green blue circle square star left right of the on and large small two three"


def tiny_config(**changes: object) -> ModelConfig:
    """A model that runs in milliseconds: 32 dimensions, timm's smallest test network, random weights."""
    settings: dict[str, object] = {
        "backbone": BackboneConfig(name="test_efficientnet", weights="random", image_size=64),
        "fusion": FusionConfig(visual_heads=2, text_heads=2),
        "decoder": DecoderConfig(embed_dim=32, hidden_dim=32, max_length=8),
        "context": ContextConfig(),
    }
    return ModelConfig(**{**settings, **changes})  # type: ignore[arg-type]


def tiny_tokenizer() -> CaptionTokenizer:
    return CaptionTokenizer.train([WORDS])


def tiny_captioner(*, fields: ContextFields | None = None, **changes: object) -> Captioner:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    model = CaptionModel(tiny_config(**changes), vocab_size=len(tokenizer), fields=fields)
    for parameter in (model.decoder.embedding.weight, model.decoder.bias):
        torch.nn.init.normal_(parameter)  # untrained models are too even to search in
    return Captioner(model, tokenizer=tokenizer, image=ImageConfig(size=(64, 64), mean=(0.5,) * 3, std=(0.5,) * 3))


def seeing_captioner(**changes: object) -> Captioner:
    """One whose label head sees, in each region, words of its vocabulary, and one more."""
    words = {"words": ["circle", "green", "kangaroo", "left", "red", "star"], "plane": ["axial", "coronal"]}
    shares = {"words": [0.3, 0.2, 0.01, 0.4, 0.25, 0.05]}
    captioner = tiny_captioner(label_pooling="regions", **changes)
    config = captioner.model.config
    model = CaptionModel(config, vocab_size=len(captioner.tokenizer), labels=words, label_lists=shares)
    model.load_state_dict(captioner.model.state_dict(), strict=False)
    assert model.labels is not None
    torch.nn.init.normal_(model.labels.heads[0].weight, std=0.3)
    return Captioner(model, tokenizer=captioner.tokenizer, image=captioner.image)


def real_data(name: str) -> Path:
    """A folder of real data, or a skip that says why."""
    root = os.environ.get("LATENTCAP_DATA")
    if not root:
        pytest.skip("LATENTCAP_DATA is not set: it names the folder with the public data sets")
    folder = Path(root, name)
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    return folder


def picture(width: int = 300, height: int = 200, seed: int = 0) -> Image.Image:
    """Smooth random colour."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def draw_clip(path: Path, shots: Sequence[Image.Image | str], *, seconds: float = 1.0, rate: int = 10) -> Path:
    """A video of 160 x 120 that shows each picture, or colour, for some seconds."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for shot in shots:
            image = Image.new("RGB", (160, 120), shot) if isinstance(shot, str) else shot.resize((160, 120))
            for _ in range(round(seconds * rate)):
                container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
    return path


class Program:
    """The program with one output file: its exit code, and the lines of the output and of the errors."""

    def __init__(self, model: Path, output: Path) -> None:
        self.model, self.output = model, output

    def __call__(self, *arguments: str | Path) -> int:
        given = ["--model", self.model, "--output", self.output, "--batch-size", "2", *arguments]
        return caption([str(argument) for argument in given])

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.read_text(encoding="utf-8").splitlines()]

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "errors.jsonl").read_text().splitlines()]

    @property
    def folder(self) -> Path:
        return self.output.with_name(self.output.name + ".run")

    @property
    def manifest(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "manifest.json").read_text()))
