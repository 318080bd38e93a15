"""The table of what clients sent and what was kept of it, read from raw Parquet."""

import sys
from pathlib import Path

from tests.api.test_collector import raw_rows
from warehouse import layout
from warehouse.contracts import RAW_EVENT_SCHEMA
from warehouse.store import ObjectStore

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocols.md"
HEAD = "| client | version | sent | rows in `raw/events` | in `raw/rejected` | fields kept |"
# Ours, whatever a client sends.
_OWN = ("received_at", "source", "schema_version", "ip_prefix")


def table_row(store: ObjectStore, client: str, version: str, n_sent: int) -> str:
    """The row of one client, of all that is in raw."""
    events = raw_rows(store, layout.RAW_EVENTS)
    rejected = raw_rows(store, layout.RAW_REJECTED)
    kept = [
        f"`{name}`"
        for name in RAW_EVENT_SCHEMA.names
        if name not in _OWN and any(event[name] is not None for event in events)
    ]
    return (
        f"| {client} | {version} | {n_sent} | {len(events)} | {len(rejected)} | {', '.join(kept)} |"
    )


def check_row(store: ObjectStore, client: str, version: str, n_sent: int) -> None:
    """Say the client's row (`pytest -s`), and compare it with docs/protocols.md."""
    row = table_row(store, client, version, n_sent)
    sys.stdout.write(f"\n{row}\n")
    table = DOCUMENT.read_text().split(HEAD)[1]
    assert row in table, f"docs/protocols.md has another row: {row}"
