"""What ``latentcap evaluate`` prints: the tables, and below them in words what they rest on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.markup import escape

from latentcap.evaluation.comparison import Comparison
from latentcap.evaluation.report import PLAIN_CIDER, Report
from latentcap.evaluation.results import Results
from latentcap.evaluation.tables import agreement_table, finding_tables, interval_tables, score_table
from latentcap.metrics.tokenize import R2GEN_TOKENS, Tokenizer

HOW: dict[Tokenizer, str] = {
    "ptb": "Penn Treebank words without punctuation, as COCO's evaluation; texts are scored whole",
    "words": "our own words without punctuation, close to COCO's; texts are scored whole",
    "whitespace": "the text as it is, split at blanks; full stops count as words; texts are scored whole",
    "r2gen": f"R2Gen's cleaning, blanks as separators, full stops as words; all texts are cut at {R2GEN_TOKENS} words",
}


def print_results(results: Results, console: Console) -> None:
    """Tables, then lines."""
    report, scored = results.report, results.scored
    counts = f"{_count(report.images, 'image')}, {_count(report.references, 'reference')}"
    title = f"{counts} ({', '.join(scored.splits)}), protocol {results.protocol}"
    columns = {
        scored.name: report.captions,
        "floor": report.floor,
        **{key: report.beside[key] for key in scored.beside},
    }
    console.print(score_table(columns, title))
    for table in interval_tables(results.comparison):
        console.print(table)
    for kind, agreement in results.agreement.items():
        console.print(agreement_table(kind, agreement))
    for table in finding_tables(results.findings, results.uncertain):
        console.print(table)
    if results.changed:
        ablation = {key: report.beside[key] for key in scored.ablation}
        console.print(score_table(ablation, f"the same model, context changed, protocol {results.protocol}"))
        for table in interval_tables(results.changed):
            console.print(table)
    for line in lines(results):
        console.print(escape(line), highlight=False, soft_wrap=True)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def lines(results: Results) -> Iterator[str]:
    """What the tables rest on, what is left out of them, and what they say."""
    report, scored = results.report, results.scored
    source = "training caption" if report.floor_from_training else "reference (no training captions are known)"
    yield f"floor: the most frequent {source}, given to every image: '{report.floor_caption}'"
    yield from scored.notes
    yield f"protocol {results.protocol}: {HOW[report.tokenizer]}"
    if report.unspaced:
        yield _unspaced(report)
    yield (
        f"CIDEr-D: what COCO's evaluation prints as CIDEr; {PLAIN_CIDER}: without clipping and the penalty on lengths, "
        "which make the D"
    )
    yield _intervals(results.comparison, report.images)
    yield from (f"{name}: {reason}" for name, reason in results.reasons.items())
    yield from radeval_lines(results.radeval)
    for name, (right, most, count) in scored.labels.items():
        yield f"label {name}: {right:.1%} right of {count:,}; the most frequent class is {most:.1%}"
    yield from _worth(scored.worth)
    yield from results.comparison.verdicts
    if results.changed:
        yield from _ablation(results.changed)


def _unspaced(report: Report) -> str:
    said = f"{report.unspaced} is written without spaces between words:"
    if report.tokenizer == "whitespace":
        return f"{said} what stands between blanks is one word here; leave --tokenizer out to score by character"
    return f"{said} scored by character (words that blanks separate: --tokenizer whitespace)"


def radeval_lines(radeval: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """The scores of the package RadEval, a line for each system."""
    for name, scores in radeval.items():
        yield f"RadEval, {name}: " + ", ".join(f"{score} {value:.3f}" for score, value in scores.items())


def _worth(worth: Mapping[str, float]) -> Iterator[str]:
    from latentcap.training.worth import little  # torch takes seconds to import

    for part, value in worth.items():
        yield f"{part} worth: the references cost {value:.3f} nats a word more with another example's {part}"
    if warning := little(worth.get("image", math.inf)):
        yield f"warning: {warning}"


def _intervals(comparison: Comparison, images: int) -> str:
    if not comparison.systems:
        few = "there is one image only" if images == 1 else "all images are of one patient or group"
        return f"intervals and tests: none, for {few}, and there is nothing to resample. Score more"
    return (
        f"intervals: 95 %, paired bootstrap of {comparison.samples:,} resamples of {comparison.groups:,} patients or "
        f"groups (seed {comparison.seed}); p: share of resamples in which the model is not better; METEOR "
        "exact: its exact matches alone, which can be resampled"
    )


def _ablation(changed: Comparison) -> Iterator[str]:
    """Whether the context helps, and whether it is read or only there."""
    for name, standing in list(changed.systems.items())[1:]:
        found = standing.behind_model["CIDEr-D"]
        says = "helps" if found.beats else "does not help"
        yield (
            f"context: the patient's own {says} against {name}: CIDEr-D {found.value:+.4f} "
            f"({found.low:+.4f} to {found.high:+.4f}), p = {found.p:.3f}"
        )
