"""The object store: a folder or an S3 server behind one small interface.

Keys are relative to the store's URI. Writes are whole objects and atomic; `put_if_absent` is the
conditional write that append-only raw data rests on. No object is empty: what a server keeps of a
write that was cut off before its data is not there.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from warehouse.settings import Settings


class StoreUnavailable(RuntimeError):
    """The object store did not answer, or refused us."""


class ObjectNotFound(KeyError):
    """No object has this key."""

    def __str__(self) -> str:
        return f"no object in the store under: `{self.args[0]}`"


@dataclass(frozen=True)
class ObjectInfo:
    """Key, size in bytes and time of the last write of an object."""

    key: str
    size: int
    modified_at: datetime


class ObjectStore(Protocol):
    """What Shallop asks of a store. Every method may raise StoreUnavailable."""

    def put(self, key: str, data: bytes) -> None:
        """Write `data` under `key`, replacing what is there."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write `data` under a new `key`; False, and nothing written, where it exists."""

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises ObjectNotFound."""

    def stat(self, key: str) -> ObjectInfo:
        """Size and time of an object. Raises ObjectNotFound."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects below the folder `prefix`, in key order."""

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""

    def purge(self, prefix: str) -> int:
        """Remove what is left of objects that were replaced or deleted below `prefix`.

        Earlier versions and delete markers of a versioned bucket, files of writers that were
        killed; how many.
        """

    def uri(self, key: str) -> str:
        """Address of `key` that DuckDB reads."""

    def prepare(self) -> None:
        """Make the folder or bucket where missing, and prove that we can write."""


def open_store(settings: Settings) -> ObjectStore:
    """The store that the settings name; nothing is contacted yet."""
    from warehouse.folder_store import FolderStore
    from warehouse.s3_store import S3Store

    if settings.store_uri.startswith("s3://"):
        return S3Store(settings.store_uri, settings.storage)
    return FolderStore(Path(settings.store_uri))


def sha256(data: bytes) -> str:
    """Hex digest of `data`, as written in manifests."""
    return hashlib.sha256(data).hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the names of new files in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
