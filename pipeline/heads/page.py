"""The report as one HTML page of small multiples: no script, no network, every figure drawn as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from latentcap.heads.findings import findings
from latentcap.heads.report import HeadReport, HeadSummary, Share
from latentcap.heads.table import COLUMNS, cells
from latentcap.pages.html import escape, page_around_content
from latentcap.pages.viridis import hex_colour

CELL = 20  # of maps and matrices, in SVG units
WIDTH, HEIGHT = 200, 46  # of a histogram


def write_report(path: str | Path, report: HeadReport, *, title: str, notes: Sequence[str] = ()) -> Path:
    """Write the page; its folder is created where missing. Raises OSError where it cannot be written."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(report, title=title, notes=notes), encoding="utf-8")
    return target


def page(report: HeadReport, *, title: str, notes: Sequence[str] = ()) -> str:
    """The page's text. ``notes`` say what was measured, one line each."""
    before, after = page_around_content("heads", title=title)
    said = findings(report)
    body = [
        *(f'<p class="soft">{escape(note)}</p>' for note in notes),
        _section("What stands out", f'<ul class="said">{"".join(f"<li>{escape(line)}</li>" for line in said)}</ul>')
        if said
        else "",
        _section("Importance", _importance(report)),
        *(_kind(report, kind) for kind in ("visual", "text") if report.of(kind)),
        _section("Similarity", _similarities(report)),
        _section("All figures", _table(report)),
    ]
    return before + "\n".join(body) + "\n" + after


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _bar(name: str, value: float, width: float, *, kind: str = "", even: float | None = None) -> str:
    """One line: a name, a bar of ``width`` (0 to 1) with a tick at ``even``, a value."""
    tick = "" if even is None else f'<b style="left:{100 * min(even, 1):.1f}%" title="even reading: {even:.2f}"></b>'
    return (
        f'<div class="row {kind}"><span class="word" title="{escape(name)}">{escape(name)}</span>'
        f'<span class="bar"><i style="width:{100 * min(max(width, 0), 1):.1f}%"></i>{tick}</span>'
        f'<span class="value">{value:.2f}</span></div>'
    )


def _importance(report: HeadReport) -> str:
    top = max((head.relative_importance for head in report.heads), default=0.0) or 1.0
    note = '<p class="soft">|dL/dgate| averaged over examples (Michel et al. 2019); the mean of all heads is 1.</p>'
    return note + "".join(
        _bar(head.name, head.relative_importance, head.relative_importance / top, kind=head.kind)
        for head in report.heads
    )


def _kind(report: HeadReport, kind: str) -> str:
    what = (
        "Mean map, and how the entropy of single maps is spread (0: one place, 1: everywhere alike)."
        if kind == "visual"
        else "Shares of attention (tick: what reading everything alike would give), the words read most, entropy."
    )
    articles = "".join((_visual if kind == "visual" else _text)(head) for head in report.of(kind))
    return _section(f"{kind.capitalize()} heads", f'<p class="soft">{what}</p><div class="heads">{articles}</div>')


def _heading(head: HeadSummary) -> str:
    return (
        f'<h3><span class="{head.kind}">{head.name}</span>'
        f"<small>entropy {head.normalised_entropy:.2f} · peak {head.peak:.2f}</small></h3>"
    )


def _visual(head: HeadSummary) -> str:
    top = max(value for view in head.map for row in view for value in row) or 1.0
    maps = "".join(_grid(view, top) for view in head.map)
    return (
        f'<article>{_heading(head)}<div class="maps">{maps}</div>'
        f"<figcaption>0 to {100 * top:.1f} % a cell · spread {head.spread or 0:.2f} · moves "
        f"{head.variation or 0:.2f}</figcaption>{_histogram(head)}</article>"
    )


def _text(head: HeadSummary) -> str:
    shares: list[tuple[str, Share | None]] = [
        ("context", head.context),
        ("stop words", head.stop),
        ("punctuation", head.punctuation),
        ("special", head.special),
    ]
    bars = "".join(_bar(name, share.value, share.value, even=share.even) for name, share in shares if share)
    top = head.top_words[0][1] if head.top_words else 1.0
    words = "".join(_bar(word, value, value / top, kind="text") for word, value in head.top_words)
    return f"<article>{_heading(head)}<div>{bars}</div><div>{words}</div>{_histogram(head)}</article>"


def _grid(rows: list[list[float]], top: float) -> str:
    """Numbers from 0 to ``top`` as a grid of coloured cells."""
    squares = "".join(
        f'<rect x="{x * CELL}" y="{y * CELL}" width="{CELL + 0.5}" height="{CELL + 0.5}" '
        f'fill="{hex_colour(value / top)}"><title>{100 * value:.1f} %</title></rect>'
        for y, row in enumerate(rows)
        for x, value in enumerate(row)
    )
    width, height = CELL * len(rows[0]), CELL * len(rows)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="mean attention map">{squares}</svg>'


def _histogram(head: HeadSummary) -> str:
    top, step = max(head.histogram) or 1.0, WIDTH / len(head.histogram)
    bars = "".join(
        f'<rect x="{i * step:.1f}" y="{HEIGHT * (1 - value / top):.1f}" width="{step - 1:.1f}" '
        f'height="{HEIGHT * value / top:.1f}" fill="currentColor"><title>{100 * value:.1f} %</title></rect>'
        for i, value in enumerate(head.histogram)
    )
    labels = (
        f'<text x="0" y="{HEIGHT + 13}">0</text><text x="{WIDTH}" y="{HEIGHT + 13}" text-anchor="end">1</text>'
        f'<text x="{WIDTH / 2}" y="{HEIGHT + 13}" text-anchor="middle">entropy</text>'
    )
    return (
        f'<svg class="{head.kind}" viewBox="0 0 {WIDTH} {HEIGHT + 16}" role="img" '
        f'aria-label="histogram of entropy, mean {head.normalised_entropy:.2f}">{bars}{labels}</svg>'
    )


def _similarities(report: HeadReport) -> str:
    matrices = (("visual", report.visual_similarity), ("text", report.text_similarity))
    drawn = "".join(_matrix(kind, matrix) for kind, matrix in matrices if len(matrix) > 1)
    note = '<p class="soft">1 minus the Jensen-Shannon divergence in bits: 1 is the same attention, 0 none shared.</p>'
    return note + f'<div class="pair">{drawn}</div>'


def _matrix(kind: str, matrix: list[list[float]]) -> str:
    side, size, edge = 44, len(matrix), 22
    squares = []
    for y, row in enumerate(matrix):
        for x, value in enumerate(row):
            ink = "#111" if value > 0.6 else "#fff"
            squares.append(
                f'<rect x="{edge + x * side}" y="{edge + y * side}" width="{side - 2}" height="{side - 2}" rx="4" '
                f'fill="{hex_colour(value)}"/><text x="{edge + (x + 0.5) * side - 1}" '
                f'y="{edge + (y + 0.5) * side + 3}" text-anchor="middle" style="fill:{ink}">{value:.2f}</text>'
            )
    names = "".join(
        f'<text x="{edge + (i + 0.5) * side - 1}" y="14" text-anchor="middle">{i + 1}</text>'
        f'<text x="10" y="{edge + (i + 0.5) * side + 3}" text-anchor="middle">{i + 1}</text>'
        for i in range(size)
    )
    extent = edge + size * side
    return (
        f'<figure><figcaption class="{kind}">{kind} heads</figcaption><svg viewBox="0 0 {extent} {extent}" '
        f'style="max-width:{extent + 40}px" role="img" aria-label="similarity of {kind} heads">{names}'
        f"{''.join(squares)}</svg></figure>"
    )


def _table(report: HeadReport) -> str:
    header = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("head", *COLUMNS))
    rows = "".join(
        f'<tr><th scope="row" class="{head.kind}">{head.name}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells(head))
        + "</tr>"
        for head in report.heads
    )
    return f'<div class="scroll"><table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table></div>'
