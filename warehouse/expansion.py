"""Which other ids are the same person's: as far as is right, and no further.

- A session is one visit, and nobody else: asking for it means its events alone.
- A visitor is a browser. Its sessions are its own where no other visitor was seen in them; events
  in those that carry no visitor are the person's too.
- A user is an account. Visitors are the user's own where no other user was ever seen on them, and
  then all of their events count, those before the login too. On a shared device only the events
  that carry the user are the user's, and the sessions in which no other user was seen.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import pyarrow as pa

from warehouse.person import Person

# The columns visitor_id, user_id, session_id of all events, read anew at each call.
ReadIds = Callable[[], Iterable[pa.Table]]

_WHO = ["visitor_id", "user_id", "session_id"]
Triple = tuple[str | None, str | None, str | None]


def expanded(given: Person, read: ReadIds) -> Person:
    """The ids given, and those that are the same person's."""
    if not given.visitors and not given.users:
        return given
    device_ids = _devices(given, read)
    own = replace(given, visitors=given.visitors | _own_devices(given, device_ids, read))
    return replace(own, sessions=own.sessions | _own_sessions(own, device_ids, read))


def _devices(given: Person, read: ReadIds) -> frozenset[str]:
    if not given.users:
        return frozenset()
    return frozenset(
        visitor for visitor, user, _ in _triples(read) if visitor and user in given.users
    )


def _own_devices(given: Person, device_ids: frozenset[str], read: ReadIds) -> frozenset[str]:
    """Those on which no other user was seen."""
    if not device_ids:
        return frozenset()
    shared = {
        visitor
        for visitor, user, _ in _triples(read)
        if visitor in device_ids and user and user not in given.users
    }
    return device_ids - shared


def _own_sessions(own: Person, device_ids: frozenset[str], read: ReadIds) -> frozenset[str]:
    """Sessions seen with the person and nobody else."""
    candidates = {
        session
        for visitor, user, session in _triples(read)
        if session and (visitor in own.visitors or user in own.users)
    }
    visitors: dict[str, set[str]] = defaultdict(set)
    users: dict[str, set[str]] = defaultdict(set)
    for visitor, user, session in _triples(read) if candidates else ():
        if session in candidates:
            visitors[session].update([visitor] if visitor else [])
            users[session].update([user] if user else [])
    return frozenset(
        session
        for session in candidates
        if (visitors[session] and visitors[session] <= own.visitors)
        or (
            users[session]
            and users[session] <= own.users
            and visitors[session] <= own.visitors | device_ids
        )
    )


def _triples(read: ReadIds) -> Iterator[Triple]:
    """Each combination of ids, once for each table."""
    for table in read():
        distinct = table.select(_WHO).group_by(_WHO).aggregate([])
        columns = (distinct[name].to_pylist() for name in _WHO)
        yield from zip(*columns, strict=True)
