"""How a report writes names, figures and verdicts."""

from collections.abc import Mapping
from typing import Any

from models.report.html import Html, element

Json = Mapping[str, Any]
_NAMES = {
    "reranked": "all, re-ranked by trees", "fusion": "GRU4Rec and neighbours",
    "gru4rec": "GRU4Rec", "popularity": "bestsellers",
    "item-knn": "similar items (item-kNN)", "vmis-knn": "similar sessions (VMIS-kNN)",
    "v-sknn": "similar sessions (V-SKNN)",
}  # fmt: skip


def named(model: str) -> str:
    """A model's name for people."""
    return _NAMES.get(model, model)


def outcome(is_passed: bool) -> Html:
    """A badge."""
    return element("span", "passed" if is_passed else "failed",
                   cls=f"badge {'good' if is_passed else 'bad'}")  # fmt: skip


def figure(found: Json) -> Html:
    """A figure above its bounds."""
    bounds = element("small", f"{found['low']:.4f}–{found['high']:.4f}")
    return element("span", f"{found['value']:.4f}", bounds)


def signed(found: Json) -> Html:
    """A difference above its bounds."""
    value = found.get("value", found.get("difference", 0.0))
    bounds = element("small", f"{found['low']:+.4f} to {found['high']:+.4f}")
    return element("span", f"{value:+.4f}", bounds)


def verdict(*differences: Json) -> Html:
    """Whether differences are more than chance, all of them and in one direction."""
    better = [one["low"] > 0 for one in differences]
    worse = [one["high"] < 0 for one in differences]
    if all(better):
        return element("span", "surely better", cls="badge good")
    if all(worse):
        return element("span", "surely worse", cls="badge bad")
    if any(better) and any(worse):
        return element("span", "better and worse", cls="badge plain")
    if any(better):
        return element("span", "better in part", cls="badge good")
    if any(worse):
        return element("span", "worse in part", cls="badge bad")
    return element("span", "may be chance", cls="badge plain")


def formatted(value: float | None, form: str) -> str:
    """A number by its form, `.2f bits` for one with a unit; a dash where there is none."""
    if value is None:
        return "–"
    spec, _, unit = form.partition(" ")
    return f"{value:{spec}}{f' {unit}' if unit else ''}"


def moment(text: str) -> str:
    """A moment of JSON, to the minute."""
    return f"{text[:16].replace('T', ' ')} UTC"


def written(value: object) -> str:
    """A value of a configuration."""
    if isinstance(value, list):
        return ", ".join(str(one) for one in value)
    return "–" if value is None else str(value)
