"""What the registry says of models and of the channels that serve them, and what it raises."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class NoChampionModel(RuntimeError):
    """A channel serves no model yet, or has none to go back to."""


class RefusedByGate(RuntimeError):
    """A model that failed its checks was to serve."""


class UnknownModel(KeyError):
    """The registry has no whole bundle of this name and version."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class BundleRef:
    """Name and version of a bundle."""

    name: str
    version: str


@dataclass(frozen=True)
class ChannelPointer:
    """What a channel serves, since when and why; `earlier` are the ones before `previous`."""

    channel: str
    name: str
    version: str
    promoted_at: datetime
    reason: str
    previous: BundleRef | None = None
    earlier: tuple[BundleRef, ...] = ()


@dataclass(frozen=True)
class BundleInfo:
    """A kept bundle; `metrics` are the model's own, `channels` those that name it.

    `n_bytes` is the size of its files, `load_seconds` how long the gate took to load it,
    `n_erasures` how many erasures took away events that it was trained on.
    """

    name: str
    version: str
    created_at: datetime
    snapshot_id: str
    metrics: dict[str, Any]
    channels: list[str]
    n_bytes: int
    load_seconds: float | None
    n_erasures: int = 0


def word(value: str) -> str:
    """A name, version or channel that is safe in a path. Raises UnknownModel."""
    if not _WORD.fullmatch(value):
        raise UnknownModel(
            f"a model's name, version or channel has up to 128 letters, digits, `.`, `_` and `-`: "
            f"`{value[:150]}`"
        )
    return value
