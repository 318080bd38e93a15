import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from models.bundle import Check, verify_files, write_checks
from models.candidate import Candidate, build_candidate
from models.manifest import BundleCorrupt, decode_manifest
from models.report.figures import verdict
from models.report.html import Html, element, join, table
from models.report.page import MAX_BYTES, render, write_report
from models.report.svg import Line, Row, interval_chart, line_chart, ticks
from tests.models.conftest import (
    SMALL,
    SNAPSHOT,
    items_mart,
    popularity_mart,
    ring_sessions,
    steps_mart,
)
from warehouse.settings import TrainingSettings

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


class Page(HTMLParser):
    """What a page has: tags, what it loads, handlers, text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag != "meta":
            self._open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "action"):
                self.loads.append(value or "")
            if name.startswith("on") or name == "style":
                self.handlers.append(name)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    """A candidate of a shop whose titles, categories and ids are markup."""
    steps, items = steps_mart(ring_sessions(300)), items_mart()
    rows = [
        {**row, "item_id": EVIL + row["item_id"], "title": EVIL, "category": EVIL}
        for row in items.to_pylist()
    ]
    evil_steps = [{**row, "item_id": EVIL + row["item_id"]} for row in steps.to_pylist()]
    return build_candidate(
        steps.from_pylist(evil_steps, schema=steps.schema),
        items.from_pylist(rows, schema=items.schema), popularity_mart(),
        training=TrainingSettings(), config=SMALL, snapshot_id="snapshot-1",
        folder=tmp_path_factory.mktemp("hostile"),
    )  # fmt: skip


def test_a_candidate_has_a_report_under_the_manifests_hashes(candidate: Candidate):
    manifest = verify_files(candidate.folder)
    assert {"evaluation.json", "report.html"} <= set(manifest.files)
    page = (candidate.folder / "report.html").read_text()
    assert len(page.encode()) < MAX_BYTES
    found = Page(page)
    assert candidate.version in found.text
    assert "passed the gate" in found.text
    for check in candidate.checks:
        assert check.message in found.text
    recall = msgspec.json.decode((candidate.folder / "metrics.json").read_bytes())["summary"]
    assert f"{recall['recall@20']['value']:.3f}" in found.text


def test_a_bundle_names_its_data_and_what_was_left_out(candidate: Candidate, hostile: Candidate):
    manifest = verify_files(candidate.folder)
    assert manifest.snapshot_id == SNAPSHOT.snapshot_id
    assert manifest.marts == {"training_steps": "ab" * 32}
    assert manifest.raw == SNAPSHOT.raw_objects
    metrics = msgspec.json.decode((candidate.folder / "metrics.json").read_bytes())
    assert metrics["left_out"]["bot_agent"] == {"n_sessions": 3, "n_events": 17}
    text = Page((candidate.folder / "report.html").read_text()).text
    assert f"2, 1,234 events, sha256 {'cd' * 8}" in text
    assert "3 bot agent (17 events), 1 too many events (1,001 events)" in text
    assert "too fast" not in text
    # without a snapshot's description nothing is made up
    assert verify_files(hostile.folder).raw is None
    assert "not recorded" in Page((hostile.folder / "report.html").read_text()).text


def test_a_manifest_of_before_is_read(candidate: Candidate):
    manifest = msgspec.json.decode((candidate.folder / "manifest.json").read_bytes())
    del manifest["raw"], manifest["marts"]
    before = decode_manifest(msgspec.json.encode(manifest | {"raw_objects": []}), "test")
    assert (before.raw, before.marts) == (None, {})


def test_it_loads_runs_and_sends_nothing(candidate: Candidate):
    found = Page((candidate.folder / "report.html").read_text())
    assert not {"script", "link", "iframe", "img", "object", "form"} & set(found.tags)
    assert all(url.startswith("#") for url in found.loads)
    assert found.handlers == []
    anchors = re.findall(r'href="#([^"]+)"', (candidate.folder / "report.html").read_text())
    for anchor in anchors:
        assert f'id="{anchor}"' in (candidate.folder / "report.html").read_text()


def test_what_shops_send_stays_text(hostile: Candidate):
    page = (hostile.folder / "report.html").read_text()
    found = Page(page)
    assert not {"script", "img"} & set(found.tags)
    assert found.handlers == []
    assert "<script" not in page
    assert "alert(1)" in found.text


def test_a_changed_report_is_noticed(bundle: Path):
    (bundle / "report.html").write_text("forged")
    with pytest.raises(BundleCorrupt, match=r"report\.html should have sha256"):
        verify_files(bundle)


def test_failed_checks_come_first_with_their_reasons(bundle: Path):
    checks = [Check("fine", True, "all is well"), Check("too_slow", False, "took 9 s, may take 1")]
    write_checks(bundle, checks)
    evaluation = msgspec.json.decode((bundle / "evaluation.json").read_bytes())
    page = write_report(bundle, evaluation).read_text()
    text = Page(page).text
    assert "refused by the gate" in text
    assert "1 of 2 checks failed" in text
    assert text.index("took 9 s, may take 1") < text.index("all is well")
    verify_files(bundle)


def test_a_comparison_with_the_champion_is_shown_where_there_is_one(bundle: Path):
    metrics = msgspec.json.decode((bundle / "metrics.json").read_bytes())
    difference = {"ours": 0.5, "theirs": 0.6, "difference": -0.1, "low": -0.2, "high": -0.05}
    metrics["champion"] = {
        "version": "20260101T000000Z-abc", "n_predictions": 321,
        "differences": {"recall@20": difference, "mrr@20": difference},
    }  # fmt: skip
    (bundle / "metrics.json").write_bytes(msgspec.json.encode(metrics))
    evaluation = msgspec.json.decode((bundle / "evaluation.json").read_bytes())
    text = Page(render(bundle, evaluation)).text
    assert "than the champion 20260101T000000Z-abc, on 321 predictions" in text
    assert "surely worse" in text


@pytest.mark.parametrize(
    ("recall", "mrr", "said"),
    [
        ((0.1, 0.2), (0.1, 0.2), "surely better"), ((0.1, 0.2), (-0.1, 0.2), "better in part"),
        ((-0.2, 0.1), (-0.1, 0.2), "may be chance"), ((-0.2, 0.1), (-0.2, -0.1), "worse in part"),
        ((-0.2, -0.1), (-0.2, -0.1), "surely worse"),
        ((0.1, 0.2), (-0.2, -0.1), "better and worse"),
    ],
)  # fmt: skip
def test_a_verdict_is_of_both_measures(recall: tuple, mrr: tuple, said: str):
    both = [{"low": low, "high": high} for low, high in (recall, mrr)]
    assert f">{said}<" in str(verdict(*both))


def test_what_re_ranks_is_shown_with_its_gain_or_why_nothing_does(
    reranked: Candidate, candidate: Candidate, bundle: Path
):
    found = reranked.details["reranking"]
    page = Page((reranked.folder / "report.html").read_text())
    assert f"{found['n_trees']}, {found['blending']}" in page.text
    for where in (found["differences"], reranked.details["differences"]["fusion"]):
        assert f"{where['recall@20']['difference']:+.4f}" in page.text
    assert next(iter(found["importance"])) in page.text
    assert "all, re-ranked by trees" in page.text
    page = Page((candidate.folder / "report.html").read_text())
    assert f"Nothing re-ranks in this model: {candidate.details['reranking']['reason']}." in (
        page.text
    )
    metrics = msgspec.json.decode((bundle / "metrics.json").read_bytes())
    del metrics["reranking"]  # a bundle of before
    (bundle / "metrics.json").write_bytes(msgspec.json.encode(metrics))
    evaluation = msgspec.json.decode((bundle / "evaluation.json").read_bytes())
    assert (
        "Nothing re-ranks in this model: none was wanted." in Page(render(bundle, evaluation)).text
    )


def test_a_large_catalogue_does_not_make_a_large_report(
    build: Callable[..., Candidate], tmp_path: Path
):
    # 600 items in as many sessions of eight: slices, curve and examples are bounded, not the shop.
    sessions = [[(start * 7 + step) % 600 for step in range(8)] for start in range(600)]
    made = build(sessions, tmp_path, min_item_support=1)
    assert (made.folder / "report.html").stat().st_size < 200_000
    assert (made.folder / "evaluation.json").stat().st_size < 300_000


def test_html_escapes_everything_but_itself():
    made = element("p", "<b>", element("i", "&"), None, 3, attrs={"title": '"'}, cls="a'b")
    assert made == '<p class="a&#x27;b" title="&quot;">&lt;b&gt;<i>&amp;</i>3</p>'
    assert isinstance(join(["<"]), Html)
    assert "&lt;td&gt;" in table(["<td>"], [])


def test_ticks_are_round_and_within():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(3.2, 7.9) == [4, 5, 6, 7]
    assert ticks(0, 0.00042) == [0, 0.0001, 0.0002, 0.0003, 0.0004]
    assert ticks(5, 5) == [5]


def test_plots_place_points_by_their_values():
    chart = line_chart(
        [Line("loss", [(1, 4.0), (2, 2.0), (3, 1.0)])], x_name="epoch", y_name="loss", title="L"
    )
    (points,) = re.findall(r'points="([^"]+)"', chart)
    x, y = zip(*(map(float, point.split(",")) for point in points.split()), strict=True)
    assert x[0] < x[1] < x[2]
    assert y[0] < y[1] < y[2]  # downwards: a falling loss falls
    one_value = line_chart([Line("l", [(1, 2.0), (2, 2.0)])], x_name="x", y_name="y", title="t")
    assert "nan" not in one_value


def test_interval_charts_name_every_row_and_survive_zeros():
    chart = interval_chart([Row("<none>", 0.0, 0.0, 0.0), Row("x" * 60, 0.5, 0.4, 1.2)], title="t")
    assert "&lt;none&gt;" in chart
    assert f"<title>{'x' * 60}</title>" in chart
    assert "nan" not in interval_chart([Row("all", 0.0, 0.0, 0.0)], title="t")


@pytest.mark.parametrize("most", [1e-6, 0.05, 0.278, 0.3, 0.61, 0.999, 1.0, 7.3, 1234.5])
def test_the_axis_of_intervals_reaches_beyond_every_bound(most: float):
    chart = interval_chart([Row("a", most / 2, 0.0, most)], title="t")
    grid = [float(x) for x in re.findall(r'class="grid" x1="([\d.]+)"', chart)]
    (whisker,) = re.findall(r'class="whisker s0" x1="[\d.]+" y1="[\d.]+" x2="([\d.]+)"', chart)
    assert 3 <= len(grid) <= 8
    assert float(whisker) <= grid[-1] + 0.1
