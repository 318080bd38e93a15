"""A mapping file: what it makes of rows, and what it says of its own mistakes."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.history.formats import UnknownColumns
from ingest.history.mapping_file import InvalidMapping, load

Read = Callable[..., Any]

ONLINE_RETAIL = Path(__file__).parents[3] / "docs" / "mappings" / "online_retail_ii.toml"
HEAD = "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country\n"
LINES = """\
489434,85048,15CM BALL,12,2009-12-01 07:45:00,6.95,13085,United Kingdom
489434,79323P,"LIGHTS, PINK",12,2009-12-01 07:45:00,6.75,13085,United Kingdom
489434,79323P,"LIGHTS, PINK",12,2009-12-01 07:45:00,6.75,13085,United Kingdom
C489449,22087,BUNTING,-12,2009-12-01 10:33:00,2.95,16321,Australia
489435,22195,SCOOP,24,2010-07-01 07:46:00,1.65,,United Kingdom
A506401,B,Adjust bad debt,1,2010-07-01 13:36:00,-53594.36,,United Kingdom
489464,21733,85123a mixed,-96,2009-12-01 10:52:00,0,,United Kingdom
"""
SIMPLE = """
[event]
event_name = "what"
occurred_at = "at"
visitor_id = "who"
[items]
item_id = "item"
price = "price"
quantity = "n"
"""


def mapped(read: Read, folder: Path, toml: str, csv: str) -> Any:
    (folder / "map.toml").write_text(toml)
    (folder / "rows.csv").write_text(csv)
    return read(folder / "rows.csv", format_name="mapping", mapping=folder / "map.toml")


def test_lines_of_an_invoice_are_one_purchase(read: Read, tmp_path: Path) -> None:
    (tmp_path / "online_retail_II.csv").write_text(HEAD + LINES)
    whole = read(tmp_path / "online_retail_II.csv", mapping=ONLINE_RETAIL)
    assert whole.n_rows == 7
    assert whole.skipped == {
        "cancellation": 1,
        "bad debt adjustment": 1,
        "stock that was written off": 1,
    }
    first, second = whole.events
    assert sum(int(frame["n_rows"].sum()) for frame in whole.frames) == 4
    assert (first["event_name"], first["session_id"], first["currency"]) == (
        "purchase", "489434", "GBP",
    )  # fmt: skip
    assert first["items"] == [
        {"item_id": "85048", "item_name": "15CM BALL", "price": 6.95, "quantity": 12},
        *[{"item_id": "79323P", "item_name": "LIGHTS, PINK", "price": 6.75, "quantity": 12}] * 2,
    ]
    assert json.loads(first["extra"]) == {"Country": "United Kingdom"}
    assert second["occurred_at"] == "2010-07-01T06:46:00Z"  # summer time in London
    assert second["visitor_id"] == "489435"
    assert "user_id" not in second


def test_groups_reach_across_batches_and_are_cut_where_an_event_is_full(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    csv = "what,at,who,item,price,n,line\n" + "".join(
        f"purchase,2026-01-01,u{n // 450},i{n},1,1,{n}\n" for n in range(900)
    )
    toml = f'{SIMPLE}\n[group]\nby = ["who"]\n'
    whole = mapped(read, tmp_path, toml, csv)
    assert [len(event["items"]) for event in whole.events] == [200, 200, 50] * 2
    assert [item["item_id"] for event in whole.events for item in event["items"]] == [
        f"i{n}" for n in range(900)
    ]
    lines = json.loads(whole.events[0]["extra"])["lines"]
    assert [line["line"] for line in lines] == [str(n) for n in range(200)]
    monkeypatch.setattr("ingest.history.files.BATCH_ROWS", 70)
    parquet = tmp_path / "rows.parquet"
    pl.read_csv(tmp_path / "rows.csv", infer_schema=False).write_parquet(parquet)
    again = read(parquet, mapping=tmp_path / "map.toml")
    assert again.ids == whole.ids


def test_values_that_do_not_read_are_sent_as_they_are(read: Read, tmp_path: Path) -> None:
    csv = "what,at,who,item,price,n\nview_item,someday,u,a,dear,1.5\nview_item,2026-01-01,u,b,,2\n"
    first, second = mapped(read, tmp_path, SIMPLE, csv).events
    assert first["occurred_at"] == "someday"
    assert first["items"] == [{"item_id": "a", "price": "dear", "quantity": "1.5"}]
    assert second["items"] == [{"item_id": "b", "quantity": 2}]


def test_nested_columns_constants_and_patterns(read: Read, tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text(
        """
        [event]
        event_name = ["kind", "payload.kind"]
        occurred_at = "at"
        visitor_id = "user.id"
        value = "total"
        [items]
        item_id = "payload.sku"
        [event_names]
        cart = "add_to_cart"
        seen = "view_item"
        [time]
        format = "%d.%m.%Y %H:%M"
        timezone = "Europe/Berlin"
        """
    )
    rows = [
        {"payload": {"kind": "cart", "sku": "007"}, "at": "01.07.2026 12:00", "user": {"id": 7},
         "total": 3, "page": {"n": 1}},
        {"kind": "seen", "payload": {"sku": "8"}, "at": "01.01.2026 12:00", "user": {"id": 7.0}},
    ]  # fmt: skip
    (tmp_path / "rows.ndjson").write_text("\n".join(map(json.dumps, rows)))
    cart, seen = read(tmp_path / "rows.ndjson", mapping=tmp_path / "map.toml").events
    assert (cart["event_name"], cart["occurred_at"]) == ("add_to_cart", "2026-07-01T10:00:00Z")
    assert (cart["visitor_id"], cart["value"]) == ("7", 3.0)
    assert cart["items"] == [{"item_id": "007"}]
    assert json.loads(cart["extra"]) == {"page": {"n": 1}}
    assert (seen["event_name"], seen["visitor_id"]) == ("view_item", "7")
    pl.DataFrame(rows).write_parquet(tmp_path / "rows.parquet")
    from_parquet = read(tmp_path / "rows.parquet", mapping=tmp_path / "map.toml").events
    assert [event["items"] for event in from_parquet] == [cart["items"], seen["items"]]
    assert from_parquet[0]["visitor_id"] == "7"


@pytest.mark.parametrize(
    ("toml", "parts"),
    [
        ("[event", ("map.toml", "cannot read")),
        ('[events]\nevent_name = "a"', ("map.toml", "`events`", "did you mean `event`?")),
        (SIMPLE.replace("visitor_id", "visitor"), ("`event.visitor`", "did you mean `visitor_id`")),
        (SIMPLE.replace('"at"', '"tme"'), ("map.toml", "`event.occurred_at`", "`time`?", "`tme`")),
        (SIMPLE.replace("price", "prize", 1), ("`items.prize`", "did you mean `price`")),
        (SIMPLE.replace('occurred_at = "at"', ""), ("`[event]` needs `occurred_at`",)),
        (SIMPLE.replace('visitor_id = "who"', ""), ("whose events",)),
        (SIMPLE + '[event_names]\ncart = "add_to_card"', ("event_names.cart", "`add_to_cart`?")),
        (SIMPLE + '[time]\nformat = "minutes"', ("`time.format`", "`minutes`")),
        (SIMPLE + '[time]\ntimezone = "Europe/Paname"', ("`time.timezone`", "`Europe/Paname`")),
        (SIMPLE + "[group]\nby = 3", ("`group.by`", "`3`")),
        (SIMPLE + '[[skip]]\nreason = "x"\ncolumn = "what"', ("`skip[1]` needs", "`is_missing`")),
        (SIMPLE + '[[skip]]\nreason = "x"\ncolumn = "what"\nmatches = "("', ("skip[1].matches",)),
        (SIMPLE + '[file]\nencoding = "latin-x"', ("`file.encoding`", "`latin-x`")),
        (SIMPLE.replace('"what"', '{ value = "buy" }'), ("`event.event_name`", "`buy`")),
        (SIMPLE.replace('"what"', "3"), ("`event.event_name` must be a column",)),
        (SIMPLE.replace('"at"', '{ value = "2026" }'), ("a constant is no time",)),
    ],
)
def test_mistakes_are_named(read: Read, tmp_path: Path, toml: str, parts: tuple[str, ...]) -> None:
    csv = "what,time,at_,who,item,price,n\n"
    if '"tme"' not in toml:
        csv = csv.replace("at_", "at")
    with pytest.raises((InvalidMapping, UnknownColumns)) as caught:
        mapped(read, tmp_path, toml, csv)
    for part in parts:
        assert part in str(caught.value)


def test_format_and_mapping_belong_together(read: Read, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a\n1\n")
    with pytest.raises(InvalidMapping, match="belong together"):
        read(tmp_path / "rows.csv", format_name="mapping")
    with pytest.raises(InvalidMapping, match="belong together"):
        read(tmp_path / "rows.csv", format_name="rees46", mapping=ONLINE_RETAIL)


def test_the_mapping_in_the_documents_is_valid() -> None:
    form, text = load(ONLINE_RETAIL)
    assert form.name == "mapping"
    assert set(tomllib.loads(text)) == {"event", "items", "group", "time", "skip"}


TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00\r", exclude_categories=["Cs"]),
    min_size=1,
    max_size=12,
).map(str.strip).filter(bool)  # fmt: skip


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(TEXT, st.floats(0, 1e6), st.integers(0, 10**6)), min_size=1, max_size=20))
def test_any_text_and_number_arrives_as_it_was(
    read: Read, tmp_path: Path, rows: list[tuple[str, float, int]]
) -> None:
    frame = pl.DataFrame(
        [("view_item", "2026-01-01", who, who, price, n) for who, price, n in rows],
        schema=["what", "at", "who", "item", "price", "n"],
        orient="row",
    )
    (tmp_path / "map.toml").write_text(SIMPLE)
    ids = set()
    for name in ("rows.csv", "rows.parquet", "rows.jsonl"):
        write = {"csv": frame.write_csv, "parquet": frame.write_parquet}
        write.get(name.split(".")[1], frame.write_ndjson)(tmp_path / name)
        whole = read(tmp_path / name, mapping=tmp_path / "map.toml")
        assert [
            (event["visitor_id"], event["items"][0]["price"], event["items"][0]["quantity"])
            for event in whole.events
        ] == rows
        ids.add(tuple(whole.ids))
    assert len(ids) == 1, "the same rows in another kind of file are other events"
