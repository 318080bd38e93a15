"""Which bundles learned from events that were erased since.

A bundle's files are pinned by their hashes, so the mark is an object beside them. A marked model
goes on serving; the next refresh trains one without the events.
"""

from collections.abc import Collection
from datetime import datetime

import msgspec

from models.bundle import MANIFEST, decode_manifest
from warehouse import layout
from warehouse.store import ObjectNotFound, ObjectStore


class BundleErasure(msgspec.Struct, frozen=True):
    """An erasure that took events away from those a bundle was trained on."""

    erasure_id: str
    erased_at: datetime


_decode = msgspec.json.Decoder(list[BundleErasure]).decode


def erasures_of(store: ObjectStore, name: str, version: str) -> list[BundleErasure]:
    """The erasures that a bundle is marked with."""
    try:
        return _decode(store.get(layout.erasures_of_bundle_key(name, version)))
    except ObjectNotFound:
        return []


def mark(
    store: ObjectStore,
    erasure: BundleErasure,
    snapshot_ids: Collection[str],
    kept_ids: Collection[str],
    since: datetime | None,
) -> list[str]:
    """Mark the bundles trained on one of the snapshots; `<name> <version>` of each.

    Of a snapshot that is not kept any more (`kept_ids` are) nobody knows what was in it: its bundle
    is marked where it was made after `since`, the receipt of the first erased event.
    """
    marked = []
    for info in list(store.list(layout.MODELS)):
        name, _, file = info.key.removeprefix(f"{layout.MODELS}/").rpartition("/")
        if file != MANIFEST:
            continue
        manifest = decode_manifest(store.get(info.key), info.key)
        is_unknown = manifest.snapshot_id not in kept_ids
        if manifest.snapshot_id in snapshot_ids or (
            is_unknown and since is not None and manifest.created_at >= since
        ):
            _mark(store, erasure, manifest.name, manifest.version)
            marked.append(name.replace("/", " "))
    return marked


def _mark(store: ObjectStore, erasure: BundleErasure, name: str, version: str) -> None:
    before = erasures_of(store, name, version)
    if erasure.erasure_id not in {one.erasure_id for one in before}:
        data = msgspec.json.encode([*before, erasure])
        store.put(layout.erasures_of_bundle_key(name, version), msgspec.json.format(data))
