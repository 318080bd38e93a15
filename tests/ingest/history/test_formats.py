"""Each format by a small export of our own making, and by real data where this machine has it."""

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.history.files import NoFiles, UnreadableFile
from ingest.history.formats import UnknownColumns
from ingest.history.history import FORMATS

Read = Callable[..., Any]


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rees46(read: Read, tmp_path: Path) -> None:
    (tmp_path / "2019-Oct.csv.gz").write_bytes(
        gzip.compress(
            b"event_time,event_type,product_id,category_id,category_code,brand,price,"
            b"user_id,user_session\n"
            b"2019-10-01 00:00:00 UTC,view,0044,2103807459595387724,,shiseido,35.79,5413,72d7\n"
            b"2019-10-01 00:00:01 UTC,cart,3900821,205301,appliances.water_heater,,33.20,55,9333\n"
            b"2019-10-01 00:00:02 UTC,remove_from_cart,3900821,205301,,,33.20,55,9333\n"
            b"2019-10-01 00:00:03 UTC,purchase,3900821,205301,,aqua,33.20,55,9333\n"
        )
    )
    whole = read(tmp_path)
    assert whole.history.format.name == "rees46"
    view, cart, remove, purchase = whole.events
    assert [event["event_name"] for event in whole.events] == [
        "view_item", "add_to_cart", "remove_from_cart", "purchase",
    ]  # fmt: skip
    assert view["occurred_at"] == "2019-10-01T00:00:00Z"
    assert (view["visitor_id"], view["user_id"], view["session_id"]) == (
        "5413", "5413", "72d7",
    )  # fmt: skip
    assert view["items"] == [
        {"item_id": "0044", "item_category": "2103807459595387724", "price": 35.79}
    ]
    assert json.loads(view["extra"]) == {"brand": "shiseido"}
    assert cart["items"][0]["item_category"] == "appliances.water_heater"
    assert "extra" not in remove
    assert json.loads(purchase["extra"]) == {"brand": "aqua"}


def test_retailrocket_takes_its_files_together(read: Read, tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(
        "timestamp,visitorid,event,itemid,transactionid\n"
        "1433221332117,257597,view,355908,\n"
        "1433224214164,992329,addtocart,248676,\n"
        "1433222276276,599528,transaction,356475,4000\n"
    )
    (tmp_path / "item_properties_part1.csv").write_text(
        "timestamp,itemid,property,value\n"
        "1435460400000,355908,categoryid,1338\n"
        "1441508400000,206783,888,1116713 960601 n277.200\n"
    )
    (tmp_path / "item_properties_part2.csv").write_text(
        "timestamp,itemid,property,value\n"
        "1435460399999,355908,categoryid,7\n"
        "1433041200000,356475,categoryid,1016\n"
    )
    (tmp_path / "category_tree.csv").write_text(
        "categoryid,parentid\n1016,213\n213,\n1338,1016\n9,9\n"
    )
    whole = read(tmp_path)
    assert whole.history.format.name == "retailrocket"
    assert whole.n_rows == 3
    view, cart, purchase = whole.events
    assert view["items"] == [{"item_id": "355908", "item_category": "213/1016/1338"}]
    assert view["occurred_at"] == "2015-06-02T05:02:12.117000Z"
    assert view["visitor_id"] == "257597"
    assert cart["event_name"] == "add_to_cart"
    assert cart["items"] == [{"item_id": "248676"}]
    assert purchase["event_name"] == "purchase"
    assert purchase["items"][0]["item_category"] == "213/1016"
    assert json.loads(purchase["extra"]) == {"transactionid": "4000"}
    # What is known of items says nothing about which event it is.
    assert read(tmp_path / "events.csv").ids == whole.ids


def test_yoochoose_clicks_and_buys_without_headers(read: Read, tmp_path: Path) -> None:
    (tmp_path / "yoochoose-clicks.dat").write_text(
        "1,2014-04-07T10:51:09.277Z,214536502,0\n11,2014-04-03T10:44:35.672Z,214821275,S\n"
    )
    (tmp_path / "yoochoose-buys.dat").write_text(
        "420374,2014-04-06T18:44:58.314Z,214537888,12462,1\n"
        "420374,2014-04-06T18:44:58.325Z,214537850,0,0\n"
    )
    whole = read(tmp_path)
    assert whole.history.format.name == "yoochoose"
    click, special, buy, unknown = whole.events
    assert click["event_name"] == "view_item"
    assert click["occurred_at"] == "2014-04-07T10:51:09.277000Z"
    assert click["session_id"] == click["visitor_id"] == "1"
    assert click["items"] == [{"item_id": "214536502"}]
    assert special["items"][0]["item_category"] == "S"
    assert buy["event_name"] == "purchase"
    assert buy["items"] == [{"item_id": "214537888", "price": 12462.0, "quantity": 1}]
    assert unknown["items"] == [{"item_id": "214537850"}]


def test_otto_sessions_become_their_events(read: Read, tmp_path: Path) -> None:
    sessions = [
        {
            "session": 42,
            "events": [
                {"aid": 0, "ts": 1661200010000, "type": "clicks"},
                {"aid": 1, "ts": 1661200020000, "type": "carts"},
                {"aid": 1, "ts": 1661200030000, "type": "orders"},
            ],
        },
        {"session": 43, "events": []},
        {"session": 44, "events": [{"aid": 7, "type": "clicks"}]},
    ]
    file = write_lines(tmp_path / "train.jsonl", sessions)
    with file.open("a") as lines:
        lines.write("no JSON\n")
    whole = read(file)
    assert whole.history.format.name == "otto"
    assert whole.n_rows == 6
    assert whole.skipped == {
        "a session without events": 1,
        "a row without a time": 1,
        "a line that is not a JSON object": 1,
    }
    assert [event["event_name"] for event in whole.events] == [
        "view_item", "add_to_cart", "purchase",
    ]  # fmt: skip
    assert whole.events[0]["visitor_id"] == "42"
    assert whole.events[0]["items"] == [{"item_id": "0"}]
    assert whole.events[0]["occurred_at"] == "2022-08-22T20:26:50Z"
    table = [{"session": 42, **event} for event in sessions[0]["events"]]  # type: ignore[attr-defined]
    pl.DataFrame(table).write_parquet(tmp_path / "train.parquet")
    assert read(tmp_path / "train.parquet").ids == whole.ids


def ga4_row(name: str, params: dict[str, Any], **more: Any) -> dict[str, Any]:
    def value(of: Any) -> dict[str, Any]:
        kind = {str: "string_value", int: "int_value", float: "double_value"}[type(of)]
        return dict.fromkeys(("string_value", "int_value", "float_value", "double_value")) | {
            kind: of
        }

    return {
        "event_date": "20210131",
        "event_timestamp": 1612069510766593,
        "event_name": name,
        "event_params": [{"key": key, "value": value(of)} for key, of in params.items()],
        "user_pseudo_id": "1026454.4271112504",
        "user_id": None,
        "device": {"category": "mobile"},
        "ecommerce": {"purchase_revenue": None, "transaction_id": "(not set)"},
        "items": [],
    } | more


def ga4_rows() -> list[dict[str, Any]]:
    page = {"ga_session_id": 661084800, "page_location": "https://shop/a", "page_title": "A"}
    item = {
        "item_id": "9195829", "item_name": "Jersey", "item_category": "Apparel", "price": 29.99,
        "item_category2": "Men", "quantity": None, "item_list_index": "(not set)",
        "item_brand": "(not set)", "item_list_id": "related",
    }  # fmt: skip
    bought = item | {"quantity": 2, "item_category2": None}
    order = {"purchase_revenue": 59.98, "transaction_id": "T-1"}
    return [
        ga4_row("view_item", page, items=[item]),
        ga4_row("session_start", page),
        ga4_row("scroll", {"percent_scrolled": 90}),
        ga4_row("purchase", page | {"currency": "USD"}, items=[bought], ecommerce=order),
        ga4_row("page_view", page, user_id="u-7"),
    ]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_ga4_bigquery(read: Read, tmp_path: Path, kind: str) -> None:
    rows = ga4_rows()
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "events_20210131.parquet")
    else:  # as BigQuery exports it: integers are text, nulls are left out
        for row in rows:
            row["event_timestamp"] = str(row["event_timestamp"])
            del row["user_id"]
            for param in row["event_params"]:
                held = {key: value for key, value in param["value"].items() if value is not None}
                as_int = {"int_value": str(held["int_value"])} if "int_value" in held else {}
                param["value"] = held | as_int
        rows[-1]["user_id"] = "u-7"
        write_lines(tmp_path / "events_20210131.json", rows)
    whole = read(tmp_path)
    assert whole.history.format.name == "ga4-bigquery"
    assert whole.skipped == {
        "no event of ours stands for session_start": 1,
        "no event of ours stands for scroll": 1,
    }
    view, purchase, page = whole.events
    assert view["occurred_at"] == "2021-01-31T05:05:10.766593Z"
    assert view["visitor_id"] == "1026454.4271112504"
    assert view["session_id"] == "1026454.4271112504.661084800"
    assert view["items"] == [
        {"item_id": "9195829", "item_name": "Jersey", "item_category": "Apparel/Men",
         "price": 29.99}
    ]  # fmt: skip
    assert view["item_list_id"] == "related"
    assert view["page_url"] == "https://shop/a"
    assert json.loads(view["extra"]) == {
        "event_date": "20210131",
        "device": {"category": "mobile"},
        "event_params": {"page_title": "A"},
    }
    assert (purchase["value"], purchase["currency"]) == (59.98, "USD")
    assert purchase["items"][0]["quantity"] == 2
    assert json.loads(purchase["extra"])["ecommerce"] == {"transaction_id": "T-1"}
    assert (page["event_name"], page["user_id"]) == ("page_view", "u-7")


def ga360_session() -> dict[str, Any]:
    def product(sku: str, **more: Any) -> dict[str, Any]:
        return {"productSKU": sku, "v2ProductName": f"Name {sku}", "productPrice": 16990000} | more

    def hit(number: int, kind: str, action: str, **more: Any) -> dict[str, Any]:
        page = {"pagePath": "/a", "hostname": "shop.example"}
        return {
            "hitNumber": number, "time": number * 1000, "type": kind, "page": page,
            "eCommerceAction": {"action_type": action},
        } | more  # fmt: skip

    shown = product("B", isImpression=True, productListName="Also Viewed", productListPosition=3)
    return {
        "fullVisitorId": "4798058133221713505",
        "visitId": 1470035161,
        "visitStartTime": 1470035161,
        "hits": [
            hit(1, "PAGE", "0"),
            hit(2, "PAGE", "0", product=[shown]),
            hit(3, "PAGE", "2", product=[product("A", v2ProductCategory="Home/Bags/"), shown]),
            hit(4, "EVENT", "3", product=[product("A", productQuantity=2)]),
            hit(5, "EVENT", "0"),
            hit(6, "PAGE", "6", product=[product("A", productQuantity=2)],
                transaction={"transactionId": "ORD1", "transactionRevenue": 33980000,
                             "currencyCode": "USD"}),
            hit(7, "EVENT", "7"),
        ],
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_ga360(read: Read, tmp_path: Path, kind: str) -> None:
    session = ga360_session()
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist([session]), tmp_path / "ga_sessions_20160801.parquet")
    else:
        session["visitId"] = str(session["visitId"])
        session["visitStartTime"] = str(session["visitStartTime"])
        write_lines(tmp_path / "ga_sessions_20160801.jsonl", [session])
    whole = read(tmp_path)
    assert whole.history.format.name == "ga360"
    assert whole.n_rows == 7
    assert whole.skipped == {
        "no event of ours stands for a hit of type EVENT": 1,
        "no event of ours stands for a refund": 1,
    }
    page, shown, view, cart, purchase = whole.events
    assert [event["event_name"] for event in whole.events] == [
        "page_view", "view_item_list", "view_item", "add_to_cart", "purchase",
    ]  # fmt: skip
    assert page["occurred_at"] == "2016-08-01T07:06:02Z"
    assert page["page_url"] == "https://shop.example/a"
    assert page["session_id"] == "4798058133221713505.1470035161"
    assert shown["item_list_id"] == "Also Viewed"
    assert shown["items"][0]["index"] == 3
    assert view["items"] == [
        {"item_id": "A", "item_name": "Name A", "item_category": "Home/Bags/", "price": 16.99}
    ]
    assert cart["items"][0]["quantity"] == 2
    assert (purchase["value"], purchase["currency"]) == (33.98, "USD")
    assert json.loads(purchase["extra"]) == {"transaction_id": "ORD1"}


def test_files_compressed_split_and_by_pattern_are_the_same_history(
    read: Read, tmp_path: Path
) -> None:
    rows = [f"2026-01-0{n},view,{n},u{n % 3}" for n in range(1, 8)]
    head = "event_time,event_type,item_id,user_id"
    (tmp_path / "all.csv").write_text("\n".join([head, *rows]))
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "b.csv").write_text("\n".join([head, *rows[:3]]).replace(",", ";"))
    (parts / "a.csv.gz").write_bytes(gzip.compress("\n".join([head, *rows[3:5]]).encode()))
    (parts / "c.csv").write_text("\n".join([head, *rows[5:]]))
    with pa.output_stream(str(parts / "c.csv.zst"), compression="zstd") as stream:
        stream.write((parts / "c.csv").read_bytes())
    (parts / "c.csv").unlink()
    whole = read(tmp_path / "all.csv")
    assert set(read(parts).ids) == set(read(parts / "*.csv*").ids) == set(whole.ids)
    assert len(set(whole.ids)) == 7


def test_a_line_of_another_width_is_left_out_and_counted(read: Read, tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(
        "event_time,event_type,item_id,user_id\n2026-01-01,view,a,u\n2026-01-01,view\n"
        "2026-01-02,view,b,u\n,view,c,u\n"
    )
    whole = read(tmp_path / "events.csv")
    assert whole.n_rows == 4
    assert whole.skipped == {"a line with another number of fields": 1, "a row without a time": 1}
    assert [event["items"][0]["item_id"] for event in whole.events] == ["a", "b"]


@pytest.mark.parametrize(
    ("time", "zone", "utc"),
    [
        ("2026-07-01 12:00:00", "Europe/Berlin", "2026-07-01T10:00:00Z"),
        ("2026-07-01T12:00:00Z", "Europe/Berlin", "2026-07-01T12:00:00Z"),
        ("2026-07-01 12:00:00 UTC", "Europe/Berlin", "2026-07-01T12:00:00Z"),
        ("2026-07-01T12:00:00.25+02:00", "America/Lima", "2026-07-01T10:00:00.250000Z"),
        ("2026-07-01", "America/Lima", "2026-07-01T05:00:00Z"),
        ("1782907200000", "America/Lima", "2026-07-01T12:00:00Z"),
        # Clocks went back: of the two, the first; and an hour that was left out is no time.
        ("2025-10-26 02:30:00", "Europe/Berlin", "2025-10-26T00:30:00Z"),
        ("2026-03-29 02:30:00", "Europe/Berlin", "2026-03-29 02:30:00"),
    ],
)
def test_times_without_a_zone_are_in_the_one_named(
    read: Read, tmp_path: Path, time: str, zone: str, utc: str
) -> None:
    (tmp_path / "events.csv").write_text(
        f"event_time,event_type,item_id,user_id\n{time},view,a,u\n"
    )
    (event,) = read(tmp_path / "events.csv", timezone=zone).events
    assert event["occurred_at"] == utc


def test_what_no_format_knows_is_refused_with_what_is_known(read: Read, tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("when,what\n2026-01-01,view\n")
    with pytest.raises(UnknownColumns) as caught:
        read(tmp_path / "events.csv")
    for part in ("`when`", "events.csv", "`event_time`", "mapping", *FORMATS):
        assert part in str(caught.value)
    with pytest.raises(UnknownColumns, match="did you mean `rees46`"):
        read(tmp_path / "events.csv", format_name="rees64")
    with pytest.raises(UnknownColumns, match="`product_id`"):
        read(tmp_path / "events.csv", format_name="rees46")
    with pytest.raises(NoFiles, match="no such file"):
        read(tmp_path / "nothing.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoFiles, match="in the folder"):
        read(tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("events.parquet", b"no Parquet"),
        ("events.jsonl", b"no JSON\n"),
        ("events.csv", b""),
        ("events.csv.gz", b"no gzip"),
        ("events.xlsx", b"?"),
        ("events.csv", b"event_time,event_type,item_id,user_id\n2026-01-01,view,\xff,u\n"),
    ],
)
def test_files_that_are_not_what_they_say_are_refused(
    read: Read, tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises((UnreadableFile, UnknownColumns), match="events"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "n_events"),
    [("ga_merch_store", 207_532), ("otto_fixture_20users", 862), ("serenade_bolcom_toy", 116_285)],
)
def test_real_events_are_all_read_once(
    read: Read, shop_data: Path, name: str, n_events: int
) -> None:
    whole = read(shop_data / name / "events.parquet")
    assert (whole.n_rows, whole.skipped) == (n_events, {})
    assert len(set(whole.ids)) == n_events
    source = pl.read_parquet(shop_data / name / "events.parquet", columns=["event_type"])
    counts = Counter(event["event_name"] for event in whole.events)
    assert counts["view_item"] == int((source["event_type"] == "view").sum())
    assert counts["purchase"] == int((source["event_type"] == "purchase").sum())
