"""shallop.js as it is served: small, cached, open to every origin."""

import gzip

import pytest
from fastapi.testclient import TestClient

from api.pages import STATIC

SCRIPTS = ("shallop.js", "shallop.mjs", "shallop-carousel.js", "shallop.d.ts")


@pytest.mark.parametrize(("name", "limit"), [("shallop.js", 5_000), ("shallop-carousel.js", 3_000)])
def test_is_small(client: TestClient, name: str, limit: int) -> None:
    with client.stream("GET", f"/{name}", headers={"Accept-Encoding": "gzip"}) as reply:
        assert reply.headers["content-encoding"] == "gzip"
        sent = b"".join(reply.iter_raw())
    assert gzip.decompress(sent) == (STATIC / name).read_bytes()
    assert len(sent) < limit


@pytest.mark.parametrize("name", SCRIPTS)
def test_any_shop_may_load_and_keep_it(client: TestClient, name: str) -> None:
    reply = client.get(f"/{name}", headers={"Origin": "https://shop.example"})
    assert reply.status_code == 200
    assert reply.content == (STATIC / name).read_bytes()
    assert "max-age=3600" in reply.headers["cache-control"]
    assert reply.headers["access-control-allow-origin"] == "*"
    assert reply.headers["cross-origin-resource-policy"] == "cross-origin"
    assert reply.headers["vary"] == "Accept-Encoding"
    assert reply.headers["content-type"].endswith("script; charset=utf-8")


def test_a_known_one_is_not_sent_again(client: TestClient) -> None:
    tag = client.get("/shallop.js").headers["etag"]
    for known in (tag, f'W/"other", {tag}', "*"):
        reply = client.get("/shallop.js", headers={"If-None-Match": known})
        assert (reply.status_code, reply.content) == (304, b"")
        assert reply.headers["etag"] == tag
    assert client.get("/shallop.js", headers={"If-None-Match": 'W/"other"'}).status_code == 200
    assert client.get("/shallop-carousel.js").headers["etag"] != tag


def test_without_gzip_it_comes_plain(client: TestClient) -> None:
    reply = client.get("/shallop.js", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in reply.headers
    assert client.head("/shallop.js").status_code == 200
