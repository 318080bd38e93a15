"""Which bundles learned from events that were erased since.

A bundle's files are pinned by their hashes, so the mark is an object beside them. A marked model
goes on serving; the next refresh trains one without the events.
"""

from collections.abc import Collection
from datetime import datetime

import msgspec

from warehouse import layout
from warehouse.store import ObjectNotFound, ObjectStore


class BundleErasure(msgspec.Struct, frozen=True):
    """An erasure that took events away from those a bundle was trained on."""

    erasure_id: str
    erased_at: datetime


class _Made(msgspec.Struct):
    """What a manifest says of a bundle's origin (`models.manifest.Manifest`, which loads torch).

    `ancestors` are the bundles that its training began from: what these learned is in it too.
    """

    created_at: datetime
    snapshot_id: str
    version: str = ""
    ancestors: "list[_Made]" = []


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
        name, version, *file = info.key.removeprefix(f"{layout.MODELS}/").split("/")
        if file == ["manifest.json"] and _is_of(store, info.key, snapshot_ids, kept_ids, since):
            _mark(store, erasure, name, version)
            marked.append(f"{name} {version}")
    return marked


def inherit(store: ObjectStore, name: str, version: str) -> list[BundleErasure]:
    """Mark a bundle with the erasures of those that its training began from; which these are.

    An erasure marks what it finds: one that ran while the bundle was in the making did not find it.
    """
    manifest = store.get(layout.bundle_key(name, version, "manifest.json"))
    found = {
        erasure.erasure_id: erasure
        for one in msgspec.json.decode(manifest, type=_Made).ancestors
        for erasure in erasures_of(store, name, one.version)
    }
    for erasure in found.values():
        _mark(store, erasure, name, version)
    return list(found.values())


def _is_of(
    store: ObjectStore,
    key: str,
    snapshot_ids: Collection[str],
    kept_ids: Collection[str],
    since: datetime | None,
) -> bool:
    try:
        made = msgspec.json.decode(store.get(key), type=_Made)
    except msgspec.DecodeError:  # damaged: nobody knows what it is of
        return True
    return any(
        one.snapshot_id in snapshot_ids
        or (one.snapshot_id not in kept_ids and since is not None and one.created_at >= since)
        for one in (made, *made.ancestors)
    )


def _mark(store: ObjectStore, erasure: BundleErasure, name: str, version: str) -> None:
    before = erasures_of(store, name, version)
    if erasure.erasure_id not in {one.erasure_id for one in before}:
        data = msgspec.json.encode([*before, erasure])
        store.put(layout.erasures_of_bundle_key(name, version), msgspec.json.format(data))
