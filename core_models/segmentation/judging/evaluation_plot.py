"""Recorded figures → an SVG: mean Dice against the number of clicks, a panel a cohort, a line an engine."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

COLOURS = ("#2563a8", "#b45309", "#6b7280", "#15803d", "#7c3aed", "#be123c")
WIDTH, HEIGHT, ACROSS = 250, 170, 3  # of a panel's axes; panels in a row
LEFT, TOP, GAP_X, GAP_Y = 44, 34, 46, 62
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
DEMO = "demo-ct"


def svg(result: dict[str, Any], panels: Sequence[tuple[str, str]]) -> str:
    """Args: panels: (cohort, its title) in the order to show them."""
    names = sorted(result["engines"], key=lambda n: n not in result["defaults"].values())
    rows = -(-len(panels) // ACROSS)
    width = LEFT + ACROSS * (WIDTH + GAP_X)
    height = TOP + rows * (HEIGHT + GAP_Y) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" font-family="sans-serif" font-size="11" fill="#333"><title>Dice against clicks</title>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for k, (cohort, title) in enumerate(panels):
        x, y = LEFT + (k % ACROSS) * (WIDTH + GAP_X), TOP + (k // ACROSS) * (HEIGHT + GAP_Y)
        parts += _panel(result, names, cohort, title, x, y)
    for k, name in enumerate(names):
        x, y, colour = LEFT + 160 * k, height - 12, COLOURS[k % len(COLOURS)]
        parts.append(f'<line x1="{x}" x2="{x + 18}" y1="{y - 4}" y2="{y - 4}" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 24}" y="{y}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(result: dict[str, Any], names: list[str], cohort: str, title: str, x: int, y: int) -> list[str]:
    clicks = result["clicks"]

    def at(n: int, value: float) -> tuple[float, float]:
        across = (n - 1) / max(1, clicks - 1)
        return x + 6 + (WIDTH - 12) * across, y + HEIGHT * (1 - max(0.0, min(1.0, value)))

    parts = [f'<text x="{x}" y="{y - 10}" font-size="12">{escape(title)}</text>']
    for tick in TICKS:
        height = at(1, tick)[1]
        parts.append(f'<line x1="{x}" x2="{x + WIDTH}" y1="{height:.1f}" y2="{height:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{x - 6}" y="{height + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for n in range(1, clicks + 1):
        parts.append(f'<text x="{at(n, 0)[0]:.1f}" y="{y + HEIGHT + 16}" text-anchor="middle">{n}</text>')
    parts.append(f'<text x="{x + WIDTH / 2}" y="{y + HEIGHT + 31}" text-anchor="middle">clicks</text>')
    for k, name in reversed(list(enumerate(names))):  # the page's engine over the others
        one = result["engines"][name]
        found = one if cohort == DEMO else one["cohorts"].get(cohort)
        if not found or not found["n"]:
            continue
        colour = COLOURS[k % len(COLOURS)]
        spans = found["curve_ci"]
        if spans and all(v is not None for ends in spans for v in ends):
            there = [at(n, ends[0]) for n, ends in enumerate(spans, 1)]
            back = [at(n, ends[1]) for n, ends in reversed(list(enumerate(spans, 1)))]
            parts.append(f'<polygon points="{_points(there + back)}" fill="{colour}" fill-opacity="0.12"/>')
        line = [at(n, value) for n, value in enumerate(found["curve"], 1)]
        parts.append(f'<polyline points="{_points(line)}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return parts


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
