"""Pages, catalogue, documentation, CORS, and the one shape of errors."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.pages import STATIC
from tests.api.tiny_shop import CATEGORIES, ITEM_IDS, serving, view
from warehouse.contracts import EVENT_NAMES
from warehouse.settings import ServingSettings, Settings

ORIGIN = "https://shop.example"


class TestErrors:
    @pytest.mark.parametrize(
        ("method", "path", "status", "code"),
        [
            ("GET", "/nope", 404, "not_found"),
            ("GET", "/static/nope.js", 404, "not_found"),
            ("GET", "/static/../settings.py", 404, "not_found"),
            ("GET", "/static/%2e%2e/app.py", 404, "not_found"),
            ("POST", "/status", 405, "method_not_allowed"),
            ("GET", "/items?limit=0", 422, "invalid_parameter"),
            ("GET", "/items?offset=-1", 422, "invalid_parameter"),
            ("GET", "/items?limit=many", 422, "invalid_parameter"),
            ("GET", "/items/nope", 404, "unknown_item"),
            ("GET", "/recommend", 422, "missing_session"),
            ("GET", "/events", 405, "method_not_allowed"),
        ],
    )
    def test_have_one_shape(
        self, shop: TestClient, method: str, path: str, status: int, code: str
    ) -> None:
        reply = shop.request(method, path)
        assert reply.status_code == status
        assert reply.headers["content-type"] == "application/json"
        error = reply.json()["error"]
        assert error["code"] == code
        assert set(error) <= {"code", "message", "field", "remedy"}

    def test_name_field_and_value(self, shop: TestClient) -> None:
        error = shop.get("/items?limit=many").json()["error"]
        assert error["field"] == "limit"
        assert error["message"].endswith("`many`")

    def test_a_405_names_what_is_allowed(self, shop: TestClient) -> None:
        assert shop.post("/status").headers["allow"] == "GET"


class TestCatalogue:
    def test_is_paged_by_popularity(self, shop: TestClient) -> None:
        page = shop.get("/items?limit=5&offset=20").json()
        assert [item["item_id"] for item in page["items"]] == ITEM_IDS[20:]
        assert page["total"] == len(ITEM_IDS)
        assert shop.get("/items?offset=1000").json()["items"] == []

    def test_is_searched_in_titles_and_ids(self, shop: TestClient) -> None:
        assert shop.get("/items?q=THING 2").json()["total"] == 5  # 2, 20..23
        assert shop.get("/items?q=item-07").json()["items"][0]["title"] == "Thing 7"
        assert shop.get("/items?q=%25").json()["total"] == 0

    def test_is_filtered_by_category(self, shop: TestClient) -> None:
        page = shop.get("/items", params={"category": "Home/Bags"}).json()
        assert page["total"] == 8
        assert {item["category"] for item in page["items"]} == {"Home/Bags"}
        found = shop.get("/categories").json()
        assert sorted(count["category"] for count in found) == sorted(CATEGORIES)
        assert sum(count["n_items"] for count in found) == len(ITEM_IDS)

    def test_gives_one_item(self, shop: TestClient) -> None:
        assert shop.get("/items/item-03").json() == {
            "item_id": "item-03", "title": "Thing 3", "category": "Home/Mugs", "price": 8.0,
        }  # fmt: skip

    def test_is_empty_before_any_data(self, client: TestClient) -> None:
        assert client.get("/items").json()["items"] == []
        assert client.get("/categories").json() == []
        assert client.get("/items/item-03").status_code == 404


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.urls += [given[name] or "" for name in ("src", "href") if name in given]
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)


class TestPages:
    @pytest.mark.parametrize("path", ["/", "/docs"])
    def test_need_nothing_from_outside_and_nothing_inline(
        self, client: TestClient, path: str
    ) -> None:
        reply = client.get(path)
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/html")
        links = _Links()
        links.feed(reply.text)
        assert links.inline == []
        for url in links.urls:
            assert url.startswith(("/", "#"))
            if url.startswith("/"):
                assert client.get(url).status_code == 200, url

    @pytest.mark.parametrize("path", ["/", "/docs"])
    def test_have_a_content_policy(self, client: TestClient, path: str) -> None:
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy

    def test_modules_import_what_exists(self, client: TestClient) -> None:
        for module in STATIC.glob("*.js"):
            for name in re.findall(r'from "\./([^"]+)"', module.read_text()):
                reply = client.get(f"/static/{name}")
                assert reply.status_code == 200
                assert "javascript" in reply.headers["content-type"]

    def test_never_write_markup_from_data(self) -> None:
        for module in STATIC.glob("*.js"):
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(",
                                 module.read_text()), module  # fmt: skip


class TestOpenApi:
    @pytest.fixture
    def document(self, client: TestClient) -> dict[str, Any]:
        found: dict[str, Any] = client.get("/openapi.json").json()
        return found

    def test_every_reference_is_there(self, document: dict[str, Any]) -> None:
        schemas = document["components"]["schemas"]
        named = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
        assert named <= set(schemas)
        assert {"SentEvent", "EventsReply", "RecommendReply", "ErrorReply"} <= named
        assert "HTTPValidationError" not in schemas

    def test_the_hot_paths_are_described(self, document: dict[str, Any]) -> None:
        events = document["paths"]["/events"]["post"]
        refusals = {"400", "401", "403", "405", "413", "415", "422", "429", "503"}
        assert set(events["responses"]) == {"202", *refusals}
        assert set(events["requestBody"]["content"]) == {
            "application/json",
            "application/x-ndjson",
            "text/plain",
        }
        recommend = document["paths"]["/recommend"]["get"]
        assert [parameter["name"] for parameter in recommend["parameters"]] == [
            "session", "k", "item", "items", "exclude", "category", "price_min",
            "price_max", "placement",
        ]  # fmt: skip
        k = recommend["parameters"][1]["schema"]
        assert (k["minimum"], k["maximum"], k["default"]) == (1, 100, 10)
        event = document["components"]["schemas"]["SentEvent"]
        assert event["properties"]["event_name"]["enum"] == list(EVENT_NAMES)

    def test_its_examples_are_accepted(self, shop: TestClient, document: dict[str, Any]) -> None:
        content = document["paths"]["/events"]["post"]["requestBody"]["content"]
        for example in content["application/json"]["examples"].values():
            assert shop.post("/events", json=example["value"]).json()["rejected"] == 0

    def test_its_reply_has_the_fields_of_a_real_one(
        self, shop: TestClient, document: dict[str, Any]
    ) -> None:
        response = document["paths"]["/recommend"]["get"]["responses"]["200"]
        example = response["content"]["application/json"]["example"]
        real = shop.get("/recommend?items=item-01&k=1").json()
        assert set(example) == set(real)
        assert set(example["items"][0]) == set(real["items"][0])


class TestCors:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return Settings(
            _env_file=None,
            home=tmp_path / "home",
            serving=ServingSettings(cors_origins=(ORIGIN,), champion_poll_seconds=0.02),
        )

    def test_a_shop_of_the_list_may_send_and_read(self, client: TestClient) -> None:
        asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST",
                 "Access-Control-Request-Headers": "content-type"}  # fmt: skip
        preflight = client.options("/events", headers=asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == ORIGIN
        reply = client.post("/events", json=view("mug"), headers={"Origin": ORIGIN})
        assert reply.status_code == 202
        assert reply.headers["access-control-allow-origin"] == ORIGIN

    def test_errors_can_be_read_too(self, client: TestClient) -> None:
        reply = client.get("/recommend?k=0", headers={"Origin": ORIGIN})
        assert reply.status_code == 422
        assert reply.headers["access-control-allow-origin"] == ORIGIN

    def test_another_origin_may_not_read(self, client: TestClient) -> None:
        reply = client.get("/recommend?k=0", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in reply.headers


def test_without_a_list_no_origin_may_read(settings: Settings) -> None:
    with serving(settings) as client:
        reply = client.get("/status", headers={"Origin": ORIGIN})
        assert "access-control-allow-origin" not in reply.headers
