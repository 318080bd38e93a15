"""Every path in the object store. No other module spells one out."""

from datetime import datetime

RAW_EVENTS = "raw/events"
RAW_REJECTED = "raw/rejected"
RAW_IMPORTS = "raw/imports"
RAW_REPLAYED = "raw/replayed"
MARTS = "marts"
LATEST_MARTS = f"{MARTS}/latest.json"
MODELS = "models"
CHANNELS = f"{MODELS}/channels"
REPORTS = "reports"
ERASURES = "erasures"

CHAMPION = "champion"
REFUSED = "refused"  # the candidate that the gate refused last


def raw_key(
    prefix: str, received_at: datetime, collector_id: str, first_seq: int, last_seq: int
) -> str:
    """Object of the outbox range `first_seq..last_seq`, all received within one UTC hour."""
    return (
        f"{prefix}/date={received_at:%Y-%m-%d}/hour={received_at:%H}/"
        f"{collector_id}-{first_seq:012d}-{last_seq:012d}.parquet"
    )


def import_key(import_id: str) -> str:
    """When an import of history was begun, and of which files."""
    return f"{RAW_IMPORTS}/{import_id}.json"


def replayed_key(replayed_at: datetime, name: str) -> str:
    """Note of the rejected rows that one run of a replay has sent again."""
    return f"{RAW_REPLAYED}/date={replayed_at:%Y-%m-%d}/{name}.json"


def snapshot_folder(snapshot_id: str) -> str:
    """Where everything of one snapshot is."""
    return f"{MARTS}/{snapshot_id}"


def mart_key(snapshot_id: str, mart: str) -> str:
    """Parquet export of `mart` in one snapshot."""
    return f"{snapshot_folder(snapshot_id)}/{mart}.parquet"


def raw_objects_key(snapshot_id: str) -> str:
    """The raw objects that a snapshot was made of, with how many events each gave."""
    return f"{snapshot_folder(snapshot_id)}/raw_objects.parquet"


def snapshot_key(snapshot_id: str) -> str:
    """Description of one snapshot: its marts, row counts and hashes."""
    return f"{snapshot_folder(snapshot_id)}/snapshot.json"


def bundle_key(name: str, version: str, file: str = "") -> str:
    """A file of a model bundle, or with no `file` the bundle's folder."""
    return f"{MODELS}/{name}/{version}/{file}"


def erasures_of_bundle_key(name: str, version: str) -> str:
    """Which erasures took events away that a bundle was trained on; no file of the bundle."""
    return bundle_key(name, version, "erasures.json")


def erasure_key(erasure_id: str) -> str:
    """Proof record of one erasure."""
    return f"{ERASURES}/{erasure_id}.json"


def channel_key(channel: str) -> str:
    """Pointer to the bundle that a channel (`champion`, …) serves."""
    return f"{CHANNELS}/{channel}.json"


def report_key(kind: str, name: str) -> str:
    """A report of a refresh, such as `drift` as HTML."""
    return f"{REPORTS}/{kind}/{name}"
