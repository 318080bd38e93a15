"""Ids are found in every form that a text may have them in, and neighbours are never taken."""

import gzip
import json
from urllib.parse import quote, urlencode

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warehouse.contracts import RAW_EVENT_SCHEMA
from warehouse.person import Person, named_in

IDS = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=20
).filter(lambda one: one.strip() == one and '"' not in one and "\\" not in one)


def of_visitor(one: str) -> Person:
    return Person(visitors=frozenset((one,)))


@given(IDS)
def test_json_and_query_strings_name_the_ids_that_they_carry(one: str) -> None:
    event = {"client_id": one, "events": [{"name": "x"}]}
    forms = [
        json.dumps(event),
        json.dumps(event, ensure_ascii=False),
        json.dumps({"extra": json.dumps({"deep": {"anonymousId": one}})}),
        f"{json.dumps({'a': 1})}\n{json.dumps({'visitor_id': one})}",
        urlencode({"event_name": "page_view", "visitor_id": one}),
        json.dumps({"page_url": f"https://shop/?visitor_id={quote(one, safe='')}#top"}),
    ]
    for form in forms:
        assert of_visitor(one).is_named_in(form.encode()), form


@given(IDS, st.sampled_from("ab1-._"))
def test_a_longer_id_is_another_id(one: str, tail: str) -> None:
    for other in (one + tail, tail + one):
        for form in (json.dumps({"visitor_id": other}), urlencode({"visitor_id": other})):
            assert not of_visitor(one).is_named_in(form), form


@pytest.mark.parametrize(
    "body",
    [
        b'{"visitor_id": "visitor-1", "items": [',
        b"{'visitor_id': 'visitor-1'}",
        b'{"note": "asked by visitor-1."}',
        b'{"list": ["x", "visitor-1"]}',
        b'\xff\xfe{"anonymousId":"visitor-1"',
        b'{"visitor_id": "visitor\\u002d1"}',
        b"visitor_id=visitor%2D1&x=%",
        b'{"userId": "visitor-1", "type": "identify"}',
        b'{"a":' * 200 + b'"visitor-1"' + b"}" * 200,
        b'{"text": "\\ud83d", "visitor_id": "visitor-1"}',
        gzip.compress(b'[{"visitor_id": "visitor-1"}]', mtime=0),
        gzip.compress(
            b'{"visitor_id": "visitor-1", "rest": "' + bytes(range(32, 127)) * 9, mtime=0
        )[:-20],
    ],
)
def test_broken_and_odd_bodies_are_searched_too(body: bytes) -> None:
    assert of_visitor("visitor-1").is_named_in(body)
    assert not of_visitor("isitor-1").is_named_in(body)
    assert not of_visitor("visitor-").is_named_in(body)


def test_short_ids_count_only_where_an_id_stands() -> None:
    person = Person(frozenset("a"), frozenset("b"), frozenset("c"))
    assert not person.is_named_in(b'{"visitor_id": "b", "items": [{"item_id": "a"}], "x": "a b c"}')
    assert not person.is_named_in(b"https://shop/a/b?a=b&c=a")
    assert person.is_named_in(b'{"user_id": "b"}')
    assert person.is_named_in(b'{"session": "c"')


def test_a_users_id_stands_in_for_a_visitors_as_the_adapters_have_it() -> None:
    assert named_in(b'{"userId": 7}').by_kind()["visitor"] == {"7"}
    assert named_in(b'{"userId": 7, "anonymousId": "x"}').by_kind()["visitor"] == {"x"}
    ga4 = b'{"client_id":"12.34","events":[{"params":{"ga_session_id":99}}]}'
    assert Person(sessions=frozenset(("12.34.99",))).is_named_in(ga4)
    assert not Person(sessions=frozenset(("2.34.99",))).is_named_in(ga4)


def test_rows_are_taken_by_their_columns_and_by_what_their_texts_name() -> None:
    rows = [
        {"visitor_id": "v-1"},
        {"visitor_id": "v-10"},
        {"visitor_id": "x", "user_id": "ü"},
        {"visitor_id": "x", "session_id": "v-1"},
        {"visitor_id": "x", "extra": '{"client_id":"v\\u002d1"}'},
        {"visitor_id": "x", "extra": '{"client_id":"v-10"}'},
        {"visitor_id": "x", "page_url": "https://shop/?visitor_id=v%2d1"},
        {"visitor_id": "x", "referrer": "https://shop/?q=v-1"},
        {"visitor_id": None},
    ]
    table = pa.Table.from_pylist(rows, schema=RAW_EVENT_SCHEMA)
    person = Person(frozenset(("v-1",)), frozenset(("ü",)))
    assert person.is_in_rows(table).tolist() == [
        True, False, True, False, True, False, True, False, False,
    ]  # fmt: skip
    many = Person(person.visitors | {f"w-{n}" for n in range(600)}, person.users)
    assert many.is_in_rows(table).tolist() == person.is_in_rows(table).tolist()
