"""Old model bundles: all but the latest, and those that a channel serves or may go back to."""

from models.manifest import MANIFEST
from models.registry import Registry
from warehouse import layout
from warehouse.retention import Freed
from warehouse.store import ObjectStore


def expire_models(store: ObjectStore, keep: int, *, is_dry: bool) -> tuple[Freed, set[str]]:
    """Remove what is not needed; and the snapshot ids that the models left were made from.

    A manifest goes first, so that what is half removed is no bundle. Raises StoreUnavailable,
    BundleCorrupt.
    """
    registry = Registry(store)
    versions = registry.versions()
    needed = _referenced(store, registry)
    old = [
        info
        for place, info in enumerate(versions)
        if place >= keep and (info.name, info.version) not in needed
    ]
    n_bytes = 0
    for info in old:
        folder = layout.bundle_key(info.name, info.version)
        objects = sorted(
            store.list(folder.rstrip("/")), key=lambda one: not one.key.endswith(MANIFEST)
        )
        n_bytes += sum(one.size for one in objects)
        for one in () if is_dry else objects:
            store.delete(one.key)
        if not is_dry:
            store.purge(folder.rstrip("/"))
    left = {info.snapshot_id for info in versions if info not in old}
    return Freed("models", len(old), n_bytes), left


def _referenced(store: ObjectStore, registry: Registry) -> set[tuple[str, str]]:
    """Name and version of every bundle that a channel serves, or served before."""
    needed = set()
    for info in store.list(layout.CHANNELS):
        pointer = registry.pointer(info.key.rsplit("/", 1)[1].removesuffix(".json"))
        needed.add((pointer.name, pointer.version))
        for before in (pointer.previous, *pointer.earlier):
            if before is not None:
                needed.add((before.name, before.version))
    return needed
