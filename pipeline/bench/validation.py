"""What a validation costs beside the epoch before it: loss, worth of the image, and captions by beam search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from latentcap.bench.timing import Section, Setting, Spread, autocast, in_turns, milliseconds
from latentcap.config import BackboneConfig, ContextConfig, DecoderConfig, ModelConfig
from latentcap.data.batches.context import ContextBatch
from latentcap.data.batches.datamodule import EVAL_BATCH_ON_A_GPU
from latentcap.data.batches.dataset import Batch
from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.data.example import Example, ImageRef
from latentcap.inference.precision import fast_dtype
from latentcap.model.caption_model import CaptionModel
from latentcap.search.config import SearchConfig
from latentcap.training.losses import training_loss
from latentcap.training.module import CaptionModule
from latentcap.training.optim import OptimConfig, build_optimizer

TRAINED, VALIDATED = 6000, 1000  # images
GOAL = 0.1  # of an epoch


class Alone(CaptionModule):
    """The module without a trainer: what it logs goes nowhere."""

    def log(self, *values: Any, **settings: Any) -> None:
        pass

    def _examples(self, batch: Batch, split: str) -> list[Example]:
        return [
            Example(id=str(index), images=(ImageRef("x.jpg"),), captions=("a b",)) for index in batch.index.tolist()
        ]


def beside_an_epoch(setting: Setting) -> Section:
    """Two rows for cached regions, by how many captions of an image a step has; one for a CNN trained in part."""
    quick = setting.quick
    name, size, words, images = ("test_efficientnet", 64, 5, 4) if quick else ("tf_efficientnet_lite2", None, 12, 64)
    section = Section(f"A validation of {VALIDATED:,} images beside an epoch of {TRAINED:,}")
    dtype = fast_dtype(setting.device)
    last = 2 if quick else 7
    cases = (("decoder", "none", 2), ("decoder", "none", 5), ("decoder and the CNN's last layers", last, 2))
    for trained, layers, captions in cases:
        setting.say(f"validation: {trained}, {captions} captions an image")
        torch.manual_seed(0)
        tokenizer = CaptionTokenizer.train([" ".join(f"word{number}" for number in range(50 if quick else 2996))] * 5)
        config = ModelConfig(
            backbone=BackboneConfig(name=name, weights="random", image_size=size, trainable=layers),
            context=ContextConfig(encoder="none"),
            decoder=DecoderConfig(max_length=words),
        )
        module = Alone(config, search=SearchConfig(max_length=words, min_length=words))
        module.model = CaptionModel(config, vocab_size=len(tokenizer)).to(setting.device)
        module.tokenizer = tokenizer
        module.metrics.to(setting.device)
        module.worth.to(setting.device)
        device = setting.device
        many = EVAL_BATCH_ON_A_GPU if device.type == "cuda" else images
        taught = _batch(module.model, images, captions, words, device)
        shown = _batch(module.model, many, 1, words, device)
        calls = {"step": _step(module.model, taught, dtype), "validation": _validation(module, shown, dtype)}
        # one after the other, not in turns: a validation folds the decoder once, for all its batches
        times = {name: in_turns({name: call}, setting)[name] for name, call in calls.items()}
        share = [
            VALIDATED * seen / many / (TRAINED * done / images) for done, seen in zip(*times.values(), strict=True)
        ]
        section.rows.append(
            {
                "trained": trained,
                "captions of an image": captions,
                "precision": str(dtype).removeprefix("torch."),
                "step ms": milliseconds(times["step"]),
                f"validation of {many} images ms": milliseconds(times["validation"]),
                "share of the epoch": Spread.of(share),
                "goal": GOAL,
                "met": Spread.of(share).median <= GOAL,
            }
        )
    section.notes = [
        f"A step: {images} images with captions of {words} words; forward, backward, clipping and AdamW.",
        f"Validation: loss and the worth of the image on one caption of {words} words, and beam 3 for as many. No "
        "context.",
        f"{name}; what its frozen layers give is cached. A vocabulary of {len(tokenizer):,} words.",
    ]
    return section


def _batch(model: CaptionModel, images: int, captions: int, words: int, device: torch.device) -> Batch:
    tokens = torch.randint(4, len(model.decoder.bias), (images, captions, words + 2))
    tokens[..., 0] = 1
    split = model.backbone.split if model.config.backbone.trainable != "none" else None
    height, width, channels = (*model.backbone.grid, model.backbone.num_channels) if split is None else split.shape
    values = torch.rand(images, height * width, channels, device=device)
    none = torch.zeros(images, 0, device=device)
    return Batch(
        tokens=tokens.to(device),
        context=ContextBatch(none.long(), none.bool(), none, none.long()),
        view_mask=torch.ones(images, 1, dtype=torch.bool, device=device),
        index=torch.arange(images, device=device),
        references=[["a b"]] * images,
        **{"regions" if split is None else "cells": values},
    )


def _step(model: CaptionModel, batch: Batch, dtype: torch.dtype) -> Callable[[], None]:
    settings = OptimConfig()
    optimizer = build_optimizer(model.named_parameters(), settings)
    learning: Sequence[nn.Parameter] = [entry for group in optimizer.param_groups for entry in group["params"]]

    def step() -> None:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        with autocast(batch.tokens.device, dtype):
            memory = model.encode(**batch.inputs())
            loss, _ = training_loss(model, memory, batch.tokens, labels=(), settings=settings, progress=0.0)
        loss.backward()
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()

    return step


def _validation(module: CaptionModule, batch: Batch, dtype: torch.dtype) -> Callable[[], None]:
    assert module.model is not None
    model = module.model

    def validate() -> None:
        model.eval()
        with torch.inference_mode(), autocast(batch.tokens.device, dtype):
            module.validation_step(batch, 0)
        module.captions.clear()
        module.metrics.reset()

    return validate
