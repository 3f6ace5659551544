"""Captioners of transformers, built from their configurations: random weights cost as much as trained ones."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from latentcap.data.example import ImageRef

CLIP = ((0.481, 0.458, 0.408), (0.269, 0.261, 0.276))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass
class Rival:
    """A model with the preprocessing of its own processor.

    Attributes:
        name: as people know it.
        goal: how many times faster ours is to be.
        image_size: side of its input in pixels.
        colours: mean and standard deviation of each channel.
        resample: how its processor resizes.
    """

    name: str
    goal: float
    model: nn.Module
    image_size: int
    colours: tuple[tuple[float, ...], tuple[float, ...]]
    resample: Image.Resampling = Image.Resampling.BICUBIC

    def pixels(self, images: Sequence[ImageRef]) -> Tensor:
        """JPEG files to the model's input (B, 3, H, W)."""
        pictures = []
        for image in images:
            with Image.open(io.BytesIO(image.read_bytes())) as picture:
                resized = picture.convert("RGB").resize((self.image_size, self.image_size), self.resample)
            pictures.append(torch.from_numpy(np.array(resized)))
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in self.colours)
        return (torch.stack(pictures).permute(0, 3, 1, 2) / 255 - mean) / std

    def caption(self, images: Sequence[ImageRef], *, beams: int, tokens: int) -> Tensor:
        """Token ids (B, ...), with exactly ``tokens`` new ones for each image."""
        parameter = next(self.model.parameters())
        pixels = self.pixels(images).to(parameter.device, parameter.dtype)
        length: dict[str, Any] = {"min_new_tokens": tokens, "max_new_tokens": tokens}
        with torch.inference_mode():
            return self.model.generate(  # type: ignore[operator]
                pixel_values=pixels, num_beams=beams, do_sample=False, **length
            )


def rivals(*, tiny: bool) -> list[Callable[[], Rival]]:
    """A builder of each, since building takes seconds; ``tiny`` ones only show that everything runs."""
    return [lambda: _blip(tiny=tiny), lambda: _vit_gpt2(tiny=tiny), lambda: _git(tiny=tiny)]


def _small(*, image_size: int | None = None) -> dict[str, Any]:
    settings = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return {**settings, "image_size": image_size, "patch_size": 16} if image_size else settings


def _blip(*, tiny: bool) -> Rival:
    from transformers import BlipConfig, BlipForConditionalGeneration

    size = 32 if tiny else 384
    vision: dict[str, Any] = {"initializer_range": 0.02, **(_small(image_size=size) if tiny else {"image_size": size})}
    text = {**_small(), "encoder_hidden_size": 16} if tiny else {}
    model = BlipForConditionalGeneration(BlipConfig(vision_config=vision, text_config=text))
    return Rival("BLIP-base", 30.0, model.eval(), size, CLIP)


def _vit_gpt2(*, tiny: bool) -> Rival:
    from transformers import GPT2Config, VisionEncoderDecoderConfig, VisionEncoderDecoderModel, ViTConfig

    size = 32 if tiny else 224
    text: dict[str, Any] = {"n_embd": 16, "n_layer": 1, "n_head": 2} if tiny else {}
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        ViTConfig(**_small(image_size=size)) if tiny else ViTConfig(image_size=size),
        GPT2Config(add_cross_attention=True, **text),
    )
    model = VisionEncoderDecoderModel(config)
    end = config.decoder.eos_token_id
    model.generation_config.update(decoder_start_token_id=end, pad_token_id=end, eos_token_id=end)
    return Rival("ViT-GPT2", 15.0, model.eval(), size, HALF, Image.Resampling.BILINEAR)


def _git(*, tiny: bool) -> Rival:
    from transformers import GitConfig, GitForCausalLM

    size = 32 if tiny else 224
    vision = _small(image_size=size) if tiny else {"image_size": size}
    model = GitForCausalLM(GitConfig(vision_config=vision, **(_small() if tiny else {})))
    return Rival("GIT-base", 20.0, model.eval(), size, CLIP)
