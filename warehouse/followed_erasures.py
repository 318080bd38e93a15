"""Erasures made in other homes that share the store, followed in the warehouse of this one.

An erasure rewrites the store and the warehouse of the home that it is made in. The staging of
another home (in containers that of Dagster's code) still has the rows: those of the raw objects
that were rewritten are dropped there, and the next build reads these objects again.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from warehouse import staged
from warehouse.erasure_record import Record, records
from warehouse.layout import RAW_EVENTS
from warehouse.settings import Settings
from warehouse.store import ObjectStore


class ErasureNotFollowed(RuntimeError):
    """The store holds an erasure that the warehouse of this home knows nothing of."""


def follow(settings: Settings, store: ObjectStore) -> list[str]:
    """Before a build: take out of staging what was erased elsewhere; the ids of these erasures.

    Whoever calls holds the refresh's lock. Raises ErasureNotFollowed where one has not ended, and
    RecordDamaged.
    """
    new = _new(settings, store)
    for record in new:
        if record.state == "begun":
            raise ErasureNotFollowed(
                "an erasure is under way, wait until it has ended; if it was killed, `shallop "
                f"erase` in its home goes on with it: `{record.id}`"
            )
    keys = {one.key for record in new for one in record.objects if one.key.startswith(RAW_EVENTS)}
    if keys:
        staged.rebuild_without(settings.warehouse_path, (), keys)
    ids = [record.id for record in new]
    remember(settings, ids)
    return ids


def check(settings: Settings, store: ObjectStore) -> None:
    """Before something is published. Raises ErasureNotFollowed where one came since `follow`."""
    ids = [record.id for record in _new(settings, store)]
    if ids:
        raise ErasureNotFollowed(
            "an erasure was made while this ran and what it took may be in here, so it is not "
            f"published, run `shallop refresh` again: `{', '.join(ids)}`"
        )


def remember(settings: Settings, ids: Iterable[str]) -> None:
    """Note that the warehouse of this home is without what these erasures took."""
    known = _known(settings)
    if not known.issuperset(ids := set(ids)):
        partial = _path(settings).with_suffix(".partial")
        partial.write_bytes(msgspec.json.encode(sorted(known | ids)))
        os.replace(partial, _path(settings))


def _new(settings: Settings, store: ObjectStore) -> list[Record]:
    known = _known(settings)
    return [record for record in records(store) if record.id not in known]


def _known(settings: Settings) -> set[str]:
    try:
        return set(msgspec.json.decode(_path(settings).read_bytes(), type=list[str]))
    except FileNotFoundError:
        return set()


def _path(settings: Settings) -> Path:
    return settings.home.absolute() / "erasures.json"
