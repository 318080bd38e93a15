"""GET /recommend through the app, with a real model of a catalogue that is walked in order."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from models.scorer import SessionScorer
from tests.api.tiny_shop import ITEM_IDS, SNAPSHOT_ID, promote, publish_marts, serving, view
from warehouse.settings import ServingSettings, Settings
from warehouse.store import ObjectStore


def recommend(client: TestClient, **parameters: object) -> dict[str, Any]:
    reply = client.get("/recommend", params=parameters)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def ids(reply: object) -> list[str]:
    return [item["item_id"] for item in reply.json()["items"]]  # type: ignore[attr-defined]


def test_a_session_is_recommended_what_comes_next(shop: TestClient, bundles: list[Path]) -> None:
    for item_id in ITEM_IDS[3:6]:
        assert shop.post("/events", json=view(item_id)).status_code == 202
    reply = shop.get("/recommend", params={"session": "s-1", "k": 3, "placement": "home"})
    assert reply.status_code == 200
    body = reply.json()
    assert UUID(body["recommendation_id"])
    assert body["session"] == "s-1"
    assert body["placement"] == "home"
    assert (body["model"], body["variant"]) == ("fusion", "champion")
    assert body["model_version"] == bundles[0].name
    assert body["fallback"] is None
    assert [item["rank"] for item in body["items"]] == [1, 2, 3]
    first = body["items"][0]
    assert first["item_id"] == ITEM_IDS[6]
    assert first["title"] == "Thing 6"
    assert first["category"] == "Home/Mugs"
    assert first["price"] == 11.0
    assert first["source"] == "gru4rec"
    assert first["reason"] == "shoppers who viewed Thing 5 next looked at this"


def test_the_app_ranks_as_the_model_does(shop: TestClient, bundles: list[Path]) -> None:
    scorer = SessionScorer.load(bundles[0])
    session = ITEM_IDS[9:12]
    expected = scorer.recommend(session, 10, exclude=session[-1:])
    body = shop.get("/recommend", params={"items": ",".join(session)}).json()
    assert [(item["item_id"], item["score"]) for item in body["items"]] == [
        (ranked.item_id, pytest.approx(ranked.score)) for ranked in expected.items
    ]


def test_every_event_changes_the_next_reply(shop: TestClient) -> None:
    firsts = []
    for item_id in (ITEM_IDS[2], ITEM_IDS[15], ITEM_IDS[8]):
        shop.post("/events", json=view(item_id, "s-2"))
        firsts.append(ids(shop.get("/recommend?session=s-2&k=1"))[0])
    assert firsts == [ITEM_IDS[3], ITEM_IDS[16], ITEM_IDS[9]]


def test_the_pages_item_is_the_latest_step(shop: TestClient) -> None:
    assert ids(shop.get(f"/recommend?item={ITEM_IDS[20]}&k=1")) == [ITEM_IDS[21]]
    both = shop.get(f"/recommend?items={ITEM_IDS[1]},{ITEM_IDS[2]}&item={ITEM_IDS[3]}&k=1")
    assert ids(both) == [ITEM_IDS[4]]


def test_items_may_be_repeated_parameters(shop: TestClient) -> None:
    commas = shop.get("/recommend", params={"items": "item-01,item-02"})
    repeated = shop.get("/recommend", params={"items": ["item-01", "item-02"]})
    assert ids(commas) == ids(repeated)


def test_filters(shop: TestClient) -> None:
    query = {"items": ITEM_IDS[4], "k": 30, "exclude": f"{ITEM_IDS[5]},{ITEM_IDS[6]}"}
    found = ids(shop.get("/recommend", params=query))
    assert not {ITEM_IDS[4], ITEM_IDS[5], ITEM_IDS[6]} & set(found)
    assert len(found) == len(ITEM_IDS) - 3
    mugs = shop.get("/recommend", params={"items": ITEM_IDS[4], "category": "Home/Mugs"}).json()
    assert {item["category"] for item in mugs["items"]} == {"Home/Mugs"}
    assert ids(shop.get("/recommend?items=item-01&category=no-such")) == []


@pytest.mark.parametrize(
    ("exclude", "gone"),
    [("current", {"item-02"}), ("session", {"item-01", "item-02"}), ("none", set())],
)
def test_what_is_not_recommended_back(
    settings: Settings, store: ObjectStore, bundles: list[Path], exclude: str, gone: set[str]
) -> None:
    promote(store, bundles[0])
    serving_settings = ServingSettings(exclude=exclude)  # type: ignore[arg-type]
    with serving(settings.model_copy(update={"serving": serving_settings})) as client:
        found = set(ids(client.get("/recommend?items=item-01,item-02&k=100")))
    assert set(ITEM_IDS) - found == gone


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("session=never-seen", "unknown_session"),
        ("session=%00%ff", "unknown_session"),
        ("items=", "empty_session"),
        ("items=,,", "empty_session"),
        ("item=never-seen", "unknown_items"),
        ("items=never,seen", "unknown_items"),
    ],
)
def test_what_is_unknown_is_no_error(shop: TestClient, query: str, reason: str) -> None:
    reply = shop.get(f"/recommend?{query}&k=4")
    assert reply.status_code == 200
    assert reply.json()["fallback"]["reason"] == reason
    assert reply.json()["fallback"]["message"]
    assert ids(reply) == ITEM_IDS[:4]
    assert {item["source"] for item in reply.json()["items"]} == {"popularity"}
    assert reply.json()["items"][0]["reason"] == "popular in the shop"


@pytest.mark.parametrize("k", ["0", "-1", "abc", "101", "1.5", "", "1e1", "９", "9" * 5000])
def test_a_bad_k_is_422(shop: TestClient, k: str) -> None:
    reply = shop.get("/recommend", params={"session": "s-1", "k": k})
    assert reply.status_code == 422
    error = reply.json()["error"]
    assert error["field"] == "k"
    assert "from 1 to 100" in error["message"]
    assert f"`{k[:100]}" in error["message"]


def test_k_is_ten_unless_given_and_at_most_the_catalogue(shop: TestClient) -> None:
    assert len(ids(shop.get("/recommend?items=item-01"))) == 10
    assert len(ids(shop.get("/recommend?items=item-01&k=100"))) == len(ITEM_IDS) - 1


@pytest.mark.parametrize("query", ["", "k=3", "session=", "session=&item="])
def test_for_whom_must_be_said(shop: TestClient, query: str) -> None:
    reply = shop.get(f"/recommend?{query}")
    assert reply.status_code == 422
    assert reply.json()["error"]["code"] == "missing_session"
    assert "?session=" in reply.json()["error"]["remedy"]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        (f"session={'x' * 257}", "too_long"),
        (f"items={'x' * 257}", "too_long"),
        ("items=" + "a," * 1001, "too_many_items"),
        ("&".join(["items=a"] * 1001), "too_many_parameters"),
    ],
)
def test_queries_have_bounds(shop: TestClient, query: str, code: str) -> None:
    reply = shop.get(f"/recommend?{query}")
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, code)


def test_a_long_session_counts_its_latest_steps(shop: TestClient) -> None:
    long = ",".join([*ITEM_IDS * 5, ITEM_IDS[7], ITEM_IDS[8]])
    assert ids(shop.get("/recommend", params={"items": long, "k": 1})) == [ITEM_IDS[9]]


def test_popularity_serves_until_there_is_a_champion(
    settings: Settings, store: ObjectStore, marts: dict[str, pa.Table]
) -> None:
    publish_marts(store, marts)
    with serving(settings) as client:
        reply = client.get("/recommend", params={"items": ITEM_IDS[0], "k": 3})
        assert reply.status_code == 200
        body = reply.json()
        assert body["fallback"]["reason"] == "no_champion_model"
        assert (body["model"], body["model_version"]) == ("popularity", SNAPSHOT_ID)
        assert ids(reply) == ITEM_IDS[1:4]
        mugs = client.get("/recommend", params={"session": "s", "category": "Home/Mugs"}).json()
        assert {item["reason"] for item in mugs["items"]} == {"popular in Home/Mugs"}


def test_nothing_to_recommend_from_is_503(client: TestClient) -> None:
    reply = client.get("/recommend?session=s-1")
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "no_model"
    assert "shallop refresh" in reply.json()["error"]["remedy"]


def test_an_outage_does_not_flood_the_log(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        client.get("/recommend?session=s-1")
    assert sum("request_refused" in record.message for record in caplog.records) == 1


def test_an_unreadable_session_is_said(shop: TestClient, settings: Settings) -> None:
    with closing(sqlite3.connect(settings.outbox_path)) as connection:
        connection.execute("drop table session")
    body = shop.get(f"/recommend?session=s-1&item={ITEM_IDS[3]}&k=1").json()
    assert body["fallback"]["reason"] == "session_unavailable"
    assert body["items"][0]["item_id"] == ITEM_IDS[4]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_other_methods_are_405(shop: TestClient, method: str) -> None:
    reply = shop.request(method, "/recommend")
    assert (reply.status_code, reply.headers["allow"]) == (405, "GET")


def test_a_price_may_be_asked_for(shop: TestClient) -> None:
    items = recommend(shop, items=ITEM_IDS[1], k=20, price_min=10, price_max="12.0")["items"]
    assert {item["price"] for item in items} == {10.0, 11.0, 12.0}
    assert {item["rank"] for item in items} == {1, 2, 3}


@pytest.mark.parametrize("price", ["-1", "cheap", "nan", "inf", "1e999"])
def test_a_price_that_is_none_is_refused(shop: TestClient, price: str) -> None:
    reply = shop.get("/recommend", params={"items": ITEM_IDS[1], "price_max": price})
    assert reply.status_code == 422
    assert reply.json()["error"]["code"] == "invalid_price"
    assert reply.json()["error"]["field"] == "price_max"


def test_a_price_is_asked_for_before_there_is_a_model(
    settings: Settings, store: ObjectStore, marts: dict[str, pa.Table]
) -> None:
    publish_marts(store, marts)
    with serving(settings) as client:
        items = recommend(client, items=ITEM_IDS[1], k=20, price_min=26)["items"]
    assert {item["price"] for item in items} == {26.0, 27.0, 28.0}


def test_requests_at_once_are_answered_each_for_itself(shop: TestClient) -> None:
    alone = {one: recommend(shop, items=one, k=3)["items"] for one in ITEM_IDS}
    with ThreadPoolExecutor(16) as pool:
        asked = [*ITEM_IDS, "unknown"] * 8
        replies = list(pool.map(lambda one: recommend(shop, items=one, k=3), asked))
    for one, reply in zip(asked, replies, strict=True):
        if one == "unknown":
            assert reply["fallback"]["reason"] == "unknown_items"
        else:
            assert reply["fallback"] is None
            assert [item["item_id"] for item in reply["items"]] == [
                item["item_id"] for item in alone[one]
            ]
