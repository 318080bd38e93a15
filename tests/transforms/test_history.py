"""History over HTTP and straight into raw: the same marts, to the last bit."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ingest.events import decode_json, request_context
from ingest.flusher import Flusher
from ingest.history.direct import write
from ingest.history.frame import bodies
from ingest.history.history import open_history
from ingest.outbox import Outbox
from warehouse.contracts import MART_SCHEMAS
from warehouse.settings import IngestSettings


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two years of a small shop: repeated rows, missing values, and some that are wrong."""
    n = pl.int_range(3_000)
    rows = pl.select(
        event_time=pl.datetime(2016, 1, 1) + pl.duration(minutes=(n // 3) * 700),
        event_type=pl.when(n % 97 == 5)
        .then(pl.lit("glance"))
        .when(n % 11 == 3)
        .then(pl.lit("purchase"))
        .otherwise(pl.lit("view")),
        item_id=pl.when(n % 89 != 2).then((n % 13).cast(pl.String)),
        user_id=(n % 5).cast(pl.String),
        price=pl.when(n % 3 == 0).then(n / 7 - 1),
        category=pl.when(n % 2 == 0).then(pl.lit("Home/Décor")),
    )
    path = tmp_path_factory.mktemp("history") / "events.parquet"
    rows.write_parquet(path)
    return path


def test_marts_do_not_depend_on_the_way_in(open_shop: Callable[..., Any], file: Path) -> None:
    history = open_history([file], limits=IngestSettings())
    survey = history.survey()
    over_http, direct = open_shop(), open_shop()
    report = write(history, survey, direct.store, IngestSettings())
    assert report.rejected
    outbox = Outbox(over_http.settings.outbox_path, over_http.settings.ingest)
    context = request_context(
        limits=IngestSettings(), received_at=datetime.now(UTC), ip="203.0.113.77",
        user_agent=None, source="json",
    )  # fmt: skip
    rejected = 0
    for frame in history.events(survey):
        events = bodies(frame)
        for first in range(0, len(events), 500):
            body = b"[" + b",".join(events[first : first + 500]) + b"]"
            decoded = decode_json(body, context)
            rejected += len(decoded.rejected)
            outbox.append_now(decoded)
    flusher = Flusher(outbox, over_http.store, over_http.settings.ingest)
    while flusher.flush_once():
        pass
    outbox.close()
    assert rejected == report.rejected.total()
    for shop in (over_http, direct):
        shop.build("s1")
    for mart in MART_SCHEMAS:
        ours, theirs = (shop.mart("s1", mart) for shop in (direct, over_http))
        assert ours.num_rows
        assert ours.equals(theirs), mart
    staged = "select count(*), count(distinct event_id) from stg_shop__events"
    assert direct.query(staged) == over_http.query(staged) == [(report.accepted,) * 2]
