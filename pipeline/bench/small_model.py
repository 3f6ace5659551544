"""A model that captions in milliseconds, with random weights, where what is looked at is everything around it."""

from __future__ import annotations

from pathlib import Path

import torch

from latentcap.captioner import Captioner
from latentcap.config import BackboneConfig, DecoderConfig, FusionConfig, ModelConfig
from latentcap.data.batches.image_config import ImageConfig
from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.model.caption_model import CaptionModel

WORDS = "a red green blue circle square star left right of the on and large small two three"
SIDE, WIDTH, LOUDER = 64, 32, 3.0


def small_model(folder: Path) -> Path:
    """Save it, the same each time; its captions differ from image to image. Returns the folder."""
    torch.manual_seed(0)
    config = ModelConfig(
        backbone=BackboneConfig(name="test_efficientnet", weights="random", image_size=SIDE),
        fusion=FusionConfig(visual_heads=2, text_heads=2),
        decoder=DecoderConfig(embed_dim=WIDTH, hidden_dim=WIDTH, max_length=8),
    )
    tokenizer = CaptionTokenizer.train([WORDS])
    model = CaptionModel(config, vocab_size=len(tokenizer), fields=None)
    with torch.no_grad():  # as they begin, models say nearly the same of all images
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and not name.startswith("backbone."):
                parameter.mul_(LOUDER)
        torch.nn.init.normal_(model.decoder.embedding.weight)
    image = ImageConfig(size=(SIDE, SIDE), mean=(0.5,) * 3, std=(0.5,) * 3)
    Captioner(model, tokenizer=tokenizer, image=image).save(folder)
    return folder
