"""Training settings, and which part of the model learns when and how fast."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import increment_version

from latentcap.data.errors import UserError, did_you_mean
from latentcap.training.trainer_settings import check_range

RANGES = {
    **dict.fromkeys(("lr", "backbone_lr", "context_lr", "fusion_lr", "decoder_lr", "weight_decay"), math.inf),
    **dict.fromkeys(("caption_weight", "label_weight", "attention_penalty"), math.inf),
    **dict.fromkeys(("warmup", "final_lr", "label_smoothing", "scheduled_sampling", "teacher_weight"), 1.0),
}
PARTS = ("backbone", "context", "fusion", "decoder", "labels")
REWARDED = ("CIDEr-D", "ROUGE-L", "METEOR", "CheXpert")  # of captions that a model samples of itself
REWARDS = {"CIDEr-D": 1.0, "METEOR": 2.0}


@dataclass
class OptimConfig:
    """How the model is trained.

    Attributes:
        lr: peak learning rate of everything but the pre-trained parts.
        backbone_lr: of the backbone where it is trainable.
        context_lr: of a transformers context encoder where it is trainable.
        fusion_lr: of the fusion layer; None is ``lr``.
        decoder_lr: of the decoder (and the layers that no other part has); None is ``lr``.
        frozen: parts that stay as they are in ``start_from``: ``context``, ``fusion``, ``decoder``, ``labels`` (the
            label head). The backbone and a transformers encoder have switches of their own, ``backbone.trainable`` and
            ``context.trainable``.
        start_epoch: staged unfreezing: the epoch from which a part is trained, as ``{fusion: 2, backbone: 5}``; parts
            that are not named are trained from the start.
        weight_decay: on matrices; biases, norms and embeddings have none.
        warmup: share of all steps in which the rate rises to its peak, before it falls along a cosine.
        final_lr: share of the peak that is left at the end.
        label_smoothing: probability spread over the whole vocabulary.
        caption_weight: weight of the captions' loss; 0 trains the label head (and the backbone, where it is trainable)
            alone, on examples without captions too: a first stage on many labelled images.
        label_weight: weight of the label head's loss, where ``data.fields.labels`` names labels; 0 builds no head.
        attention_penalty: weight of the doubly stochastic term (Xu et al. 2015, equation 14): each region should get
            about as much attention over a caption as any other.
        scheduled_sampling: probability, at the end of training, that an input word is the model's own guess; it rises
            from 0. Guesses come from a first parallel pass (Mihaylova & Martins 2019), so there is no loop over time.
        teachers: model folders whose probabilities of each word and label are learned, too (:class:`Teachers`): of
            other seeds, say, with the same words, labels and CNN.
        teacher_weight: how much of what is learned they give; the rest are the true words and labels.
        self_critical: train on this many captions that the model samples of each image, and rewards, in place of the
            true ones (2 or more; for fine-tuning a trained model at a tenth of its rate). 0 is off.
        self_critical_epoch: the epoch from which it does, so that one run learns from true captions first.
        rewards: what a sampled caption earns: weights of CIDEr-D (0 to 10), ROUGE-L, METEOR (exact matches; 0 to 1)
            and, for chest X-ray reports, CheXpert (F1 of the observations, rare ones counting more; 0 to 1).
    """

    lr: float = 1e-3
    backbone_lr: float = 1e-4
    context_lr: float = 2e-5
    fusion_lr: float | None = None
    decoder_lr: float | None = None
    frozen: list[str] = field(default_factory=list)
    start_epoch: dict[str, int] = field(default_factory=dict)
    weight_decay: float = 0.01
    warmup: float = 0.1
    final_lr: float = 0.01
    label_smoothing: float = 0.1
    caption_weight: float = 1.0
    label_weight: float = 0.0
    attention_penalty: float = 0.0
    scheduled_sampling: float = 0.0
    teachers: list[str] = field(default_factory=list)
    teacher_weight: float = 0.7
    self_critical: int = 0
    self_critical_epoch: int = 0
    rewards: dict[str, float] = field(default_factory=lambda: dict(REWARDS))

    def __post_init__(self) -> None:
        for name, most in RANGES.items():
            value = getattr(self, name)
            if value is not None:
                check_range(f"model.optim.{name}", value, 0, most)
        for name in (*self.frozen, *self.start_epoch):
            if name not in PARTS:
                raise UserError(
                    f"model.optim knows no part '{name}'.{did_you_mean(name, PARTS)} Parts: {', '.join(PARTS)}."
                )
        if "backbone" in self.frozen:
            raise UserError("model.optim.frozen lists the backbone: set model.model.backbone.trainable to 'none'.")
        for name, weight in self.rewards.items():
            if name not in REWARDED:
                raise UserError(
                    f"model.optim.rewards names '{name}'.{did_you_mean(name, REWARDED)} Rewards: {', '.join(REWARDED)}."
                )
            check_range(f"model.optim.rewards.{name}", weight, 0, math.inf)
        if not any(self.rewards.values()):
            raise UserError(
                f"model.optim.rewards gives nothing a weight: give one of {', '.join(REWARDED)} a weight above 0."
            )
        if not self.caption_weight and not self.label_weight:
            raise UserError(
                "model.optim.caption_weight and model.optim.label_weight are both 0: nothing would be learned. Set one "
                "of them above 0."
            )
        if self.teachers and self.self_critical and not self.self_critical_epoch:
            raise UserError(
                "model.optim.teachers teach true words, and this run learns from rewards alone: set "
                "model.optim.self_critical_epoch above 0, or leave teachers out."
            )
        if self.self_critical == 1 or self.self_critical < 0:
            raise UserError(
                f"model.optim.self_critical is {self.self_critical}: each sample is measured against the image's "
                "others, so 2 or more are needed; 0 turns it off."
            )


def part_of(name: str) -> str:
    """The part that a parameter of :class:`CaptionModel` belongs to, by its name there."""
    if name.startswith("backbone."):
        return "backbone"
    if name.startswith(("context.", "summarise_context.")):
        return "context"
    if name.startswith("labels."):
        return "labels"
    return "fusion" if name.startswith("decoder.fusion.") else "decoder"


def learns_labels(settings: OptimConfig) -> bool:
    """Whether labels teach anything, the label head or the layers below it."""
    rewarded_throughout = settings.self_critical > 0 and settings.self_critical_epoch == 0
    return settings.label_weight > 0 and "labels" not in settings.frozen and not rewarded_throughout


class Stages:
    """Which parameters learn at an epoch. What the model's own settings have frozen is never touched."""

    def __init__(self, model: nn.Module, settings: OptimConfig) -> None:
        self.start_epoch = settings.start_epoch
        for name, parameter in model.named_parameters():
            if part_of(name) in settings.frozen:
                parameter.requires_grad_(False)
        self.parts: dict[str, list[nn.Parameter]] = {part: [] for part in PARTS}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                self.parts[part_of(name)].append(parameter)
        for part in self.start_epoch:
            if not self.parts[part]:
                switch = (
                    "model.model.backbone.trainable: all" if part == "backbone" else "model.optim.frozen without it"
                )
                raise UserError(
                    f"model.optim.start_epoch names {part}, which is not trained at all. Set {switch}, or leave it "
                    "frozen and out of start_epoch (--model.optim.start_epoch {} starts every part at once)."
                )

    def enter(self, epoch: int) -> list[str]:
        """Turn gradients on and off for an epoch; returns the parts that start to learn in it."""
        for part, first in self.start_epoch.items():
            for parameter in self.parts[part]:
                parameter.requires_grad_(epoch >= first)
        return [part for part, first in self.start_epoch.items() if first == epoch > 0]


def build_optimizer(parameters: Iterable[tuple[str, nn.Parameter]], settings: OptimConfig) -> torch.optim.AdamW:
    """AdamW with a group for each rate and decay. ``parameters``: of :class:`CaptionModel`, with their names there."""
    rates: Mapping[str, float | None] = {
        "backbone": settings.backbone_lr,
        "encoder": settings.context_lr,
        "fusion": settings.fusion_lr,
        "decoder": settings.decoder_lr,
    }
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in parameters:
        if parameter.requires_grad:
            part = "encoder" if name.startswith("context.encoder.") else part_of(name)
            part = "rest" if rates.get(part) is None else part
            decays = parameter.ndim >= 2 and "embedding" not in name
            groups.setdefault((part, decays), []).append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {
                "params": group,
                "lr": rate if (rate := rates.get(part)) is not None else settings.lr,
                "weight_decay": settings.weight_decay if decays else 0.0,
                "name": part + ("" if decays else " without decay"),
                # A quarter of the time. For the whole optimizer, in place of its groups, Lightning would not clip.
                "fused": all(parameter.is_cpu for parameter in group) or None,
            }
            for (part, decays), group in groups.items()
        ],
        betas=(0.9, 0.98),
    )
    optimizer.register_step_post_hook(_mark_as_changed)
    return optimizer


def _mark_as_changed(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Raise the weights' versions, by which folded copies know that they are old: fused kernels do not."""
    increment_version([weight for group in optimizer.param_groups for weight in group["params"]])


def warmup_cosine(
    optimizer: torch.optim.Optimizer, settings: OptimConfig, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then a cosine down to ``final_lr`` at the last of ``steps``."""
    warmup = max(1, round(steps * settings.warmup))

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, steps - warmup))
        return settings.final_lr + (1 - settings.final_lr) * 0.5 * (1 + math.cos(math.pi * done))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
