"""The compiled reader declines a body, or gives exactly what Python makes of it."""

import logging
import random
import subprocess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest import compiled as compiled_module
from ingest import events
from ingest.contract import to_arrow
from ingest.events import Decoded, InvalidBody, decode_json
from ingest.reader import read
from ingest.rules import Context
from tests.ingest.sent_events import (
    RIGHT,
    context_of,
    damaged,
    damaged_bodies,
    without_compiled_code,
)
from warehouse import compiled as warehouse_compiled
from warehouse.contracts import RAW_EVENT_SCHEMA
from warehouse.settings import IngestSettings

needs_a_compiler = pytest.mark.skipif(
    warehouse_compiled.compiler() is None, reason="no C++ compiler on this machine"
)
_PROGRAM = Path(__file__).with_name("read_bodies.cpp")


@needs_a_compiler
@settings(max_examples=150, deadline=None)
@given(st.lists(RIGHT, min_size=1, max_size=5), st.booleans())
def test_right_bodies_are_read(sent: list[dict[str, Any]], is_spaced: bool) -> None:
    body = msgspec.json.encode(sent)
    assert_same(msgspec.json.format(body) if is_spaced else body, context_of(), is_read=True)


@needs_a_compiler
@settings(max_examples=600, deadline=None)
@given(st.lists(RIGHT, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_damaged_bodies_are_declined_or_read_as_python_does(
    sent: list[dict[str, Any]], chance: random.Random
) -> None:
    assert_same(damaged(msgspec.json.encode(sent), chance), context_of())


@needs_a_compiler
@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text('[]{}":,\\ue0n1.-', max_size=60).map(str.encode))
def test_any_bytes_are_declined_or_read_as_python_does(body: bytes) -> None:
    assert_same(body, context_of())
    assert_same(b"[" + body + b"]", context_of())


@needs_a_compiler
@pytest.mark.parametrize("limits", [{}, {"user_agent": "family"}, {"max_event_items": 1}], ids=str)
def test_many_damaged_bodies(limits: dict[str, Any]) -> None:
    context = context_of(IngestSettings(**limits))
    n_read = sum(assert_same(body, context) for body in damaged_bodies(3_000))
    assert n_read > 100


@needs_a_compiler
@pytest.mark.parametrize("length", [1, 256, 257, 2048, 2049, 8192, 8193])
@pytest.mark.parametrize("letter", ["x", "ü", "🛶", "\n", "\\ud83d\\udef6"])
@pytest.mark.parametrize("field", ["user_id", "currency", "page_url", "consent", "item_name"])
def test_texts_are_as_long_as_the_contract_says(field: str, letter: str, length: int) -> None:
    event = {
        "event_id": "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
        "event_name": "page_view",
        "visitor_id": "v",
        "items": [{"item_id": "a", "item_name": "in an item"}],
        field: "here",
    }
    if field == "item_name":
        event.pop(field)
    text = msgspec.json.encode(letter * length).replace(b"\\\\u", b"\\u")
    body = msgspec.json.encode([event]).replace(b'"here"', text)
    if field == "item_name":
        body = body.replace(b'"in an item"', text)
    most = {"user_id": 256, "currency": 256, "page_url": 8192}.get(field, 2048)
    assert_same(body, context_of(), is_read=length <= most)


@needs_a_compiler
def test_more_events_than_a_request_may_have_are_declined() -> None:
    event = {"event_id": "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "event_name": "page_view",
             "visitor_id": "v"}  # fmt: skip
    context = context_of(IngestSettings(max_batch_events=3))
    assert read(msgspec.json.encode([event] * 3), context) is not None
    assert read(msgspec.json.encode([event] * 4), context) is None


def test_without_a_compiler_python_reads_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(warehouse_compiled, "_COMPILERS", ("no-such-compiler",))
    compiled_module.compiled.cache_clear()
    with caplog.at_level(logging.INFO):
        assert read(b"[]", context_of()) is None
        assert read(b"[]", context_of()) is None
    assert caplog.text.count("no C++ compiler, batches of events are read by Python") == 1
    compiled_module.compiled.cache_clear()


@needs_a_compiler
def test_no_byte_is_touched_that_is_not_ours(tmp_path: Path) -> None:
    bodies = damaged_bodies(4_000)
    corpus, program = tmp_path / "bodies", tmp_path / "read_bodies"
    corpus.write_bytes(b"".join(len(one).to_bytes(4, "little") + one for one in bodies))
    compiler = warehouse_compiled.compiler()
    assert compiler is not None
    made = subprocess.run(
        [compiler, "-std=c++17", "-O1", "-g", "-fsanitize=address,undefined",
         "-fno-sanitize-recover=all", "-DSHALLOP_EACH_ALLOCATION", "-D_GLIBCXX_ASSERTIONS",
         "-I", str(compiled_module.SOURCE.parent), str(_PROGRAM), "-o", str(program)],
        capture_output=True, text=True,
    )  # fmt: skip
    if made.returncode and "san" in made.stderr:  # libasan, libubsan
        pytest.skip(f"no sanitizers on this machine: {made.stderr[-300:]}")
    assert made.returncode == 0, made.stderr
    found = subprocess.run([str(program), str(corpus)], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-3_000:]
    assert 100 < int(found.stdout) < len(bodies)


def assert_same(body: bytes, context: Context, *, is_read: bool | None = None) -> bool:
    """Whether a body is read; what is read must be what Python accepts."""
    batch = read(body, context)
    if is_read is not None:
        assert (batch is not None) == is_read
    if batch is None:
        return False
    batch.validate(full=True)
    decoded = decode_singly(body, context)
    assert decoded.rejected == []
    assert decoded.n_minted == 0
    expected = to_arrow(list(decoded.events))
    found = pa.Table.from_batches([batch])
    assert found.schema.equals(RAW_EVENT_SCHEMA, check_metadata=True)
    assert found.equals(expected), (found.to_pylist(), expected.to_pylist())
    return True


def decode_singly(body: bytes, context: Context) -> Decoded:
    """As if no batch were large and there were no compiler."""
    with patch.object(events, "MIN_TOGETHER", 10_000), without_compiled_code():
        try:
            return decode_json(body, context)
        except InvalidBody as error:
            raise AssertionError(f"read, but refused by Python: {error}") from error
