"""What heads cost: time of one fusion step, and of one image from file to caption, split by part of the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from latentcap.bench.timing import Section, Setting, Spread, in_turns, ratio
from latentcap.captioner import Captioner
from latentcap.data.batches.transforms import load_image
from latentcap.data.example import Example
from latentcap.inference.folded_decoder import FoldedDecoder, fold_decoder
from latentcap.model.decoder import Decoder
from latentcap.model.fusion import Fusion, Memory
from latentcap.model.prune import set_budget
from latentcap.search.captions import search_captions

BEAMS = 3
WORDS = 10  # words already written when a fusion step is timed: the middle of a caption
REGIONS = (49, 196)
PARTS = ("read", "backbone", "fusion", "search")
FUSION_METHODS = ("compress_regions", "compress_context", "compress_words", "attend")


@dataclass
class Latency:
    """Seconds of each image, by part: ``read`` (file to tensor), ``backbone``, ``fusion`` (compression and every
    step's attention), ``search`` (the rest: both LSTMs, logits, beams). ``words`` written for each image."""

    parts: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in PARTS})
    words: list[int] = field(default_factory=list)

    @property
    def totals(self) -> list[float]:
        return [sum(times) for times in zip(*self.parts.values(), strict=True)]

    def row(self) -> dict[str, float]:
        """Milliseconds per image: median and 95th percentile of the whole, median of each part; words per caption."""
        totals = torch.tensor(self.totals).quantile(torch.tensor([0.5, 0.95])) * 1000
        row = {"p50 ms": float(totals[0]), "p95 ms": float(totals[1])}
        row |= {f"{part} ms": 1000 * median(times) for part, times in self.parts.items()}
        return {**row, "words": sum(self.words) / len(self.words)}


def caption_latency(
    captioners: Mapping[str, Captioner],
    examples: Sequence[Example],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **search: Any,
) -> dict[str, Latency]:
    """Caption image by image with all captioners in turns, so that whatever else the machine does meets all alike.

    The first image is captioned once more before, to warm up. ``search`` changes the models' own search settings.
    """
    found = {name: Latency() for name in captioners}
    decoders = {name: fold_decoder(captioner.model.decoder, captioner.dtype) for name, captioner in captioners.items()}
    rounds = [*examples[:1], *examples]
    for done, example in enumerate(rounds):
        for name, captioner in captioners.items():
            parts, words = _caption(captioner, decoders[name], example, search)
            if done:
                found[name].words.append(words)
                for part in PARTS:
                    found[name].parts[part].append(parts[part])
        progress(done, len(rounds) - 1)
    return found


@torch.inference_mode()
def _caption(
    captioner: Captioner, decoder: Decoder | FoldedDecoder, example: Example, search: Mapping[str, Any]
) -> tuple[dict[str, float], int]:
    """Seconds of each part, and words of the caption, with the decoder that captioning uses."""
    config, device = captioner.search_config(**search), captioner.device
    with _timed(captioner.model.decoder.fusion, decoder, device) as fusion:
        start = _now(device)
        views = [captioner.transform(load_image(image, captioner.image)) for image in example.images]
        context = captioner.collate_context.examples([example])
        read = _now(device)
        memory = captioner.encode([views], context)
        encoded, compression = _now(device), sum(fusion)
        found = search_captions(captioner.model, memory, captioner.tokenizer, config, decoder=decoder)
        end, attention = _now(device), sum(fusion)
    parts = {
        "read": read - start,
        "backbone": encoded - read - compression,
        "fusion": attention,
        "search": end - encoded - (attention - compression),
    }
    return parts, len(found[0][0].tokens)


@contextmanager
def _timed(fusion: Fusion, decoder: Decoder | FoldedDecoder, device: torch.device) -> Iterator[list[float]]:
    """While open, every call of the fusion layer, or of what a folded decoder has in its place, adds its seconds."""
    seconds: list[float] = []

    def wrap(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = _now(device)
            result = method(*args, **kwargs)
            seconds.append(_now(device) - start)
            return result

        return call

    methods: list[tuple[Any, str]] = [(fusion, name) for name in FUSION_METHODS]
    if isinstance(decoder, FoldedDecoder):
        methods.append((decoder, "fuse"))
    for owner, name in methods:
        setattr(owner, name, wrap(getattr(owner, name)))
    try:
        yield seconds
    finally:
        for owner, name in methods:
            delattr(owner, name)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


# One step -------------------------------------------------------------------------------------------------------------


def fusion_step(captioner: Captioner, *, regions: int, images: int = 1) -> Callable[[], object]:
    """A function that runs the fusion layer as one decoding step does: three beams an image, ten words written.

    With the decoder that captioning uses, in its precision.
    """
    model = captioner.model
    decoder = fold_decoder(model.decoder, captioner.dtype)
    fusion, device = model.decoder.fusion, model.decoder.bias.device
    size, hidden = fusion.latent_dim, model.config.decoder.hidden_dim
    visual = torch.randn(images, regions if fusion.visual is not None else 0, size, device=device)
    context = torch.randn(images, 0, size, device=device)
    summary = torch.randn(images, model.config.decoder.embed_dim, device=device)
    keys = fusion.region_keys(visual, (1, visual.shape[1]))
    memory = Memory(visual, None, context, None, summary, visual_keys=keys, context_keys=fusion.context_keys(context))
    state = torch.randn(images, BEAMS, hidden, device=device)
    words = torch.randn(images, BEAMS, WORDS, size, device=device)

    if isinstance(decoder, FoldedDecoder):
        asking = state.to(decoder.dtype)
        return torch.inference_mode()(lambda: decoder.fuse(asking, memory, words))
    return torch.inference_mode()(lambda: fusion.attend(state.unsqueeze(2), memory, words, causal=False))


def head_counts(visual: int, text: int) -> list[tuple[int, int]]:
    """For 1, 2, ... heads in all, how many of each kind: as even as the model has them, visual heads first."""
    counts = [(1, 0) if visual else (0, 1)]
    while sum(counts[-1]) < visual + text:
        v, t = counts[-1]
        counts.append((v, t + 1) if t < text and (t < v or v == visual) else (v + 1, t))
    return counts


def steps_section(load: Callable[[], Captioner], setting: Setting) -> Section:
    """The fusion layer's time in one decoding step, by number of heads and regions.

    Args:
        load: gives the full model afresh; it is cut to each number of heads.
    """
    sizes = load().model.config.fusion
    captioners = {}
    for visual, text in head_counts(sizes.visual_heads, sizes.text_heads):
        captioner = load()
        set_budget(captioner.model, visual, text)
        captioners[f"{visual}+{text}"] = captioner
    section = Section(f"Fusion layer, one decoding step: one image, {BEAMS} beams, {WORDS} words written, no context")
    rows: dict[str, dict[str, Any]] = {name: {"heads": name} for name in captioners}
    for regions in REGIONS:
        setting.say(f"fusion step with {regions} regions, {len(captioners)} numbers of heads")
        times = in_turns({name: fusion_step(entry, regions=regions) for name, entry in captioners.items()}, setting)
        first = times[next(iter(captioners))]
        for name, row in rows.items():
            row[f"{regions} regions µs"] = Spread.of([1e6 * value for value in times[name]])
            row[f"x {next(iter(captioners))}, {regions}"] = ratio(times[name], first).median
    section.rows = list(rows.values())
    section.notes = [f"x {next(iter(captioners))}: times that of the first row, for each number of regions."]
    return section
