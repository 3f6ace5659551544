"""What a captioner has to beat: the nearest training image's report, and itself with image or context taken away.

Every ablation is a change of the examples (another one's image, no context), so all go through one function.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from latentcap.captioner import Captioner
from latentcap.data.batches.sources import CachedRegions
from latentcap.data.example import Example
from latentcap.evaluation.scored import patient_of
from latentcap.progress import Progress
from latentcap.search.captions import search_captions
from latentcap.search.config import SearchConfig


@dataclass(frozen=True)
class Written:
    """One caption of each of B examples, and the label head's guesses, empty without one."""

    texts: list[str]
    labels: list[dict[str, str]] = field(default_factory=list)


def write_captions(
    captioner: Captioner,
    regions: CachedRegions,
    examples: Sequence[Example],
    *,
    search: SearchConfig | None = None,
    blank: bool = False,
    title: str = "captions",
    batch_size: int = 64,
) -> Written:
    """Caption examples from cached regions.

    Args:
        regions: hold every image of the examples.
        blank: an even grey image in place of each.

    Raises:
        UserError: an example has more views than the model was trained with.
    """
    model, device = captioner.model, captioner.device
    texts: list[str] = []
    labels: list[dict[str, str]] = []
    with torch.inference_mode(), Progress(title, unit="caption") as progress:
        grey = (
            model.backbone(torch.zeros(1, 1, captioner.image.in_chans, *captioner.image.size, device=device))
            if blank
            else None
        )
        for start in range(0, len(examples), batch_size):
            batch = examples[start : start + batch_size]
            _, tensors = regions.load(batch, [0] * len(batch))
            if grey is not None:
                tensors["regions"] = grey.repeat(len(batch), tensors["view_mask"].shape[1], 1)
            memory = model.encode(
                regions=tensors["regions"].to(device),
                view_mask=tensors["view_mask"].to(device),
                context=captioner.collate_context.examples(batch).to(device),
            )
            found = search_captions(model, memory, captioner.tokenizer, search or captioner.search)
            written = [captioner.tokenizer.decode(hypotheses[0].tokens) for hypotheses in found]
            if model.labels is not None and memory.labels is not None:
                guesses = model.labels.predict(memory.labels)
                predicted = [{name: value for name, (value, _) in guess.items()} for guess in guesses]
                written = [captioner.with_findings(*pair) for pair in zip(written, predicted, strict=True)]
                labels += predicted
            texts += written
            progress.update(start + len(batch), len(examples))
    return Written(texts, labels)


def mean_regions(regions: CachedRegions, examples: Sequence[Example], batch_size: int = 64) -> Tensor:
    """Mean region (B, C) of each example over all of its views."""
    parts = []
    for start in range(0, len(examples), batch_size):
        batch = examples[start : start + batch_size]
        _, tensors = regions.load(batch, [0] * len(batch))
        mask = tensors["view_mask"]
        cells = tensors["regions"].shape[1] // mask.shape[1]
        weights = mask.repeat_interleave(cells, 1).unsqueeze(-1).float()
        parts.append((tensors["regions"].float() * weights).sum(1) / weights.sum(1))
    return torch.cat(parts)


def nearest(queries: Tensor, keys: Tensor) -> list[int]:
    """For each of (B, C) the index of the most similar of (T, C): cosine, after the mean of the keys is taken off."""
    centre = keys.mean(0)
    first, second = (torch.nn.functional.normalize(values - centre, dim=1) for values in (queries, keys))
    return (first @ second.T).argmax(1).tolist()


def places_of_others(keys: Sequence[Hashable], seed: int) -> list[int]:
    """For each place another place whose key differs, every place taken as evenly as can be; its own where all agree.

    Drawn from ``seed`` alone.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(keys)).tolist()
    found = list(range(len(keys)))
    for position, place in enumerate(order):
        candidates = (order[(position + step) % len(order)] for step in range(1, len(order)))
        found[place] = next((other for other in candidates if keys[other] != keys[place]), place)
    return found


def without_context(example: Example) -> Example:
    """The example with nothing known besides the image."""
    return replace(example, context=None, numbers={}, categories={})


def with_context_of(example: Example, other: Example) -> Example:
    """The example with what is known of another."""
    return replace(example, context=other.context, numbers=other.numbers, categories=other.categories)


def ablations(examples: Sequence[Example], seed: int) -> dict[str, Callable[[], list[Example]]]:
    """Examples with the image or the context of another patient, or without context, by name."""
    others = places_of_others([patient_of(example) for example in examples], seed)
    pairs = [(example, examples[other]) for example, other in zip(examples, others, strict=True)]
    return {
        "shuffled images": lambda: [replace(example, images=other.images) for example, other in pairs],
        "no context": lambda: [without_context(example) for example in examples],
        "another's context": lambda: [with_context_of(example, other) for example, other in pairs],
    }
