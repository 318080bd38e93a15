"""The report of a model bundle, made of what is in it.

One HTML file: no script, nothing loaded from anywhere, plots as inline SVG. Text that shops send
(titles, categories, ids) is escaped like any other.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq

from models.bundle import CHECKS, Check, read_manifest, write_report_files
from models.item_tables import Item
from models.report import sections
from models.report.html import Html, document, element
from models.report.reranking import reranked

MAX_BYTES = 1_000_000
_LINKS = (
    ("compared", "Compared"), ("checks", "Checks"), ("slices", "Slices"),
    ("examples", "Sessions"), ("recommended", "Recommended"), ("reranking", "Re-ranking"),
    ("training", "Making"), ("figures", "All figures"),
)  # fmt: skip


def write_report(folder: Path, evaluation: Mapping[str, Any]) -> Path:
    """Keep `evaluation` and the report of it in the judged bundle `folder`; the report's path."""
    write_report_files(folder, evaluation, render(folder, evaluation))
    return folder / "report.html"


def render(folder: Path, evaluation: Mapping[str, Any]) -> Html:
    """The report of the bundle in `folder`, less than MAX_BYTES of it."""
    metrics = msgspec.json.decode((folder / "metrics.json").read_bytes())
    checks = msgspec.json.decode((folder / CHECKS).read_bytes(), type=list[Check])
    config = msgspec.json.decode((folder / "config.json").read_bytes())
    manifest = msgspec.to_builtins(read_manifest(folder))
    items = _items(folder, evaluation["examples"])
    parts = [
        sections.compared(evaluation, metrics),
        sections.checked(checks),
        sections.sliced(evaluation),
        sections.shown(evaluation, items),
        sections.recommended(evaluation),
        reranked(metrics),
        sections.trained(metrics, config, manifest),
        sections.all_figures(evaluation),
    ]
    name = f"{manifest['name']} {manifest['version']}"
    return document(
        name,
        element("header", *_heading(name, evaluation, checks, manifest)),
        element("main", *parts),
        element(
            "footer",
            "Definitions with their sources are in docs/evaluation.md of Shallop. The figures "
            "behind this page are evaluation.json, metrics.json and checks.json beside it.",
        ),
    )


def _heading(
    name: str, evaluation: Mapping[str, Any], checks: Sequence[Check], manifest: Mapping[str, Any]
) -> list[Html]:
    models, main = evaluation["models"], evaluation["main"]
    is_passed = all(check.passed for check in checks)
    gate = "passed the gate" if is_passed else "refused by the gate"
    recall, mrr = models[main]["served"]["recall@20"], models[main]["served"]["mrr@20"]
    lists = models[main]["lists"]
    said = [
        f"Of 100 times that a shopper went on to another item, it was among the 20 recommended "
        f"{_of_100(recall['value'])} times"
    ]
    if "popularity" in models and main != "popularity":
        plain = models["popularity"]["served"]["recall@20"]["value"]
        said.append(f"; the same 20 bestsellers for everybody would have had it {_of_100(plain)}")
    lift = lists["popularity_lift"]
    return [
        element("h1", element("small", "Model report"), name),
        element("div",
                element("span", gate, cls=f"badge {'good' if is_passed else 'bad'}"),
                element("span", str(manifest["created_at"])[:10], cls="badge plain"),
                element("span", f"{evaluation['n_predictions']:,} predictions judged",
                        cls="badge plain"), cls="badges"),
        element("p", f"{''.join(said)}.", cls="lead"),
        element("div",
                _tile(f"{recall['value']:.3f}", "recall@20",
                      f"between {recall['low']:.3f} and {recall['high']:.3f} by chance"),
                _tile(f"{mrr['value']:.3f}", "mrr@20",
                      f"between {mrr['low']:.3f} and {mrr['high']:.3f} by chance"),
                _tile(f"{lists['coverage']:.0%}", "of the catalogue recommended",
                      f"{lists['items_making_50%']:.0%} of the items fill half of the places"),
                _tile(f"{lift:+.0%}", "popularity lift",
                      f"{'more' if lift >= 0 else 'less'} popular than what shoppers looked at"),
                cls="tiles"),
        element("nav", *(element("a", title, attrs={"href": f"#{key}"}) for key, title in _LINKS)),
    ]  # fmt: skip


def _tile(value: str, name: str, note: str) -> Html:
    return element(
        "div", element("b", value), element("span", name), element("small", note), cls="tile"
    )


def _of_100(share: float) -> str:
    return f"{share * 100:.0f}"


def _items(folder: Path, examples: Sequence[Mapping[str, Any]]) -> dict[str, Item]:
    """What is known of the items of `examples`."""
    wanted = {
        item_id for one in examples for item_id in (*one["seen"], *one["recommended"], one["next"])
    }
    columns = ["item_id", "title", "category", "price"]
    rows = pq.read_table(folder / "items.parquet", columns=columns).to_pylist()
    return {row["item_id"]: Item(**row) for row in rows if row["item_id"] in wanted}
