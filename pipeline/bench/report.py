"""The report of a benchmark: tables for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from latentcap.bench.timing import Section, shown


def described(found: Mapping[str, Any]) -> str:
    """The machine, in a line."""
    gpu = f"{found['gpu']}, " if found["gpu"] else ""
    return (
        f"{gpu}{found['cpu']}, {found['threads']} threads, bfloat16 on CPU {found['bfloat16 on cpu']}, "
        f"torch {found['torch']}, Python {found['python']}, {found['date']}"
    )


def show(section: Section, console: Console) -> None:
    table = Table(title=escape(section.title))
    for name, value in section.rows[0].items():
        table.add_column(escape(name), justify="left" if isinstance(value, str) else "right")
    for row in section.rows:
        table.add_row(*(escape(shown(value)) for value in row.values()))
    console.print(table)
    for note in section.notes:
        console.print(escape(note), style="dim", highlight=False)
    console.print()


def markdown(found: dict[str, Any], report: dict[str, list[Section]]) -> str:
    """All sections as Markdown tables."""
    lines = [described(found), "Medians; in brackets the least and the greatest of the turns.", ""]
    for section in (section for sections in report.values() for section in sections):
        lines += [f"## {section.title}", ""]
        lines.append("| " + " | ".join(section.rows[0]) + " |")
        lines.append(
            "|" + "|".join(" --- " if isinstance(v, str) else " ---: " for v in section.rows[0].values()) + "|"
        )
        lines += ["| " + " | ".join(shown(value) for value in row.values()) + " |" for row in section.rows]
        lines += ["", *(f"- {note}" for note in section.notes), ""]
    return "\n".join(lines)
