"""Ids of events that have none: the same in every replay of the same rows.

An id follows from what the row says (the event as it was read, before titles and prices of the
catalogue are added), not from its file or place, so that files may be split, renamed or sorted.
Rows that say the same are told apart by how many of them came before: as they are equal, which
is which does not matter, and as many events stay as there are rows.

Which rows repeat must be known before the first is sent. A pass over all rows writes 8 bytes each
to a temporary file, sorted into parts that fit into memory; what is remembered is the repeats.
"""

import tempfile
from collections import Counter
from hashlib import sha1
from typing import IO
from uuid import UUID, uuid5

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ingest.history.frame import FIELDS

# Never to be changed, or every event that was ever replayed would count twice.
_NAMESPACE = UUID("0f6e8d0a-6a0e-5b3c-9d0f-6f2a4c1e7b52")
_PARTS_BITS = 6
_NAMED = [name for name in FIELDS if name != "event_id"]

_UUID_LENGTH = 36
_DIGITS = [place for place in range(_UUID_LENGTH) if place not in (8, 13, 18, 23)]
_HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)

Hashes = NDArray[np.uint64]


def namespace_of(format_name: str) -> bytes:
    """The namespace of a format's ids."""
    return uuid5(_NAMESPACE, format_name).bytes


def names_of(frame: pl.DataFrame) -> pl.Series:
    """What each row says, as text; null for an event that has an id of its own."""
    said = pl.struct(
        pl.col("occurred_at").dt.epoch("us"),
        *(pl.col(name) for name in _NAMED if name != "occurred_at"),
        pl.col("unread"),
        pl.col("unread_items"),
    ).struct.json_encode()
    return frame.select(pl.when(pl.col("event_id").is_null()).then(said)).to_series()


def hashes_of(names: pl.Series) -> Hashes:
    """64 bits of each name, for this process alone."""
    return names.drop_nulls().hash(seed=1).to_numpy()


class Repeats:
    """Finds the hashes that come more than once, of any number of them."""

    def __init__(self) -> None:
        self._parts: list[IO[bytes]] = [
            tempfile.TemporaryFile(prefix="shallop-")  # noqa: SIM115 - closed by `found`
            for _ in range(1 << _PARTS_BITS)
        ]

    def add(self, hashes: Hashes) -> None:
        part = hashes >> np.uint64(64 - _PARTS_BITS)
        order = np.argsort(part, kind="stable")
        bounds = np.searchsorted(part[order], np.arange(len(self._parts) + 1))
        for file, first, end in zip(self._parts, bounds, bounds[1:], strict=False):
            if end > first:
                file.write(hashes[order[first:end]].tobytes())

    def found(self) -> Hashes:
        """The repeated hashes, in order. The parts are gone thereafter."""
        repeated = []
        for file in self._parts:
            file.seek(0)
            hashes = np.sort(np.frombuffer(file.read(), dtype=np.uint64))
            repeated.append(np.unique(hashes[1:][hashes[1:] == hashes[:-1]]))
            file.close()
        return np.concatenate(repeated)


class Ids:
    """Gives events their ids, frame after frame in the order of the source."""

    def __init__(self, format_name: str, repeated: Hashes) -> None:
        self._namespace = namespace_of(format_name)
        self._repeated = repeated
        self._seen: Counter[bytes] = Counter()

    def given(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frame with an id for every event."""
        names = names_of(frame)
        if names.null_count() == len(names):
            return frame
        is_new = names.is_not_null()
        texts = self._numbered(names.drop_nulls())
        made = pl.Series(uuids_of(self._namespace, texts), dtype=pl.String)
        ids = frame["event_id"].scatter(is_new.arg_true(), made)
        return frame.with_columns(ids.alias("event_id"))

    def _numbered(self, names: pl.Series) -> list[str]:
        """The names, those that repeat with how often they came before."""
        texts: list[str] = names.to_list()
        hashes = hashes_of(names)
        places = np.searchsorted(self._repeated, hashes)
        places[places == len(self._repeated)] = 0
        if not len(self._repeated):
            return texts
        for row in np.flatnonzero(self._repeated[places] == hashes):
            text = texts[row]
            said = sha1(text.encode(), usedforsecurity=False).digest()
            n_before = self._seen[said]
            self._seen[said] += 1
            if n_before:
                texts[row] = f"{text}#{n_before}"
        return texts


def uuids_of(namespace: bytes, texts: list[str]) -> list[str]:
    """UUIDs of version 5, as `uuid.uuid5` makes them."""
    digests = b"".join(
        [sha1(namespace + text.encode(), usedforsecurity=False).digest() for text in texts]
    )
    octets = np.frombuffer(digests, dtype=np.uint8).reshape(-1, 20)[:, :16].copy()
    octets[:, 6] = octets[:, 6] & 0x0F | 0x50
    octets[:, 8] = octets[:, 8] & 0x3F | 0x80
    digits = np.full((len(texts), _UUID_LENGTH), ord("-"), dtype=np.uint8)
    digits[:, _DIGITS[::2]] = _HEX[octets >> 4]
    digits[:, _DIGITS[1::2]] = _HEX[octets & 0x0F]
    joined = digits.tobytes().decode("ascii")
    return [joined[at : at + _UUID_LENGTH] for at in range(0, len(joined), _UUID_LENGTH)]
