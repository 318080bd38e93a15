"""HTML from Python, escaped unless it was made here."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources

_VOID = {"br", "circle", "line", "path", "polyline", "rect", "meta"}


class Html(str):
    """Markup, as opposed to text from anywhere else. Only `element` and `join` make it."""


Child = Html | str | int | None


def element(
    name: str, *children: Child, attrs: Mapping[str, object] | None = None, cls: str = ""
) -> Html:
    """One element; text children and attribute values are escaped, None is left out."""
    given = {"class": cls, **(attrs or {})} if cls else dict(attrs or {})
    shown = "".join(f' {key}="{escape(str(value))}"' for key, value in given.items())
    if name in _VOID and not children:
        return Html(f"<{name}{shown}/>")
    return Html(f"<{name}{shown}>{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Html:
    """Children one after the other, text escaped."""
    return Html(
        "".join(
            child if isinstance(child, Html) else escape(str(child))
            for child in children
            if child is not None
        )
    )


def table(head: Sequence[Child], rows: Iterable[Sequence[Child]], *, cls: str = "") -> Html:
    """A table whose first column names its rows; it scrolls by itself where there is no room."""
    lines = [
        element("tr", element("th", row[0], attrs={"scope": "row"}),
                *(element("td", cell) for cell in row[1:]))
        for row in rows
    ]  # fmt: skip
    header = element("tr", *(element("th", cell, attrs={"scope": "col"}) for cell in head))
    made = element("table", element("thead", header), element("tbody", *lines), cls=cls)
    return element("div", made, cls="scroll", attrs={"tabindex": "0"})


def section(key: str, title: str, *children: Child) -> Html:
    """A part of a page that can be linked to."""
    return element("section", element("h2", title), *children, attrs={"id": key})


def facts(pairs: Iterable[tuple[str, Child]]) -> Html:
    """Names and values."""
    return element(
        "dl", *(element("div", element("dt", name), element("dd", value)) for name, value in pairs)
    )


def document(title: str, *children: Child) -> Html:
    """A whole page that loads nothing, runs nothing, and follows the reader's light or dark."""
    style = Html(resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8"))
    head = element(
        "head",
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html('<meta name="color-scheme" content="light dark">'),
        element("title", title),
        Html(f"<style>{style}</style>"),
    )
    body = element("body", *children)
    return Html(f'<!doctype html>\n<html lang="en">{head}{body}</html>\n')
