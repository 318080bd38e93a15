"""The manifest of a bundle: where it comes from, and the sha256 of its files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version as package_version

import msgspec

from models.item_tables import item_map_sha256
from models.warm_start import Ancestor
from warehouse.provenance import RawObjects
from warehouse.snapshot import Snapshot

NAME = "gru4rec"
MANIFEST = "manifest.json"


class BundleCorrupt(RuntimeError):
    """A model bundle is not what its writer wrote."""


@dataclass(frozen=True)
class Manifest:
    """Where a bundle comes from and the sha256 of its files.

    `items_sha256` is that of the item ids in the order in which training numbered them, `marts` of
    each mart of the snapshot as it was trained on: an erasure since has given the snapshot others.
    `raw` are the raw objects it was made of. Bundles of before have none of them. `ancestors` are
    the models that its network began from, the latest first, none where it began from chance.
    """

    name: str
    version: str
    created_at: datetime
    snapshot_id: str
    code_version: str
    seed: int
    n_items: int
    parent: str | None = None
    items_sha256: str | None = None
    marts: dict[str, str] = field(default_factory=dict)
    raw: RawObjects | None = None
    ancestors: list[Ancestor] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Origin:
    """What a bundle was made from: snapshot, seed, the champion before it, what it began from.

    `snapshot` describes that of `snapshot_id`, None where the marts come from elsewhere.
    """

    snapshot_id: str
    seed: int
    parent: str | None = None
    snapshot: Snapshot | None = None
    ancestors: list[Ancestor] = field(default_factory=list)


def new_manifest(origin: Origin, item_ids: Sequence[str], content_sha256: str) -> Manifest:
    """A manifest without files; its version sorts by time and tells contents apart."""
    created_at = datetime.now(UTC).replace(microsecond=0)
    made_of = origin.snapshot
    return Manifest(
        name=NAME,
        version=f"{created_at:%Y%m%dT%H%M%SZ}-{content_sha256[:6]}",
        created_at=created_at,
        snapshot_id=origin.snapshot_id,
        code_version=package_version("shallop"),
        seed=origin.seed,
        n_items=len(item_ids),
        parent=origin.parent,
        items_sha256=item_map_sha256(item_ids),
        marts={mart: one.sha256 for mart, one in made_of.marts.items()} if made_of else {},
        raw=made_of.raw_objects if made_of else None,
        ancestors=origin.ancestors,
    )


def decode_manifest(data: bytes, source: str) -> Manifest:
    """A manifest from its JSON. Raises BundleCorrupt."""
    try:
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise BundleCorrupt(f"{MANIFEST} of {source} is not a manifest: {error}") from error
