"""The report as rows: for the terminal, for the page, and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from latentcap.heads.findings import findings
from latentcap.heads.report import HeadReport, HeadSummary, Share


def _share(share: Share | None) -> float | None:
    return None if share is None else share.value


FIGURES: dict[str, Callable[[HeadSummary], float | None]] = {
    "gate": lambda head: head.gate,
    "importance": lambda head: head.relative_importance,
    "entropy": lambda head: head.entropy,
    "of even": lambda head: head.normalised_entropy,
    "peak": lambda head: head.peak,
    "spread": lambda head: head.spread,
    "moves": lambda head: head.variation,
    "stop": lambda head: _share(head.stop),
    "punct": lambda head: _share(head.punctuation),
    "context": lambda head: _share(head.context),
    "use": lambda head: head.use,
}
COLUMNS = (*FIGURES, "most alike")


def cells(head: HeadSummary) -> list[str]:
    """The figures of one head, in the order of ``COLUMNS``; a dash where a figure does not apply."""
    figures = [figure(head) for figure in FIGURES.values()]
    twin = "-" if head.twin is None else f"{head.twin} ({head.twin_similarity:.2f})"
    return ["-" if value is None else f"{value:.2f}" for value in figures] + [twin]


def write_csv(path: Path, report: HeadReport) -> None:
    """One row for each head at full precision. Raises OSError where the file cannot be written."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["kind", "number", "|dL/dgate|", *FIGURES, "most alike", "similarity", "reads most"])
        for head in report.heads:
            figures = ["" if (value := figure(head)) is None else value for figure in FIGURES.values()]
            words = " ".join(word for word, _ in head.top_words)
            writer.writerow(
                [head.kind, head.number, head.importance, *figures]
                + [head.twin if head.twin is not None else "", head.twin_similarity, words]
            )


def show(report: HeadReport, console: Console) -> None:
    """Print a table for each kind, with the figures that it has, and what stands out."""
    for kind in ("visual", "text"):
        rows = [[str(head.number), *cells(head)] for head in report.of(kind)]
        if not rows:
            continue
        names = (kind, *COLUMNS)
        idle = {"gate": ("-", "1.00"), "use": ("-", "1.00")}  # what says nothing where every head has it
        shown = [
            place for place, name in enumerate(names) if any(row[place] not in idle.get(name, ("-",)) for row in rows)
        ]
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)  # fits 80 columns
        for place in shown:
            table.add_column(names[place], justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*(row[place] for place in shown))
        console.print(table)
        console.print()
    for line in findings(report):
        console.print(escape(line), highlight=False, soft_wrap=True)
    console.print(f"{report.examples:,} examples, {report.queries:,} words", highlight=False)
