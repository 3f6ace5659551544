"""A model under every head budget, which keeps only the first heads of each kind: quality and latency."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from latentcap.bench.timing import Section, ratio
from latentcap.captioner import Captioner
from latentcap.config import FusionConfig
from latentcap.data.errors import UserError
from latentcap.data.example import Example
from latentcap.heads.laboratory import Laboratory
from latentcap.heads.latency import WORDS, caption_latency
from latentcap.heads.stages import QUALITY
from latentcap.heads.sweep_report import spread
from latentcap.model.prune import parse_budget
from latentcap.progress import Progress
from latentcap.search.config import SearchConfig


def budgets(given: Sequence[str] | None, sizes: FusionConfig) -> list[str]:
    """The budgets to measure, from the smallest. Raises UserError for one that the model does not have."""
    visual, text = sizes.visual_heads, sizes.text_heads
    if given is None:
        pairs = [(min(k, visual), min(k, text)) for k in range(1, max(visual, text) + 1)]
    elif list(given) == ["every"]:
        pairs = list(product(range(1, visual + 1) or (0,), range(1, text + 1) or (0,)))
    else:
        pairs = [parse_budget(entry) for entry in given]
        for v, t in pairs:
            if v > visual or t > text:
                raise UserError(f"--heads {v}+{t}: the model has {visual}+{text} (visual + text): ask for no more.")
    return [f"{v}+{t}" for v, t in sorted(set(pairs), key=lambda pair: (sum(pair), pair))]


def group_by_heads(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Model folders by their numbers of heads."""
    groups: dict[str, list[Path]] = {}
    for folder in folders:
        sizes = Captioner.from_pretrained(folder).model.config.fusion
        groups.setdefault(f"{sizes.visual_heads}+{sizes.text_heads}", []).append(folder)
    return groups


def score(
    laboratory: Laboratory, folders: Sequence[Path], names: Sequence[str], beside: dict[str, list[Path]]
) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Validation scores of every model: "nested" or "alone" -> budget -> the scores of each seed."""
    work: list[tuple[str, str, Path, str | None]]
    work = [("nested", name, folder, name) for name in names for folder in folders]
    work += [("alone", name, folder, None) for name, group in beside.items() for folder in group]
    scores: dict[str, dict[str, list[dict[str, float]]]] = {"nested": {}, "alone": {}}
    with TemporaryDirectory() as temporary, Progress("budgets scored", unit="model") as progress:
        for done, (kind, name, folder, heads) in enumerate(work, start=1):
            captioner = Captioner.from_pretrained(folder, heads=heads)
            found = laboratory.scores(captioner, Path(temporary))
            scores[kind].setdefault(name, []).append(found)
            progress.update(done, len(work))
    return scores


def quality_section(
    quality: dict[str, dict[str, list[dict[str, float]]]], names: Sequence[str], *, images: int, search: SearchConfig
) -> Section:
    """One row for each budget: quality, its share of all heads', quality of models trained alone."""
    section = Section("Head budgets: quality, visual + text heads")
    whole = mean([scores[QUALITY] for scores in quality["nested"][names[-1]]])
    for name in dict.fromkeys([*names, *quality["alone"]]):
        row: dict[str, Any] = {"heads": name, QUALITY: None, f"of {names[-1]}": None}
        if values := [scores[QUALITY] for scores in quality["nested"].get(name, [])]:
            row |= {QUALITY: spread(values), f"of {names[-1]}": f"{mean(values) / whole:.1%}" if whole else None}
        if quality["alone"]:
            values = [scores[QUALITY] for scores in quality["alone"].get(name, [])]
            row["trained alone"] = spread(values) if values else None
        section.rows.append(row)
    seeds = max(len(found) for found in quality["nested"].values())
    section.notes = [
        f"{QUALITY} on {images:,} validation images, references as COCO scores them, beam {search.beam_size}; mean ± "
        f"standard deviation over {seeds} seed{'s' if seeds > 1 else ''}.",
    ]
    return section


def latency_section(
    folder: Path, names: Sequence[str], beside: dict[str, list[Path]], examples: Sequence[Example]
) -> Section:
    """One row for each budget: what an image takes where all captions are equally long."""
    rows = list(dict.fromkeys([*names, *beside]))
    captioners = {name: Captioner.from_pretrained(folder, heads=name) for name in names}
    captioners |= {name: Captioner.from_pretrained(beside[name][0]) for name in rows if name not in captioners}
    with Progress("latency", unit="img") as progress:
        latency = caption_latency(captioners, examples, progress=progress.update, min_length=WORDS, max_length=WORDS)
    section = Section(f"Head budgets: latency, one image at a time, captions of {WORDS} words")
    turns = {name: latency[name].totals for name in rows}
    for name in rows:
        times = latency[name].row()
        del times["words"]
        section.rows.append({"heads": name, **times, f"x {names[0]}": ratio(turns[name], turns[names[0]]).median})
    search = captioners[names[0]].search
    section.notes = [
        f"{len(examples)} validation images with all models in turns; p50 and p95 of the whole, median of each part, "
        f"in milliseconds; x {names[0]}: median over images of the ratio.",
        "read: file to tensor. backbone: the CNN. fusion: compression and every step's attention. search: the rest, "
        "that is both LSTMs, logits and beams; the decoder is folded, as it is in captioning.",
        f"Beam {search.beam_size}. Captions of a free length take another time with each budget, because they have "
        "another length.",
    ]
    return section
