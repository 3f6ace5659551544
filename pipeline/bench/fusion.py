"""The fusion layer's attention against ``torch.nn.MultiheadAttention``: time, and bytes that are cached per region.

Dimension letters: B examples, T query steps, N regions, C their channels, M context tokens, E embedding size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from latentcap.bench.timing import Section, Setting, autocast, in_turns, milliseconds, ratio, type_name
from latentcap.model.latent_attention import LatentAttention

SPEED_GOAL, BYTES_GOAL = 2.0, 16.0


@dataclass(frozen=True)
class Sizes:
    embed: int = 512
    heads: int = 8
    channels: int = 1280
    batch: int = 64
    steps: int = 60
    regions: int = 196
    context: int = 128
    captions: int = 1  # of each image, which share its latents


TINY = Sizes(embed=64, heads=4, channels=96, batch=2, steps=5, regions=9, context=4)


class Ours(nn.Module):
    """Latent attention and its output projection: all heads read regions, or half of them regions, half the context."""

    def __init__(self, sizes: Sizes, *, with_context: bool) -> None:
        super().__init__()
        size = sizes.embed // sizes.heads
        heads = sizes.heads // 2 if with_context else sizes.heads

        def attention(memory_dim: int) -> LatentAttention:
            return LatentAttention(
                sizes.embed, memory_dim, num_heads=heads, head_dim=size, latent_dim=size, latent_dropout=0.0
            )

        self.visual = attention(sizes.channels)
        self.text = attention(sizes.embed) if with_context else None
        self.output = nn.Linear(sizes.embed, sizes.embed)
        self.register_buffer("position", torch.zeros(size))

    def latents(self, regions: Tensor) -> Tensor:
        """What is cached of regions (B, N, C): (B, N, D)."""
        return self.visual.compress(regions, self.position)  # type: ignore[arg-type]

    def forward(self, queries: Tensor, regions: Tensor, context: Tensor) -> Tensor:
        """Queries (B, T, E), regions (B, N, C), context (B, M, E) to (B, T, E)."""
        heads, _ = self.visual(queries.unsqueeze(1), self.latents(regions), maps=False)
        if self.text is not None:
            latents = self.text.compress(context, self.position)  # type: ignore[arg-type]
            read, _ = self.text(queries.unsqueeze(1), latents, maps=False)
            heads = torch.cat((heads, read), -2)
        return self.output(heads.squeeze(1).flatten(-2))


class Standard(nn.Module):
    """The layer that one would take otherwise. With a context it reads both as one memory, regions brought to its size.

    Cross-attention without weights returned, so that it calls PyTorch's fused kernel.
    """

    def __init__(self, sizes: Sizes, *, with_context: bool) -> None:
        super().__init__()
        self.bring = nn.Linear(sizes.channels, sizes.embed) if with_context else None
        memory = None if with_context else sizes.channels
        self.attention = nn.MultiheadAttention(sizes.embed, sizes.heads, kdim=memory, vdim=memory, batch_first=True)

    def keys(self, regions: Tensor) -> Tensor:
        """Keys of regions (B, N, C), (B, N, E); the values, of the same size, are cached besides."""
        if self.bring is not None:
            weight = self.attention.in_proj_weight.chunk(3)[1]
            return nn.functional.linear(self.bring(regions), weight)
        return nn.functional.linear(regions, self.attention.k_proj_weight)

    def forward(self, queries: Tensor, regions: Tensor, context: Tensor) -> Tensor:
        """Queries (B, T, E), regions (B, N, C), context (B, M, E) to (B, T, E)."""
        memory = regions if self.bring is None else torch.cat((self.bring(regions), context.to(queries.dtype)), 1)
        return self.attention(queries, memory, memory, need_weights=False)[0]


def one_pass(layer: nn.Module, inputs: tuple[Tensor, ...], *, dtype: torch.dtype, backward: bool) -> Callable[[], None]:
    """A function that runs the layer once, and where asked for its gradients, but for those of the regions."""
    queries, regions, context = inputs
    leaves = (queries, context, *layer.parameters())
    gradient = torch.ones_like(queries)

    def run() -> None:
        with torch.set_grad_enabled(backward), autocast(queries.device, dtype):
            output = layer(queries, regions, context)
        if backward:
            output.backward(gradient.to(output.dtype))
            for leaf in leaves:
                leaf.grad = None

    return run


def captured(run: Callable[[], None]) -> Callable[[], None]:
    """What ``run`` orders of the GPU as one CUDA graph: replayed, starting its kernels costs nothing."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def bench(setting: Setting) -> list[Section]:
    """Time with and without gradients, regions alone and with a context; then bytes per region.

    On a GPU also as CUDA graphs, which leave the arithmetic alone.
    """
    sizes, device = TINY if setting.quick else Sizes(), setting.device
    torch.manual_seed(0)
    queries = torch.randn(sizes.batch, sizes.steps, sizes.embed, device=device, requires_grad=True)
    regions = torch.randn(sizes.batch, sizes.regions, sizes.channels, device=device)
    context = torch.randn(sizes.batch, sizes.context, sizes.embed, device=device, requires_grad=True)
    time = Section(
        f"Attention of the fusion layer: batch {sizes.batch}, {sizes.steps} query steps, {sizes.regions} regions"
    )
    size = Section("Cached per region")
    graphs = (False, True) if device.type == "cuda" else (False,)
    cases = list(product((False, True), (True, False), (torch.float32, torch.bfloat16), graphs))
    for index, (with_context, backward, dtype, as_graph) in enumerate(cases, start=1):
        memory = f"regions + {sizes.context} context tokens" if with_context else "regions"
        work = ("forward + backward" if backward else "forward") + (", CUDA graph" if as_graph else "")
        setting.say(f"fusion {index}/{len(cases)}: {memory}, {work}, {type_name(dtype)}")
        ours = Ours(sizes, with_context=with_context).to(device)
        standard = Standard(sizes, with_context=with_context).to(device)
        inputs = (queries, regions, context)
        contenders = {
            "ours": one_pass(ours, inputs, dtype=dtype, backward=backward),
            "standard": one_pass(standard, inputs, dtype=dtype, backward=backward),
        }
        if as_graph:
            contenders = {name: captured(run) for name, run in contenders.items()}
        times = in_turns(contenders, setting)
        speed = ratio(times["standard"], times["ours"])
        time.rows.append(
            {
                "memory": memory,
                "pass": work,
                "precision": type_name(dtype),
                "ours ms": milliseconds(times["ours"]),
                "MultiheadAttention ms": milliseconds(times["standard"]),
                "times faster": speed,
                "goal": SPEED_GOAL,
                "met": speed.median >= SPEED_GOAL,
            }
        )
        if backward and not with_context and not as_graph:
            with torch.no_grad(), autocast(device, dtype):
                latents, keys = ours.latents(regions), standard.keys(regions)
            small = latents.shape[-1] * latents.element_size()
            large = 2 * keys.shape[-1] * keys.element_size()
            size.rows.append(
                {
                    "precision": type_name(dtype),
                    "ours bytes": small,
                    "MultiheadAttention bytes": large,
                    "times smaller": large / small,
                    "goal": BYTES_GOAL,
                    "met": large / small >= BYTES_GOAL,
                }
            )
    time.notes = [
        f"Both: embedding {sizes.embed}, {sizes.heads} heads, regions of {sizes.channels:,} channels; query, key and "
        "value (ours: down) and output projections are all in the time.",
        "Both read by scaled_dot_product_attention and return no probabilities (need_weights=False, maps=False), as in "
        "training; PyTorch's 'fast path' of MultiheadAttention is for self-attention in inference alone.",
        "With a context, half of our heads read the regions and half the context; MultiheadAttention reads both as one "
        "memory, the regions first brought to the embedding's size.",
    ]
    size.notes = [
        "Measured on what each would keep. Our latents stay float32 under every precision. Where positions are in keys "
        "(model.fusion.position), latents with positions are kept beside them: twice as many bytes."
    ]
    return [time, size]
