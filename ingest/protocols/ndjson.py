"""Our JSON, an event a line (`application/x-ndjson`)."""

import msgspec

from ingest.contract import SentEvent
from ingest.events import Decoded, check_count, check_size, decoded_each, decoded_whole
from ingest.lenient import fields_of, sent_event
from ingest.rules import DECODE_ERRORS, Context

SOURCE = "ndjson"

_decode_lines = msgspec.json.Decoder(SentEvent).decode_lines


def decode(body: bytes, context: Context) -> Decoded:
    """The events of a body's lines, empty lines apart. Raises InvalidBody."""
    check_size(body, context.limits)
    lines = [line for line in body.split(b"\n") if line.strip()]
    check_count(len(lines), context.limits)
    try:
        events = _decode_lines(body)
    except DECODE_ERRORS:
        events = []
    # The decoder also takes an event over several lines, or several in one.
    if len(events) == len(lines):
        decoded = decoded_whole(events, body, context)
        if decoded is not None:
            return decoded
    return decoded_each(lines, context, lambda _, line: (sent_event(fields_of(line)), context))
