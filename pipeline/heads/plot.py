"""Small line charts side by side, as one SVG text that any browser shows and no library draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 300, 220  # of one chart, in pixels
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 34, 40
COLOUR = "#0072b2"  # Okabe and Ito's blue, readable for the colour-blind


@dataclass(frozen=True)
class Chart:
    """One line: ``points`` (x, y) in the order of x, ``label`` of the x axis, and where given a dashed level."""

    title: str
    label: str
    points: Sequence[tuple[float, float]]
    level: float | None = None
    from_zero: bool = True


def line_charts(charts: Sequence[Chart]) -> str:
    """The charts from left to right. The values show when the pointer rests on a dot."""
    width = WIDTH * len(charts)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="11" fill="#333">',
        f'<rect width="{width}" height="{HEIGHT}" fill="white"/>',
    ]
    for place, chart in enumerate(charts):
        parts += [f'<g transform="translate({WIDTH * place} 0)">', *_draw(chart), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _draw(chart: Chart) -> list[str]:
    xs, ys = [x for x, _ in chart.points], [y for _, y in chart.points]
    shown = [*ys, *([] if chart.level is None else [chart.level]), *([0.0] if chart.from_zero else [])]
    low, high = min(shown), max(shown)
    margin = (high - low) * 0.08 or 1.0
    low, high = low if chart.from_zero else low - margin, high + margin
    left, right, bottom = LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(value: float) -> float:
        return left + (value - min(xs)) / ((max(xs) - min(xs)) or 1) * (right - left)

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - TOP)

    parts = [
        f'<text x="{left}" y="18" font-size="13">{escape(chart.title)}</text>',
        f'<path d="M{left} {TOP}V{bottom}H{right}" fill="none" stroke="#999"/>',
        f'<text x="{(left + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(chart.label)}</text>',
    ]
    for value in (low, (low + high) / 2, high):
        parts.append(f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for value in sorted(set(xs)):
        parts.append(f'<text x="{x(value):.1f}" y="{bottom + 15}" text-anchor="middle">{value:g}</text>')
    if chart.level is not None:
        parts.append(f'<path d="M{left} {y(chart.level):.1f}H{right}" stroke="#d55e00" stroke-dasharray="4 3"/>')
    line = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in chart.points)
    parts.append(f'<polyline points="{line}" fill="none" stroke="{COLOUR}" stroke-width="2"/>')
    for a, b in chart.points:
        dot = f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3.5" fill="{COLOUR}">'
        parts.append(f"{dot}<title>{a:g}: {b:.4g}</title></circle>")
    return parts
