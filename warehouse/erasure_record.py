"""Proof records: what an erasure did, sealed, without an id.

A record is written when an erasure begins, so that its tombstones hold from then on, and again
when it is done. Its seal is a hash over it, and an HMAC by the key of the tombstones: whoever
changes a word of it, without the key, is found out.
"""

import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Literal

import msgspec

from warehouse import layout
from warehouse.erasure import Tombstone, Tombstones, key_id
from warehouse.store import ObjectStore


class RecordDamaged(ValueError):
    """A record of an erasure is not what was written."""


class Rewritten(msgspec.Struct, frozen=True):
    """An object from which rows were taken: rows and sha256 before and after."""

    key: str
    rows_before: int
    rows_after: int
    sha256_before: str
    sha256_after: str


class Record(msgspec.Struct, kw_only=True):
    """One erasure. `given` counts the ids asked for by kind, `removed` what went, by place."""

    id: str
    state: Literal["begun", "done"] = "begun"
    erased_at: datetime
    finished_at: datetime | None = None
    is_forever: bool = False
    code_version: str
    given: dict[str, int]
    key_id: str
    tombstones: dict[str, list[Tombstone]]
    objects: list[Rewritten] = []
    removed: dict[str, int] = {}
    models: list[str] = []
    notes: list[str] = []
    sha256: str = ""
    hmac: str = ""


@dataclass(frozen=True)
class Erased:
    """The tombstones of all records, and the ids of records under another key than ours."""

    tombstones: Tombstones
    unreadable: tuple[str, ...]


_encode = msgspec.json.Encoder().encode


def seal(record: Record, key: bytes) -> Record:
    """The record with its hash and HMAC."""
    bare = msgspec.structs.replace(record, sha256="", hmac="")
    hashed = sha256(_encode(bare)).hexdigest()
    signed = hmac.new(key, hashed.encode(), sha256).hexdigest()
    return msgspec.structs.replace(bare, sha256=hashed, hmac=signed)


def check_seal(record: Record, key: bytes) -> None:
    """Raises RecordDamaged where a record was changed, or is of another key."""
    if record.key_id != key_id(key):
        raise RecordDamaged(
            "the record is of another key than this home's, check it where it was made or set "
            f"SHALLOP_PRIVACY__KEY: `{record.id}`"
        )
    if seal(record, key) != record:
        raise RecordDamaged(f"the record was changed after it was sealed: `{record.id}`")


def write(store: ObjectStore, record: Record, key: bytes) -> Record:
    """Keep a record, sealed."""
    sealed = seal(record, key)
    store.put(layout.erasure_key(record.id), msgspec.json.format(_encode(sealed)))
    return sealed


def read(store: ObjectStore, erasure_id: str) -> Record:
    """A record by its id. Raises ObjectNotFound, RecordDamaged."""
    return _read(store, layout.erasure_key(erasure_id))


def records(store: ObjectStore) -> Iterator[Record]:
    """Every record, oldest first. Raises RecordDamaged."""
    for info in store.list(layout.ERASURES):
        yield _read(store, info.key)


def erased(store: ObjectStore, key: bytes | None) -> Erased:
    """All that was ever erased, as far as `key` can tell it. Raises RecordDamaged."""
    stones: list[Tombstone] = []
    unreadable = []
    for record in records(store):
        if key is None or record.key_id != key_id(key):
            unreadable.append(record.id)
        else:
            stones += [stone for kind in record.tombstones.values() for stone in kind]
    return Erased(Tombstones(key or b"", stones), tuple(unreadable))


def _read(store: ObjectStore, key: str) -> Record:
    try:
        return msgspec.json.decode(store.get(key), type=Record)
    except msgspec.DecodeError as error:
        raise RecordDamaged(f"the record cannot be read, {error}: `{key}`") from None
