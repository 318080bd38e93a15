"""A person's data as files that a person and a program can read."""

from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from cli.holdings import PLACES, holdings
from warehouse.erasure import FOR_EVER
from warehouse.person import Person
from warehouse.raw_erasure import Reach
from warehouse.settings import Settings
from warehouse.store import ObjectStore

_README = """# What is held about you

Made on {made_at} by Shallop {version}. Each `.jsonl` file is one place where data is kept, each
line of it one JSON object. Times are UTC. `raw_rejected` and `outbox_rejected` hold the original
bytes of what a browser or server sent, as text where they are text and else in base64.

| file | rows | what it is |
|---|---|---|
{places}

Fields of an event: `event_id` names it, `event_name` says what was done (Google Analytics 4
e-commerce words), `occurred_at` when by the sender's clock and `received_at` by ours; `visitor_id`
is the browser, `user_id` the account, `session_id` the visit; `items` are the products;
`page_url`, `referrer`, `user_agent` and `ip_prefix` (the network, never the whole address) come
from the request; `recommendation_id` ties it to recommendations shown; `extra` is what the shop
sent beyond that.
"""


def export(
    settings: Settings,
    store: ObjectStore,
    given: Person,
    person: Person,
    mart_sessions: list[str],
    folder: Path,
) -> Counter[str]:
    """Write all that is held about a person into a new `folder`; rows by place.

    It is what an erasure would take: `mart_sessions` are those that the person's events are in.

    Raises FileExistsError, StoreUnavailable.
    """
    made_at = datetime.now(UTC)
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    counts: Counter[str] = Counter(dict.fromkeys(PLACES, 0))
    files = {place: (folder / f"{place}.jsonl").open("wb") for place in PLACES}
    try:
        for held in holdings(settings, store, Reach(person, made_at, FOR_EVER), mart_sessions):
            files[held.place].write(msgspec.json.encode(_plain(held.row)) + b"\n")
            counts[held.place] += 1
    finally:
        for file in files.values():
            file.close()
    _describe(folder, given, person, counts, made_at)
    return counts


def _describe(
    folder: Path, given: Person, person: Person, counts: Counter[str], made_at: datetime
) -> None:

    manifest = {
        "made_at": made_at,
        "code_version": version("shallop"),
        "asked_for": {kind: sorted(ids) for kind, ids in given.by_kind().items()},
        "ids": {kind: sorted(ids) for kind, ids in person.by_kind().items()},
        "rows": counts,
        "places": PLACES,
    }
    (folder / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    places = "\n".join(f"| `{one}.jsonl` | {counts[one]} | {PLACES[one]} |" for one in PLACES)
    text = _README.format(
        made_at=f"{made_at:%Y-%m-%d %H:%M} UTC", version=version("shallop"), places=places
    )
    (folder / "README.md").write_text(text)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Original bytes as text where they are text."""
    body = row.get("body")
    if not isinstance(body, bytes):
        return row
    try:
        return {**row, "body": body.decode()}
    except UnicodeDecodeError:
        return row
