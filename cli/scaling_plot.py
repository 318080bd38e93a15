"""A plot of two curves over the size of a catalogue, as a small SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_PANEL_WIDTH, _PANEL_HEIGHT, _LEFT, _TOP, _GAP = 340, 220, 70, 40, 90
_LAST_ITEMS = 1_000_000


@dataclass(frozen=True)
class Curve:
    """Values by number of items, measured."""

    label: str
    points: Sequence[tuple[int, float]]


def plotted(path: Path, time: Curve, memory: Curve, paper: tuple[float, float]) -> None:
    """Write both panels to `path`; `paper` are the values at a million items, by formula."""
    panels = [
        _panel(curve, value, _LEFT + number * (_PANEL_WIDTH + _GAP))
        for number, (curve, value) in enumerate(((time, paper[0]), (memory, paper[1])))
    ]
    width = _LEFT + 2 * _PANEL_WIDTH + _GAP + 40
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
        f'height="{_PANEL_HEIGHT + 100}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(panels)}</svg>\n'
    )


def _panel(curve: Curve, paper: float, left: float) -> str:
    first = min(n for n, _ in curve.points)
    top = 10 ** math.ceil(math.log10(max(paper, *(value for _, value in curve.points))))
    bottom = 10 ** math.floor(math.log10(min(value for _, value in curve.points)))

    def at(n_items: float, value: float) -> tuple[float, float]:
        x = math.log(n_items / first) / math.log(_LAST_ITEMS / first)
        y = math.log(value / bottom) / math.log(top / bottom)
        return left + x * _PANEL_WIDTH, _TOP + (1 - y) * _PANEL_HEIGHT

    parts = [
        f'<text x="{left}" y="{_TOP - 16}" font-weight="bold">{curve.label}</text>',
        f'<rect x="{left}" y="{_TOP}" width="{_PANEL_WIDTH}" height="{_PANEL_HEIGHT}" '
        'fill="none" stroke="#999"/>',
    ]
    for power in range(round(math.log10(bottom)), round(math.log10(top)) + 1):
        _, y = at(first, 10.0**power)
        parts.append(f'<line x1="{left}" x2="{left + _PANEL_WIDTH}" y1="{y}" y2="{y}" '
                     'stroke="#ddd"/>')  # fmt: skip
        parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{10.0**power:g}</text>')
    for n_items in sorted({*(n for n, _ in curve.points), _LAST_ITEMS}):
        x, _ = at(n_items, bottom)
        parts.append(f'<text x="{x}" y="{_TOP + _PANEL_HEIGHT + 18}" text-anchor="middle">'
                     f"{n_items:,}</text>")  # fmt: skip
    places = [at(n, value) for n, value in curve.points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    (last_x, last_y), (x, y) = places[-1], at(_LAST_ITEMS, paper)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#0a6" stroke-width="2"/>')
    parts.append(f'<line x1="{last_x:.1f}" y1="{last_y:.1f}" x2="{x:.1f}" y2="{y:.1f}" '
                 'stroke="#0a6" stroke-dasharray="4 4"/>')  # fmt: skip
    for (place_x, place_y), (_, value) in zip(places, curve.points, strict=True):
        parts.append(f'<circle cx="{place_x:.1f}" cy="{place_y:.1f}" r="4" fill="#0a6"/>')
        parts.append(f'<text x="{place_x:.1f}" y="{place_y - 9:.1f}" text-anchor="middle">'
                     f"{value:.3g}</text>")  # fmt: skip
    parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="white" stroke="#0a6"/>')
    parts.append(f'<text x="{x:.1f}" y="{y - 9:.1f}" text-anchor="end">{paper:.3g} by formula'
                 "</text>")  # fmt: skip
    parts.append(f'<text x="{left + _PANEL_WIDTH / 2}" y="{_TOP + _PANEL_HEIGHT + 38}" '
                 'text-anchor="middle">items</text>')  # fmt: skip
    return "".join(parts)
