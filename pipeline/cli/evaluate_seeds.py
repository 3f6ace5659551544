"""Several runs of one experiment as one table:  latentcap evaluate seeds seed0.json seed1.json seed2.json"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentcap.data.errors import UserError
from latentcap.metrics.bootstrap import LEAST

ABOUT = (
    "Compare runs of one experiment with different seeds, scored on the same examples, as Markdown: mean and range of "
    "every system, in how many runs the model beats each, what the context is worth, and some cases chosen at random."
)
METRICS = ("BLEU-1", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr-D", "distinct captions", "mean length")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="latentcap evaluate seeds", description=ABOUT)
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN.json", help="what 'latentcap evaluate --json' wrote, a file a seed")
    add("--cases", type=int, default=5, metavar="N", help="examples to show (default: %(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="that chooses them (default: %(default)s)")
    options = parser.parse_args(arguments)
    runs = [read_run(path) for path in options.runs]
    ids = [[example["id"] for example in run["examples"]] for run in runs]
    if any(entry != ids[0] for entry in ids):
        raise UserError("the runs were scored on different examples: evaluate all of them on one split.")
    parts = [score_rows(runs), beaten_rows(runs), gain_rows(runs), ablation_rows(runs)]
    parts += [agreement_rows(runs), label_rows(runs), case_rows(runs[0], options.cases, options.seed)]
    print("\n\n".join(part for part in parts if part))
    return 0


def read_run(path: Path) -> dict[str, Any]:
    """One file of ``latentcap evaluate --json``. Raises UserError for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Write it with latentcap evaluate --json.") from None
    if not isinstance(found, dict) or not {"captions", "floor", "comparison", "examples"} <= found.keys():
        raise UserError(f"{path}: not written by latentcap evaluate --json.")
    return found


def score_rows(runs: Sequence[Mapping[str, Any]]) -> str:
    """Mean and range of every score of every system."""
    names = ["captions", "floor", *(name for name in runs[0]["beside"] if name not in _ablated(runs[0]))]
    shown = [metric for metric in METRICS if runs[0]["captions"].get(metric) is not None]
    rows = [["model" if name == "captions" else "most frequent report" if name == "floor" else name] for name in names]
    for row, name in zip(rows, names, strict=True):
        columns = [run[name] if name in ("captions", "floor") else run["beside"][name] for run in runs]
        row += [_spread([column[metric] for column in columns], metric) for metric in shown]
    first = runs[0]
    title = (
        f"{first['images']:,} images, {first['references']:,} references ({', '.join(first['splits'])}), {len(runs)} "
        f"seeds: mean (lowest to highest); protocol {first['protocol']}."
    )
    return f"{title}\n\n{_table(['', *shown], rows)}"


def beaten_rows(runs: Sequence[Mapping[str, Any]]) -> str:
    """CIDEr-D of the model minus each system's, with the 95 % interval of each run."""
    rows = []
    for name in list(runs[0]["comparison"]["systems"])[1:]:
        found = [run["comparison"]["systems"][name]["behind_model"]["CIDEr-D"] for run in runs]
        wins = sum(entry["low"] > LEAST for entry in found)
        rows.append([name, *(_difference(entry) for entry in found), f"{wins} of {len(runs)}"])
    header = ["CIDEr-D, model minus", *(f"run {place}" for place in range(1, len(runs) + 1)), "beaten"]
    verdicts = [f"- run {place}: {text}" for place, run in enumerate(runs, 1) for text in run["comparison"]["verdicts"]]
    return _table(header, rows) + "\n\n" + "\n".join(verdicts)


def gain_rows(runs: Sequence[Mapping[str, Any]]) -> str:
    """How far the model is above the one that sees the image only, in CIDEr-D, in percent.

    Only for a model that was trained so: the same model without its context does worse than it could.
    """
    if not all(run.get("image_only") for run in runs):
        return ""
    model, alone = (sum(values) / len(runs) for values in zip(*(_pair(run) for run in runs), strict=True))
    if not alone:
        return "The model that sees the image only has a CIDEr-D of 0."
    each = ", ".join(f"{100 * (first / second - 1):+.0f} %" for first, second in map(_pair, runs) if second)
    return f"Image and context above image only, CIDEr-D: {100 * (model / alone - 1):+.0f} % (runs: {each})."


def ablation_rows(runs: Sequence[Mapping[str, Any]]) -> str:
    """The same models with the context, with none, and with another patient's."""
    if not all(run.get("ablation") for run in runs):
        return ""
    rows = []
    for name in runs[0]["ablation"]["systems"]:
        scores = [run["ablation"]["systems"][name]["intervals"]["CIDEr-D"]["value"] for run in runs]
        behind = [run["ablation"]["systems"][name]["behind_model"].get("CIDEr-D") for run in runs]
        rows.append([name, _spread(scores, "CIDEr-D"), *(_difference(entry) if entry else "" for entry in behind)])
    header = ["same model", "CIDEr-D", *(f"with context minus it, run {place}" for place in range(1, len(runs) + 1))]
    return _table(header, rows)


def agreement_rows(runs: Sequence[Mapping[str, Any]]) -> str:
    """Clinical agreement of every system: F1 pooled, over findings and over examples."""
    rows = []
    for kind in runs[0].get("agreement", {}):
        for name in runs[0]["agreement"][kind]:
            found = [run["agreement"][kind][name] for run in runs]
            averages = ("F1 micro", "F1 macro", "F1 example")
            rows.append([kind, name, *(_spread([entry[key] for entry in found], key) for key in averages)])
    return _table(["agreement", "", "F1 micro", "F1 macro", "F1 per example"], rows) if rows else ""


def label_rows(runs: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy of the label head beside always guessing the most frequent class."""
    rows = [
        [name, _spread([run["labels"][name]["accuracy"] for run in runs], ""), f"{entry['most frequent']:.3f}"]
        for name, entry in runs[0].get("labels", {}).items()
    ]
    return _table(["label", "accuracy", "most frequent class"], rows) if rows else ""


def case_rows(first: Mapping[str, Any], count: int, seed: int) -> str:
    """Examples chosen by the seed alone: reference, what the model wrote, what the nearest neighbour's report is."""
    examples = first["examples"]
    chosen = random.Random(seed).sample(range(len(examples)), min(count, len(examples)))
    lines = [f"{len(chosen)} cases of run 1, chosen by `random.Random({seed}).sample`:"]
    for place in chosen:
        example = examples[place]
        lines.append(f"- **{_escape(example['id'])}**")
        for name, text in example.items():
            if name in ("references", "model", "captions", "nearest"):
                lines.append(f"  - {name}: {_escape(' / '.join(text) if isinstance(text, list) else text)}")
    return "\n".join(lines)


def _pair(run: Mapping[str, Any]) -> tuple[float, float]:
    return run["captions"]["CIDEr-D"], run["beside"]["image only"]["CIDEr-D"]


def _ablated(run: Mapping[str, Any]) -> set[str]:
    return set((run.get("ablation") or {}).get("systems", ()))


def _difference(entry: Mapping[str, float]) -> str:
    return f"{entry['value']:+.3f} ({entry['low']:+.3f} to {entry['high']:+.3f})"


def _spread(values: Sequence[float], name: str) -> str:
    form = ".0f" if name == "distinct captions" else ".1f" if name == "mean length" else ".3f"
    low, high, mean = min(values), max(values), sum(values) / len(values)
    return f"{mean:{form}}" if low == high else f"{mean:{form}} ({low:{form}} to {high:{form}})"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escape(text: str) -> str:
    return " ".join(text.replace("<", "&lt;").replace("|", "\\|").split())
