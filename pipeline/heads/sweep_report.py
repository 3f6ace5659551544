"""What a sweep found, as Markdown tables, a CSV file and a plot."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from statistics import mean, stdev

from latentcap.heads.sweep_grid import Variant, study

TITLES = {
    "heads": "Number of heads, half of them visual",
    "split": "Split of eight heads, visual + text",
    "latent": "Latent size, as a multiple of embed_dim / heads",
    "dropout": "Latent dropout",
    "routing": "Routed heads, 4 + 4",
}
SCORES = ("CIDEr-D", "BLEU-4", "ROUGE-L")


@dataclass(frozen=True)
class Trial:
    """One finished training: its scores on the validation split and its duration."""

    variant: Variant
    seed: int
    scores: Mapping[str, float]
    seconds: float


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds; a single value has none."""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def label(name: str, variant: Variant) -> str:
    """What sets a variant apart within its study."""
    if name == "routing":
        return f"1 + {variant.top_k} by {variant.route_by}, {variant.balance}" if variant.top_k else "all"
    return {
        "heads": f"{variant.visual + variant.text}",
        "split": f"{variant.visual}+{variant.text}",
        "latent": f"x{variant.latent:g}",
        "dropout": f"{variant.dropout:g}",
    }[name]


def markdown(studies: Sequence[str], trials: Sequence[Trial], *, command: str) -> str:
    """A table for each study that has results, best mean CIDEr-D in bold."""
    lines = [f"Command: `{command}`. Best validation of each run; mean ± standard deviation over seeds.", ""]
    for name in studies:
        groups = _groups(name, trials)
        if not groups:
            continue
        best = max(mean([trial.scores["CIDEr-D"] for trial in found]) for _, found in groups)
        lines += [f"### {TITLES[name]}", "", f"| {name} | {' | '.join(SCORES)} | training s | seeds |"]
        lines.append("|---|" + "---:|" * (len(SCORES) + 2))
        for variant, found in groups:
            cells = [spread([trial.scores.get(score, float("nan")) for trial in found]) for score in SCORES]
            if mean([trial.scores["CIDEr-D"] for trial in found]) == best:
                cells[0] = f"**{cells[0]}**"
            cells += [f"{mean([trial.seconds for trial in found]):.0f}", str(len(found))]
            lines.append(f"| {label(name, variant)} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def write(folder: Path, studies: Sequence[str], trials: Sequence[Trial], *, command: str) -> None:
    """Write ``results.md``, ``results.csv`` and ``results.svg``."""
    (folder / "results.md").write_text(markdown(studies, trials, command=command), encoding="utf-8")
    with open(folder / "results.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["variant", "seed", *SCORES, "seconds"])
        for trial in trials:
            scores = [trial.scores.get(score) for score in SCORES]
            writer.writerow([trial.variant.name, trial.seed, *scores, round(trial.seconds, 1)])
    _plot(folder / "results.svg", studies, trials)


def _groups(name: str, trials: Sequence[Trial]) -> list[tuple[Variant, list[Trial]]]:
    """The study's variants that have results, with theirs."""
    groups = [(variant, [trial for trial in trials if trial.variant == variant]) for variant in study(name)]
    return [(variant, found) for variant, found in groups if found]


def _plot(path: Path, studies: Sequence[str], trials: Sequence[Trial]) -> None:
    """CIDEr-D of every seed as a point, and means with their standard deviation, one panel for each study."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shown = [name for name in studies if _groups(name, trials)]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(3.8 * columns, 3.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flat
    for panel, name in zip_longest(panels, shown):
        if name is None:
            panel.set_axis_off()
            continue
        groups = _groups(name, trials)
        for place, (_, found) in enumerate(groups):
            values = [trial.scores["CIDEr-D"] for trial in found]
            panel.plot([place] * len(values), values, "o", color="#999999", markersize=3)
            error = stdev(values) if len(values) > 1 else 0.0
            panel.errorbar(place, mean(values), error, fmt="s", color="#0072b2", capsize=4)
        labels = [label(name, variant).replace(" by ", "\nby ") for variant, _ in groups]
        panel.set_xticks(range(len(groups)), labels, fontsize=8)
        panel.set_title(TITLES[name], fontsize=9)
        panel.grid(axis="y", alpha=0.3)
        panel.tick_params(labelleft=True)
        if panel.get_subplotspec().is_first_col():
            panel.set_ylabel("CIDEr-D, validation")
    with rc_context({"svg.fonttype": "none"}):  # letters stay letters
        figure.savefig(path)
