"""One training step of our decoder against one of an UpDown-style decoder, which attends inside the loop over time.

Dimension letters: B examples, G captions of each, T words, N regions, C channels, E size of everything else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from latentcap.bench.timing import Section, Setting, autocast, in_turns, milliseconds, ratio, type_name
from latentcap.bench.validation import beside_an_epoch
from latentcap.config import BackboneConfig, ContextConfig, DecoderConfig, ModelConfig
from latentcap.inference.precision import multiplies_bfloat16
from latentcap.model.caption_model import CaptionModel
from latentcap.model.dropout import Dropout
from latentcap.model.fusion import Memory

GOAL = 1.5  # times faster, on a CPU


@dataclass(frozen=True)
class Sizes:
    """What is trained, and on how much at once. ``image_sizes`` are sides in pixels, of which the regions follow."""

    backbone: str = "tf_efficientnet_lite0"
    image_sizes: tuple[int, ...] = (224, 448)
    size: int = 512
    vocab_size: int = 2300
    batch: int = 64
    captions: int = 2
    lengths: tuple[int, ...] = (14, 22)
    trainable: str = "none"  # of the CNN


TINY = Sizes("test_efficientnet", (64,), size=64, vocab_size=50, batch=4, lengths=(5,))


class UpDown(nn.Module):
    r"""The decoder of Anderson et al. (2018), as fast as a loop over two LSTM cells is in plain PyTorch.

    .. math::
        s_t &= \mathrm{LSTM}_a([h_{t-1};\; e(w_t) + \bar r]) \\
        a_t &= \sum_i \mathrm{softmax}_i(W^q s_t \cdot r_i / \sqrt E) \, r_i \qquad r = W^r x \\
        h_t &= \mathrm{LSTM}_l([s_t; a_t])

    Because :math:`h_{t-1}` is an input, the steps cannot be computed together. What can be taken out of the loop is:
    the regions are projected once, for all words and captions of an image, and all logits are computed at the end.
    Where there is a choice it is the cheaper one: dot products, one projection for keys and values, and the pooled
    image added to the word. Dropout is where ours has it, and the output matrix is the embedding table, as in ours.
    """

    def __init__(self, vocab_size: int, *, region_dim: int, size: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, size)
        self.regions = nn.Linear(region_dim, size)
        self.query = nn.Linear(size, size, bias=False)
        self.attention_lstm = nn.LSTMCell(2 * size, size)
        self.language_lstm = nn.LSTMCell(2 * size, size)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.dropout = Dropout(dropout)
        nn.init.normal_(self.embedding.weight, std=size**-0.5)

    def forward(self, tokens: Tensor, regions: Tensor) -> Tensor:
        """Captions (B, G, T) and regions (B, N, C) to logits (B, G, T, V)."""
        batch, groups, _ = tokens.shape
        regions = self.regions(regions)  # (B, N, E)
        words = self.dropout(self.embedding(tokens)) + self.dropout(regions.mean(1))[:, None, None]
        hidden = words.new_zeros(batch * groups, words.shape[-1])
        cell, state, state_cell = hidden, hidden, hidden
        scale = 1 / math.sqrt(words.shape[-1])
        outputs = []
        for word in words.flatten(0, 1).unbind(1):
            state, state_cell = self.attention_lstm(torch.cat((hidden, word), -1), (state, state_cell))
            query = self.query(state).unflatten(0, (batch, groups))  # captions are queries on one copy of the regions
            attention = (query @ regions.mT * scale).float().softmax(-1)  # (B, G, N)
            attended = self.dropout(attention.to(regions.dtype) @ regions).flatten(0, 1)
            hidden, cell = self.language_lstm(torch.cat((state, attended), -1), (hidden, cell))
            outputs.append(hidden)
        states = self.dropout(torch.stack(outputs, 1)).unflatten(0, (batch, groups))
        return nn.functional.linear(states, self.embedding.weight, self.bias)


def models(sizes: Sizes, image_size: int) -> tuple[CaptionModel, UpDown]:
    """Ours and its twin, of the same embedding and state size. Neither has a context encoder."""
    config = ModelConfig(
        backbone=BackboneConfig(
            name=sizes.backbone, weights="random", image_size=image_size, trainable=sizes.trainable
        ),
        context=ContextConfig(encoder="none"),
        decoder=DecoderConfig(embed_dim=sizes.size, hidden_dim=sizes.size),
    )
    ours = CaptionModel(config, vocab_size=sizes.vocab_size)
    twin = UpDown(
        sizes.vocab_size, region_dim=ours.backbone.num_channels, size=sizes.size, dropout=config.decoder.dropout
    )
    return ours, twin


def our_logits(model: CaptionModel, tokens: Tensor, memory: Memory) -> Tensor:
    """Captions (B, G, T) of what ``model`` has encoded to logits (B, G, T, V)."""
    hidden, _ = model.decoder(tokens, memory, maps=False)
    return model.decoder.logits(hidden)


def trained_parameters(model: nn.Module) -> int:
    """Parameters that the last step has trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.grad is not None)


def training_step(
    model: nn.Module, logits: Callable[[Tensor, Tensor], Tensor], tokens: Tensor, regions: Tensor, dtype: torch.dtype
) -> Callable[[], Tensor]:
    """A function that does forward, loss, backward and AdamW once, and returns the loss. ``tokens`` (B, G, T + 1)."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    fused = True if regions.is_cpu else None  # as in our own training
    optimizer = torch.optim.AdamW(trainable, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01, fused=fused)
    model.train()

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with autocast(regions.device, dtype):
            scores = logits(tokens[..., :-1], regions)
            loss = nn.functional.cross_entropy(
                scores.float().flatten(0, -2), tokens[..., 1:].flatten(), label_smoothing=0.1
            )
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def bench(setting: Setting) -> list[Section]:
    """One row for each number of regions, caption length and precision."""
    sizes = TINY if setting.quick else Sizes()
    section = Section(f"One training step: {sizes.batch} images x {sizes.captions} captions, regions from the cache")
    dtypes = (torch.float32, torch.bfloat16) if multiplies_bfloat16(setting.device) else (torch.float32,)
    cases = list(product(sizes.image_sizes, sizes.lengths, dtypes))
    for index, (image_size, length, dtype) in enumerate(cases, start=1):
        torch.manual_seed(0)
        ours, twin = models(sizes, image_size)
        ours.to(setting.device)
        twin.to(setting.device)
        cells = ours.backbone.grid[0] * ours.backbone.grid[1]
        setting.say(f"training {index}/{len(cases)}: {cells} regions, {length} words, {type_name(dtype)}")
        tokens = torch.randint(4, sizes.vocab_size, (sizes.batch, sizes.captions, length + 1)).to(setting.device)
        regions = torch.randn(sizes.batch, cells, ours.backbone.num_channels).to(setting.device)

        def logits(tokens: Tensor, regions: Tensor, model: CaptionModel = ours) -> Tensor:
            return our_logits(model, tokens, model.encode(regions=regions))

        steps = {
            "ours": training_step(ours, logits, tokens, regions, dtype),
            "UpDown": training_step(twin, twin, tokens, regions, dtype),
        }
        times = in_turns(steps, setting)
        speed = ratio(times["UpDown"], times["ours"])
        section.rows.append(
            {
                "regions": cells,
                "words": length,
                "precision": type_name(dtype),
                "ours ms": milliseconds(times["ours"]),
                "UpDown ms": milliseconds(times["UpDown"]),
                "times faster": speed,
                "goal": GOAL,
                "met": speed.median >= GOAL,
                "ours parameters": trained_parameters(ours),
                "UpDown parameters": trained_parameters(twin),
            }
        )
    section.notes = [
        f"Both: embedding and state size {sizes.size}, a vocabulary of {sizes.vocab_size:,}, regions of "
        f"{ours.backbone.num_channels:,} channels, no context. A step is forward, loss, backward and AdamW.",
        "UpDown: two LSTM cells and dot-product attention in a loop over time; regions projected once per image and "
        "shared by its captions, all logits computed after the loop.",
        "The goal is for a CPU.",
    ]
    return [section, beside_an_epoch(setting)]
