"""What a training step minimises.

Dimension letters: see ``latent_attention.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from latentcap.inference.product import blank_rows
from latentcap.model.caption_model import CaptionModel
from latentcap.model.decoder import Decoder
from latentcap.model.fusion import Attention, Memory
from latentcap.training.optim import OptimConfig
from latentcap.training.processes import share_of, together


@dataclass(frozen=True)
class Taught:
    """What teachers think likely: of each of the W words of a batch's captions, (W, V), and of each class of its
    examples' labels, (B, L); None where they do not teach it."""

    words: Tensor | None = None
    labels: Tensor | None = None


def training_loss(
    model: CaptionModel,
    memory: Memory,
    tokens: Tensor,
    *,
    labels: Sequence[Mapping[str, str]],
    settings: OptimConfig,
    progress: float,
    taught: Taught | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of all that is asked for, and its parts that are worth a curve of their own.

    Args:
        memory: of B examples.
        tokens: their captions, (B, G, T), from ``<bos>`` to ``<eos>``.
        labels: of each example, for the label head; none where it does not learn.
        progress: how much of the training is done, 0 to 1.
        taught: what teachers give, where there are any.
    """
    parts: dict[str, Tensor] = {}
    taught = taught or Taught()
    loss = memory.summary.new_zeros((), dtype=torch.float32)
    words = (tokens[..., 1:] != 0).sum()
    share = share_of(words)  # asked for by all processes, for they wait for each other
    if settings.caption_weight > 0 and words:  # else no example of the batch has a caption
        own = caption_loss(model, memory, tokens, settings=settings, progress=progress, taught=taught.words)
        loss = settings.caption_weight * share * own
    elif settings.caption_weight > 0 and together():
        # Those of others go through the decoder, whose routers wait for all processes.
        hidden, _ = model.decoder(torch.zeros_like(tokens), memory, maps=False)
        loss = loss + 0 * hidden.sum()
    if labels and model.labels is not None and memory.labels is not None:
        parts["label_loss"] = model.labels.loss(
            memory.labels, labels, taught=taught.labels, teacher_weight=settings.teacher_weight
        )
        loss = loss + settings.label_weight * parts["label_loss"]
    return loss, parts


def caption_loss(
    model: CaptionModel,
    memory: Memory,
    tokens: Tensor,
    *,
    settings: OptimConfig,
    progress: float,
    taught: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy of each next word given the true ones before it, with what is added to it in training."""
    inputs, targets = tokens[..., :-1], tokens[..., 1:]
    rate = settings.scheduled_sampling * progress
    if rate > 0:
        inputs = mix_in_guesses(model.decoder, inputs, memory, rate)
    penalty = settings.attention_penalty > 0
    loss, attention = next_word_loss(
        model.decoder,
        inputs,
        targets,
        memory,
        smoothing=settings.label_smoothing,
        taught=taught,
        teacher_weight=settings.teacher_weight,
        maps=penalty,
    )
    if penalty:
        uneven = doubly_stochastic(attention, targets != 0, memory.visual_mask)
        loss = loss + settings.attention_penalty * uneven
    if attention.balance_loss is not None:  # of head routers with fusion.balance: loss
        loss = loss + attention.balance_loss
    return loss


def next_word_loss(
    decoder: Decoder,
    inputs: Tensor,
    targets: Tensor,
    memory: Memory,
    *,
    smoothing: float = 0.0,
    taught: Tensor | None = None,
    teacher_weight: float = 0.0,
    maps: bool = False,
) -> tuple[Tensor, Attention]:
    """Mean cross-entropy of each word of ``targets`` (B, G, T) given ``inputs``, those before it; 0 is padding.

    Where teachers gave probabilities ``taught`` (W, V) of the W words, ``teacher_weight`` of what is learned are those.
    """
    hidden, attention = decoder(inputs, memory, maps=maps)
    words = targets != 0
    logits = word_logits(decoder, hidden[words]).float()
    loss = cross_entropy(logits, targets[words], label_smoothing=smoothing)
    if taught is not None:
        loss = (1 - teacher_weight) * loss + teacher_weight * cross_entropy(logits, taught)
    return loss, attention


def word_logits(decoder: Decoder, hidden: Tensor) -> Tensor:
    """Scores (W, V) of W words, of which every batch has another number: they are computed for few numbers of rows."""
    return decoder.logits(pad(hidden, (0, 0, 0, blank_rows(len(hidden)))))[: len(hidden)]


@torch.no_grad()
def mix_in_guesses(decoder: Decoder, inputs: Tensor, memory: Memory, rate: float) -> Tensor:
    """Replace input words (B, G, T) after the first by the model's own guesses, each with probability ``rate``."""
    hidden, _ = decoder(inputs, memory, maps=False)
    guesses = decoder.logits(hidden).argmax(-1)[..., :-1]
    swap = (torch.rand(guesses.shape, device=guesses.device) < rate) & (inputs[..., 1:] != 0)
    return torch.cat((inputs[..., :1], torch.where(swap, guesses, inputs[..., 1:])), -1)


def doubly_stochastic(attention: Attention, mask: Tensor, regions: Tensor | None = None) -> Tensor:
    """How unevenly a caption's visual attention covers the regions: mean of (1 - sum over time * N / T)^2.

    ``mask`` (B, G, T) is True on words, ``regions`` (B, N) where there is a region, None: everywhere. Those of missing
    views do not count. Xu et al. (2015), equation 14, scaled so that it does not depend on sizes.
    """
    if attention.visual is None:
        return mask.new_zeros((), dtype=torch.float32)
    weights = attention.visual.mean(3)  # (B, G, T, N)
    weights = weights / weights.sum(-1, keepdim=True) * mask.unsqueeze(-1)  # heads that are not computed have zeros
    share = weights.sum(2) / mask.sum(2, keepdim=True).clamp_min(1)
    exist = share.new_ones(len(share), 1, share.shape[-1]) if regions is None else regions.unsqueeze(1).to(share.dtype)
    count = exist.sum(-1, keepdim=True)
    return ((1 - share * count).square() * exist / count).sum(-1).mean()
