"""Small plots as inline SVG; colours come from the page's style sheet, by class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from models.report.html import Html, element

Point = tuple[float, float]
_WIDTH, _HEIGHT = 560.0, 260.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 16.0, 14.0, 40.0


@dataclass(frozen=True)
class Line:
    """Points joined in order, or standing alone; `cls` decides the colour."""

    name: str
    points: Sequence[Point]
    cls: str = "s0"
    is_joined: bool = True


@dataclass(frozen=True)
class Row:
    """A figure with its bounds; `note` stands at the end, such as how many it was made of."""

    label: str
    value: float
    low: float
    high: float
    note: str = ""
    cls: str = "s0"


def line_chart(
    lines: Sequence[Line], *, x_name: str, y_name: str, title: str, is_share: bool = False
) -> Html:
    """Lines over a numeric axis. `is_share` fixes both axes to 0–100 %."""
    points = [point for line in lines for point in line.points]
    x_low, x_high = (0.0, 1.0) if is_share else _range([x for x, _ in points], 0.0)
    y_low, y_high = (0.0, 1.0) if is_share else _range([y for _, y in points], 0.08)
    x_ticks, y_ticks = ticks(x_low, x_high), ticks(y_low, y_high)

    def place(point: Point) -> Point:
        x = _LEFT + (point[0] - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)
        y = _TOP + (y_high - point[1]) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)
        return x, y

    parts = []
    for tick in y_ticks:
        _, y = place((x_low, tick))
        parts.append(_line(_LEFT, y, _WIDTH - _RIGHT, y, "grid"))
        parts.append(_text(_LEFT - 8, y + 4, _shown(tick, is_share), "tick end"))
    for tick in x_ticks:
        x, _ = place((tick, y_low))
        parts.append(_text(x, _HEIGHT - _BOTTOM + 18, _shown(tick, is_share), "tick middle"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 4, x_name, "axis middle"))
    for line in lines:
        placed = [place(point) for point in line.points]
        if line.is_joined:
            shown = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
            parts.append(element("polyline", cls=f"curve {line.cls}", attrs={"points": shown}))
        if len(placed) <= 30 or not line.is_joined:
            parts += [
                element("circle", cls=f"dot {line.cls}", attrs=_numbers(cx=x, cy=y, r=2.6))
                for x, y in placed
            ]
    legend = [
        element("span", element("i", cls=line.cls), line.name) for line in lines if len(lines) > 1
    ]
    return element(
        "figure",
        element("figcaption", element("b", title), element("span", y_name)),
        _svg(_WIDTH, _HEIGHT, f"{title}: {y_name} by {x_name}", parts),
        element("p", *legend, cls="legend") if legend else None,
    )


def interval_chart(
    rows: Sequence[Row], *, title: str, subtitle: str = "", reference: float | None = None
) -> Html:
    """Figures as dots with their bounds as whiskers, one below the other.

    `reference` draws a line through all of them, such as the figure over everything.
    """
    step, left, note = 26.0, 196.0, 116.0
    height = _TOP + step * len(rows) + 30
    most = max([row.high for row in rows] + [reference or 0.0, 1e-9])
    tick_step = ticks(0.0, most)[1]
    high = tick_step * math.ceil(most / tick_step - 1e-9)

    def x_of(value: float) -> float:
        return left + max(0.0, value) / high * (_WIDTH - left - note)

    base = _TOP + step * len(rows)
    parts = []
    for number in range(round(high / tick_step) + 1):
        tick = round(number * tick_step, 10)
        parts.append(_line(x_of(tick), _TOP, x_of(tick), base, "grid"))
        parts.append(_text(x_of(tick), base + 17, _shown(tick, False), "tick middle"))
    if reference is not None:
        parts.append(_line(x_of(reference), _TOP, x_of(reference), base, "reference"))
    for number, row in enumerate(rows):
        y = _TOP + step * (number + 0.5)
        shown = row.label if len(row.label) <= 25 else f"{row.label[:24]}…"
        parts.append(_text(left - 12, y + 4, shown, "label end", whole=row.label))
        parts.append(_line(x_of(row.low), y, x_of(row.high), y, f"whisker {row.cls}"))
        parts.append(
            element("circle", cls=f"dot {row.cls}", attrs=_numbers(cx=x_of(row.value), cy=y, r=4.6))
        )
        parts.append(_text(_WIDTH - note + 14, y + 4, f"{row.value:.3f}", "value"))
        parts.append(_text(_WIDTH - 2, y + 4, row.note, "tick end"))
    described = "; ".join(
        f"{row.label} {row.value:.3f} ({row.low:.3f} to {row.high:.3f})" for row in rows
    )
    return element(
        "figure",
        element("figcaption", element("b", title), element("span", subtitle)),
        _svg(_WIDTH, height, f"{title}: {described}", parts),
    )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, about so many."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _range(values: Sequence[float], margin: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = (high - low) * margin or (0.0 if high > low else 1.0)
    return low - pad, high + pad


def _shown(value: float, is_share: bool) -> str:
    return f"{value:.0%}" if is_share else f"{value:,.6g}"


def _svg(width: float, height: float, label: str, parts: Sequence[Html]) -> Html:
    attrs = {"viewBox": f"0 0 {width:g} {height:g}", "role": "img", "aria-label": label}
    return element("svg", *parts, attrs=attrs)


def _line(x1: float, y1: float, x2: float, y2: float, cls: str) -> Html:
    return element("line", cls=cls, attrs=_numbers(x1=x1, y1=y1, x2=x2, y2=y2))


def _text(x: float, y: float, text: str, cls: str, whole: str = "") -> Html:
    title = element("title", whole) if whole and whole != text else None
    return element("text", title, text, cls=cls, attrs=_numbers(x=x, y=y))


def _numbers(**values: float) -> dict[str, str]:
    return {name: f"{value:.1f}" for name, value in values.items()}
