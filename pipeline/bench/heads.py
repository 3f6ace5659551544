"""What routing and compression save: half of the heads against all of them, latents against full keys and values.

Dimension letters: see ``model/latent_attention.py``; N regions, C their channels, M context tokens, E embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from latentcap.bench import training as bench_training
from latentcap.bench.fusion import TINY, Sizes, one_pass
from latentcap.bench.timing import Section, Setting, Spread, in_turns, milliseconds, ratio, type_name
from latentcap.bench.uncompressed import uncompress
from latentcap.config import BackboneConfig, ContextConfig, DecoderConfig, FusionConfig, ModelConfig
from latentcap.inference.precision import fast_dtype
from latentcap.model.caption_model import CaptionModel
from latentcap.model.fusion import Fusion, Memory
from latentcap.model.routed_fusion import RoutedFusion

GOAL = 1.6  # times faster with half of the heads
CHANGES: dict[str, dict[str, int]] = {  # of the sizes
    "20 words": {"steps": 20},
    "49 regions": {"regions": 49},
    "784 regions": {"regions": 784},
    "batch 16": {"batch": 16},
    "16 x 5 captions": {"batch": 16, "captions": 5},
    "16 heads": {"heads": 16},
    "16 x 5, 16 heads": {"batch": 16, "captions": 5, "heads": 16},
    "16 x 5, 16 h., 784 r.": {"batch": 16, "captions": 5, "heads": 16, "regions": 784},
}
LATENTS = (0.5, 1, 2, 4)  # latent sizes, as multiples of embed / heads


class Layer(nn.Module):
    """The whole fusion layer, compression included, half of its heads visual; a head has the size of a latent."""

    def __init__(self, sizes: Sizes, *, head_dim: int, latent_dim: int, top_k: int = 0, route_by: str = "example"):
        super().__init__()
        of_layer: dict[str, Any] = {
            "query_dim": sizes.embed,
            "region_dim": sizes.channels,
            "text_dim": sizes.embed,
            "output_dim": sizes.embed,
            "visual_heads": sizes.heads // 2,
            "text_heads": sizes.heads - sizes.heads // 2,
            "head_dim": head_dim,
            "latent_dim": latent_dim,
            "latent_dropout": 0.0,
            "max_views": 1,
        }
        self.fusion = (
            RoutedFusion(**of_layer, top_k=top_k, shared_heads=1, route_by=route_by, balance="bias")
            if top_k
            else Fusion(**of_layer)
        )

    def forward(self, queries: Tensor, regions: Tensor, context: Tensor) -> Tensor:
        """Queries (B, G, T, E), which stand in for the words too, regions (B, N, C) and context (B, M, E) to
        (B, G, T, E)."""
        memory, words = self.latents(queries, regions, context)
        return self.fusion.attend(queries, memory, words, causal=True, maps=False)[0]

    def latents(self, queries: Tensor, regions: Tensor, context: Tensor) -> tuple[Memory, Tensor]:
        grid = 1, regions.shape[1]
        visual, text = self.fusion.compress_regions(regions, grid), self.fusion.compress_context(context)
        keys = {"visual_keys": self.fusion.region_keys(visual, grid), "context_keys": self.fusion.context_keys(text)}
        return Memory(visual, None, text, None, context.mean(1), **keys), self.fusion.compress_words(queries)


class WithoutHeads(Layer):
    """What of the layer does not depend on its heads: compression."""

    def forward(self, queries: Tensor, regions: Tensor, context: Tensor) -> Tensor:
        memory, words = self.latents(queries, regions, context)
        read = memory.visual.sum() + memory.context.sum() + words.sum()  # so that gradients pass
        return queries + read


def bench(setting: Setting) -> list[Section]:
    """Routing, then compression in the layer alone and in a training step."""
    return [_routing(setting), *_compression(setting)]


def inputs_of(sizes: Sizes, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Random queries, regions and context. The regions, from a frozen backbone, want no gradient."""
    torch.manual_seed(0)
    return (
        torch.randn(sizes.batch, sizes.captions, sizes.steps, sizes.embed, device=device, requires_grad=True),
        torch.randn(sizes.batch, sizes.regions, sizes.channels, device=device),
        torch.randn(sizes.batch, sizes.context, sizes.embed, device=device, requires_grad=True),
    )


def _precisions(device: torch.device) -> list[torch.dtype]:
    return list(dict.fromkeys((torch.float32, fast_dtype(device))))


def _routing(setting: Setting) -> Section:
    base = TINY if setting.quick else Sizes()
    section = Section(
        f"Half of the heads: {base.batch} images, {base.steps} words, {base.regions} regions, {base.context} context "
        f"tokens, embedding {base.embed}"
    )
    head_dim = base.embed // base.heads
    cases = [("", back, dtype) for back in (True, False) for dtype in _precisions(setting.device)]
    if not setting.quick:
        cases += [(name, True, torch.float32) for name in CHANGES]
    for index, (name, backward, dtype) in enumerate(cases, start=1):
        sizes = replace(base, **CHANGES.get(name, {}))
        work = "forward + backward" if backward else "forward"
        setting.say(f"routing {index}/{len(cases)}: {work}, {type_name(dtype)}, {sizes}")
        top_k = sizes.heads // 4 - 1  # of each kind, besides one shared head: half of the heads
        layers = {
            "all": Layer(sizes, head_dim=head_dim, latent_dim=head_dim),
            "example": Layer(sizes, head_dim=head_dim, latent_dim=head_dim, top_k=top_k),
            "query": Layer(sizes, head_dim=head_dim, latent_dim=head_dim, top_k=top_k, route_by="query"),
            "none": WithoutHeads(sizes, head_dim=head_dim, latent_dim=head_dim),
        }
        inputs = inputs_of(sizes, setting.device)
        times = in_turns(
            {
                name: one_pass(layer.to(setting.device), inputs, dtype=dtype, backward=backward)
                for name, layer in layers.items()
            },
            setting,
        )
        faster = ratio(times["all"], times["example"])
        heads = {
            name: [whole - rest for whole, rest in zip(times[name], times["none"], strict=True)]
            for name in ("all", "example")
        }
        section.rows.append(
            {
                "sizes": name or "as above",
                "heads": f"{2 * (top_k + 1)} of {sizes.heads}",
                "pass": "both" if backward else "forward",
                "precision": type_name(dtype),
                "all ms": milliseconds(times["all"]).median,
                "half ms": milliseconds(times["example"]).median,
                "times faster": faster,
                "by query": ratio(times["all"], times["query"]).median,
                "heads alone": ratio(heads["all"], heads["example"]).median,
                "goal": faster.median >= GOAL,
            }
        )
    section.notes = [
        f"Half of the heads are visual, one of each kind is shared, the others are routed by example (half ms, times "
        f"faster) or by query. A head and a latent have {head_dim} numbers, regions {base.channels:,} channels; the "
        "words written are read too. Head routers that know nothing yet choose: a batch holds every set of heads. "
        "both: forward and backward.",
        "The whole layer is in the time: compression, queries, scores, values, gates and output projection. "
        "Compression costs the same with any number of heads: heads alone is without it. "
        f"16 x 5: batch of 16 images with 5 captions each. goal: {GOAL} times faster.",
    ]
    return section


def _compression(setting: Setting) -> list[Section]:
    base = TINY if setting.quick else Sizes()
    small = bench_training.TINY if setting.quick else bench_training.Sizes()
    layer = Section(
        f"Compression, the fusion layer: batch {base.batch}, {base.steps} words, {base.regions} regions, "
        f"{base.context} context tokens, {base.heads} heads"
    )
    step = Section(
        f"Compression, one training step: {small.batch} images x {small.captions} captions of {small.lengths[0]} words"
    )
    head_dim = base.embed // base.heads
    inputs = inputs_of(base, setting.device)
    for dtype in _precisions(setting.device):
        setting.say(f"compression of the layer, {type_name(dtype)}: latent sizes and without")
        plain = Layer(base, head_dim=head_dim, latent_dim=head_dim)
        plain.fusion = uncompress(plain.fusion, sizes=(base.embed, base.channels, base.embed))
        layers = {times: Layer(base, head_dim=head_dim, latent_dim=round(head_dim * times)) for times in LATENTS}
        contenders = {
            str(name): one_pass(entry.to(setting.device), inputs, dtype=dtype, backward=True)
            for name, entry in [*layers.items(), ("plain", plain)]
        }
        layer.rows += _compared(in_turns(contenders, setting), head_dim, base.heads, dtype)
        steps = {str(name): _training_step(setting, small, name, dtype) for name in (*LATENTS, None)}
        setting.say(f"compression in training, {type_name(dtype)}: latent sizes and without")
        times = in_turns(steps, setting)
        times["plain"] = times.pop("None")
        step.rows += _compared(times, small.size // 8, 8, dtype)
    note = (
        "full: the same heads, each with keys and values of its own of embedding / heads numbers, projected "
        "from regions and text and read by scaled_dot_product_attention, as nn.MultiheadAttention does."
    )
    layer.notes = [
        note,
        "Forward and backward. Bytes are of the visual latents, or keys and values, of one region. Where positions are "
        "in keys, latents with positions are kept beside them: twice as many.",
    ]
    step.notes = [note, "No context; forward, loss, backward and AdamW; text heads read the words written."]
    return [layer, step]


def _compared(times: dict[str, list[float]], head_dim: int, heads: int, dtype: torch.dtype) -> list[dict[str, object]]:
    """A row for each latent size against ``times["plain"]``. Latents are float32 under every precision."""
    plain_bytes = 2 * head_dim * (heads // 2) * torch.empty((), dtype=dtype).element_size()
    rows: list[dict[str, object]] = []
    for multiple in LATENTS:
        latent = round(head_dim * multiple)
        ours = times[str(multiple)]
        saved = [100 * (1 - a / b) for a, b in zip(ours, times["plain"], strict=True)]
        rows.append(
            {
                "precision": type_name(dtype),
                "latent": latent,
                "x embed/heads": multiple,
                "ms": milliseconds(ours).median,
                "full ms": milliseconds(times["plain"]).median,
                "times faster": ratio(times["plain"], ours),
                "saved %": Spread.of(saved).median,
                "bytes": 4 * latent,
                "full bytes": plain_bytes,
            }
        )
    return rows


def _training_step(
    setting: Setting, sizes: bench_training.Sizes, multiple: float | None, dtype: torch.dtype
) -> Callable[[], Tensor]:
    """A training step of a model with that latent size; None is the uncompressed one."""
    torch.manual_seed(0)
    head_dim = sizes.size // 8
    config = ModelConfig(
        backbone=BackboneConfig(name=sizes.backbone, weights="random", image_size=sizes.image_sizes[-1]),
        context=ContextConfig(encoder="none"),
        decoder=DecoderConfig(embed_dim=sizes.size, hidden_dim=sizes.size),
        fusion=FusionConfig(latent_dim=round(head_dim * (multiple or 1))),
    )
    model = CaptionModel(config, vocab_size=sizes.vocab_size)
    if multiple is None:
        model.decoder.fusion = uncompress(
            model.decoder.fusion, sizes=(sizes.size, model.backbone.num_channels, sizes.size)
        )
    model.to(setting.device)
    cells = model.backbone.grid[0] * model.backbone.grid[1]
    tokens = torch.randint(4, sizes.vocab_size, (sizes.batch, sizes.captions, sizes.lengths[0] + 1))
    regions = torch.randn(sizes.batch, cells, model.backbone.num_channels, device=setting.device)

    def logits(tokens: Tensor, regions: Tensor) -> Tensor:
        return bench_training.our_logits(model, tokens, model.encode(regions=regions))

    return bench_training.training_step(model, logits, tokens.to(setting.device), regions, dtype)
