"""What the loss feels of each head: the gradient of its gate (Michel et al. 2019, "Are sixteen heads really better
than one?", equation 3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from latentcap.model.caption_model import CaptionModel
from latentcap.model.fusion import Attention, Memory

if TYPE_CHECKING:
    from latentcap.data.batches.dataset import Batch


def gate_gradients(model: CaptionModel, memory: Memory, tokens: Tensor) -> tuple[Tensor, Attention]:
    r"""The gradient of each example's own loss by its gates, and where each head looked on the way.

    :math:`L(x)` is the mean cross-entropy of the words of the example's captions. Examples are independent, so that
    one backward pass gives every example's gradient. Importance is the mean of its magnitude over examples.

    Args:
        model: in evaluation mode: dropout would be noise.
        memory: of the B examples, without gradients.
        tokens: captions from ``<bos>`` to ``<eos>``, padded with 0, (B, G, T + 1).

    Returns:
        Gradients (B, H), visual heads first, and the attention of T steps.
    """
    inputs, targets = tokens[..., :-1], tokens[..., 1:]
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):  # cuDNN's LSTM has no backward in evaluation
        gate = model.decoder.fusion.head_gate.detach().float().repeat(len(tokens), 1, 1, 1).requires_grad_()
        hidden, attention = model.decoder(inputs, memory, gate=gate)
        logits = model.decoder.logits(hidden).float()
        losses = nn.functional.cross_entropy(logits.movedim(-1, 1), targets, ignore_index=0, reduction="none")
        words = (targets != 0).sum((1, 2)).clamp_min(1)
        (gradient,) = torch.autograd.grad((losses.sum((1, 2)) / words).sum(), gate)
    return gradient.flatten(1), attention


def head_importance(model: CaptionModel, batches: Iterable[Batch]) -> Tensor:
    r"""What the loss feels of each head: :math:`I_h = E_x |\partial L(x) / \partial g_h|` (Michel et al. 2019).

    Args:
        model: is scored without dropout.
        batches: examples x with their captions; see :func:`gate_gradients` for L.

    Returns:
        The importance of each head, (H,), visual heads first.
    """
    training = model.training
    model.eval()
    total, count = torch.zeros(model.config.num_heads), 0
    for batch in batches:
        with torch.no_grad():
            memory = model.encode(**batch.inputs())
        gradients, _ = gate_gradients(model, memory, batch.tokens)
        total += gradients.abs().sum(0).cpu()
        count += len(batch)
    model.train(training)
    return total / max(count, 1)
