"""What each stage of a pruning is worth, in quality and in time: a table, ``pruning.json`` and ``pruning.svg``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import median

import torch
from rich.console import Console

from latentcap.batch.settings import BATCH
from latentcap.bench.report import described, show
from latentcap.bench.timing import Section, Setting, in_turns, machine, plain
from latentcap.captioner import Captioner
from latentcap.data.batches.datamodule import CaptionData
from latentcap.heads.latency import BEAMS, WORDS, caption_latency, fusion_step
from latentcap.heads.plot import Chart, line_charts
from latentcap.heads.stages import FULL, QUALITY, Pruning, Stage
from latentcap.progress import Progress

TIMED_IMAGES = 50


def report_stages(pruning: Pruning, stages: Sequence[Stage], chosen: Stage, data: CaptionData) -> None:
    """Measure the latency of all stages in turns; print the table; write ``pruning.json`` and ``pruning.svg``."""
    captioners = {str(len(stage["kept"])): Captioner.from_pretrained(pruning.model(stage)) for stage in stages}
    with Progress("latency", unit="img") as progress:
        examples = data.datasets["val"].examples[:TIMED_IMAGES]  # those that could be read
        latency = caption_latency(captioners, examples, progress=progress.update, min_length=WORDS, max_length=WORDS)
    grid = next(iter(captioners.values())).model.backbone.grid
    regions = grid[0] * grid[1]
    calls = {name: fusion_step(entry, regions=regions, images=BATCH) for name, entry in captioners.items()}
    steps = in_turns(calls, Setting(5, torch.device("cpu"), False, lambda text: None))
    section = Section(f"Pruning {pruning.options.model.name}: captions of {WORDS} words, {BEAMS} beams")
    full = str(len(stages[0]["kept"]))
    whole, step = latency[full].row(), median(steps[full])
    for stage, (name, times) in zip(stages, latency.items(), strict=True):
        row = times.row()
        section.rows.append(
            {
                "heads": pruning.split(stage),
                "removed": pruning.name(stage["removed"][-1]) if stage["removed"] else None,
                QUALITY: stage["scores"][QUALITY],
                FULL: stage["beside"][QUALITY],
                "of full": f"{pruning.share(stage):.1%}",
                "fusion ms": row["fusion ms"],
                "saved": f"{1 - row['fusion ms'] / whole['fusion ms']:.0%}",
                "batch ms": 1000 * median(steps[name]),
                "saved in batches": f"{1 - median(steps[name]) / step:.0%}",
                "image ms": row["p50 ms"],
                "saved of all": f"{1 - row['p50 ms'] / whole['p50 ms']:.0%}",
                "kept": stage is chosen,
            }
        )
    section.notes = [
        f"heads: visual + text. {FULL}: {QUALITY} of the full model, fine-tuned as long; of full: share of it, or of "
        "the full model as it was given where that is better.",
        f"fusion: the layer's compression and all steps of one caption; batch: one step of {BATCH} images with "
        f"{regions} regions; image: file to caption. Medians, {len(examples)} validation images.",
        f"{described(machine(torch.device('cpu')))}",
    ]
    show(section, Console())
    content = {**plain(section), "stages": list(stages)}
    (pruning.folder / "pruning.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    points = [(len(stage["kept"]), row) for stage, row in zip(stages, section.rows, strict=True)][::-1]
    shares = [(len(stage["kept"]), pruning.share(stage)) for stage in reversed(stages)]
    charts = [
        Chart(f"{QUALITY}, the full model's being 1", "heads", shares, level=1.0, from_zero=False),
        Chart("Fusion layer, ms a caption", "heads", [(heads, row["fusion ms"]) for heads, row in points]),
        Chart(f"Fusion layer, ms a step of {BATCH}", "heads", [(heads, row["batch ms"]) for heads, row in points]),
        Chart("Image to caption, ms", "heads", [(heads, row["image ms"]) for heads, row in points]),
    ]
    (pruning.folder / "pruning.svg").write_text(line_charts(charts), encoding="utf-8")
    print(f"model   {pruning.folder}   ({pruning.split(chosen)} heads)\nplot    {pruning.folder / 'pruning.svg'}")
