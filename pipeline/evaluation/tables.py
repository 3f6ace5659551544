"""The tables that ``latentcap evaluate`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from latentcap.evaluation.comparison import TESTED, Comparison
from latentcap.evaluation.report import COUNTS, Column


def score_table(columns: Mapping[str, Column], title: str) -> Table:
    """Scores and variety of each system, a column each."""
    table = Table(title=title)
    table.add_column("")
    for place, name in enumerate(columns):
        table.add_column(name, justify="right", style="bold" if place == 0 else None)
    for name in next(iter(columns.values())):
        if name == "distinct captions":
            table.add_section()
        table.add_row(name, *(shown(name, column[name]) for column in columns.values()))
    return table


def interval_tables(comparison: Comparison) -> list[Table]:
    """Two scores to a table, which fit 80 columns: see :func:`interval_table`."""
    if not comparison.systems:
        return []
    first, *_ = comparison.systems
    tested = [name for name in comparison.systems[first].intervals if name in TESTED or " F1 " in name]
    return [interval_table(comparison, tested[at : at + 2]) for at in range(0, len(tested), 2)]


def interval_table(comparison: Comparison, tested: Sequence[str]) -> Table:
    """Scores with their 95 % intervals, and how far the first system is ahead of each other one."""
    first, *_ = comparison.systems
    table = Table(title=f"95 % intervals, and {first} minus each (p)")
    table.add_column("", no_wrap=True)
    for name in tested:
        table.add_column(name, justify="right", no_wrap=True)
    for system, standing in comparison.systems.items():
        cells = []
        for name in tested:
            own, behind = standing.intervals[name], standing.behind_model.get(name)
            text = f"{own.value:.3f} ({own.low:.3f} to {own.high:.3f})"
            if behind is not None:
                text += f"\n{behind.value:+.3f} ({behind.low:+.3f} to {behind.high:+.3f})\np = {behind.p:.3f}"
            cells.append(text)
        table.add_row(system, *cells, end_section=True)
    return table


def agreement_table(kind: str, systems: Mapping[str, Mapping[str, float]]) -> Table:
    """Precision, recall and F1 of each system: pooled (micro), over findings (macro), over examples."""
    table = Table(title=kind)
    table.add_column("", no_wrap=True)
    for name in systems:
        table.add_column(name, justify="right")
    for row in next(iter(systems.values())):
        if row.startswith("precision") and "micro" not in row:
            table.add_section()
        table.add_row(row, *(f"{scores[row]:.3f}" for scores in systems.values()))
    return table


def finding_tables(systems: Mapping[str, Mapping[str, Mapping[str, float]]], uncertain: str) -> list[Table]:
    """F1 of each observation and system; in brackets how many reports say it rightly, and how many say it.

    Four systems to a table, which fit 80 columns.
    """
    references = {name: entry["references"] for found in systems.values() for name, entry in found.items()}
    tables = []
    for start in range(0, len(systems), 4):
        names = list(systems)[start : start + 4]
        table = Table(title=f"CheXpert observations, doubt counts as {uncertain}: F1 (right / said)")
        table.add_column("", no_wrap=True)
        table.add_column("there", justify="right")
        for name in names:
            table.add_column(name, justify="right", no_wrap=True)
        for finding, count in references.items():
            cells = [_found(systems[name].get(finding)) for name in names]
            table.add_row(finding[:18], f"{count:.0f}", *cells)
        tables.append(table)
    return tables


def _found(entry: Mapping[str, float] | None) -> str:
    return "—" if entry is None else f"{entry['F1']:.2f} ({entry['found']:.0f}/{entry['said']:.0f})"


def shown(name: str, value: float | None) -> str:
    if value is None:
        return "—"
    if name in COUNTS:
        return f"{value:,.0f}"
    return f"{value:.1f}" if name == "mean length" else f"{value:.1%}" if name == "novel share" else f"{value:.4f}"
