"""Which ids belong together, and which would take a stranger along."""

import pyarrow as pa

from warehouse.expansion import expanded
from warehouse.person import Person

_NAMES = ["visitor_id", "user_id", "session_id"]


def person(visitors: str = "", users: str = "", sessions: str = "") -> Person:
    return Person(*(frozenset(text.split()) for text in (visitors, users, sessions)))


def of(given: Person, *rows: tuple[str | None, str | None, str | None]) -> Person:
    half = len(rows) // 2
    tables = [
        pa.Table.from_pylist(
            [dict(zip(_NAMES, row, strict=True)) for row in part],
            schema=pa.schema([(name, pa.string()) for name in _NAMES]),
        )
        for part in (rows[:half], rows[half:])
    ]
    return expanded(given, lambda: tables)


def test_a_visitors_sessions_are_its_own_unless_another_visitor_was_in_them() -> None:
    rows = [("v", None, "s1"), (None, None, "s1"), ("v", "u", "s2"), ("w", None, "s2")]
    assert of(person("v"), *rows) == person("v", "", "s1")
    assert of(person("v w"), *rows) == person("v w", "", "s1 s2")


def test_a_user_takes_the_visitors_that_were_nobody_elses() -> None:
    rows = [("v", None, "s1"), ("v", "u", "s2"), ("w", "other", "s3"), (None, "u", "s4")]
    assert of(person(users="u"), *rows) == person("v", "u", "s1 s2 s4")


def test_on_a_shared_device_a_user_takes_the_own_sessions_alone() -> None:
    rows = [
        ("tablet", "u", "mine"), ("tablet", None, "mine"), ("tablet", "other", "theirs"),
        ("tablet", None, "unknown"), ("tablet", "u", "both"), ("tablet", "other", "both"),
    ]  # fmt: skip
    assert of(person(users="u"), *rows) == person("", "u", "mine")


def test_users_of_one_session_without_a_visitor_are_told_apart() -> None:
    rows = [(None, "u", "s"), (None, "w", "s")]
    assert of(person(users="u"), *rows) == person(users="u")


def test_a_session_is_itself_alone_and_unknown_ids_are_nobody() -> None:
    rows = [("v", "u", "s"), ("v", "u", "t")]
    assert of(person(sessions="s"), *rows) == person(sessions="s")
    assert of(person("stranger", "nobody"), *rows) == person("stranger", "nobody")
