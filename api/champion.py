"""The champion model that serves, exchanged while it serves.

A background thread looks at the channel's pointer; a new bundle is fetched, verified and loaded
beside the serving one, then takes its place by one assignment. Whatever goes wrong on the way, the
model that serves stays.
"""

import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import msgspec

from api.metrics import Metrics
from models.registry import BundleCorrupt, ChannelPointer, NoChampionModel, Registry, UnknownModel
from models.scorer import SessionScorer
from warehouse import layout
from warehouse.store import StoreUnavailable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Champion:
    """A loaded model, the pointer that named it, and its verified local copy."""

    scorer: SessionScorer
    pointer: ChannelPointer
    folder: Path
    loaded_at: datetime


class _Served(msgspec.Struct):
    """The last champion that served here, for a start without the store."""

    pointer: ChannelPointer
    folder: str


class ChampionHolder:
    """Holds the champion; `refresh` alone changes it, from one thread."""

    def __init__(self, registry: Registry, cache: Path, metrics: Metrics) -> None:
        self.current: Champion | None = None
        self.n_swaps = 0
        self.checked_at: datetime | None = None
        self.last_error: str | None = None
        self.refusal: ChannelPointer | None = None
        self._registry = registry
        self._cache = cache
        self._metrics = metrics
        self._bad: ChannelPointer | None = None  # not tried again until the pointer changes

    def refresh(self) -> None:
        """Serve what the pointer names; on any trouble say so and keep what serves. Blocks."""
        try:
            pointer = self._registry.pointer(layout.CHAMPION)
            if pointer != self._bad and not self._serves(pointer):
                self._load(pointer)
        except NoChampionModel:
            self.last_error = None
        except StoreUnavailable as error:
            self._failed("store_unavailable", error)
            if self.current is None:
                self._load_last_served()
        except UnknownModel as error:
            self._failed("bundle_missing", error)
        except BundleCorrupt as error:
            self._failed("pointer_damaged", error)
        else:
            if pointer != self._bad:
                self.last_error = None
        with suppress(StoreUnavailable, BundleCorrupt):  # said above, or no news of a refusal
            self._look_at_refusal()
        self.checked_at = datetime.now(UTC)

    def _look_at_refusal(self) -> None:
        """Raise the alarm while the last candidate is a refused one."""
        refusal = self._registry.refusal()
        if refusal is not None and refusal != self.refusal:
            logger.error("candidate_refused version=%s reason=%r", refusal.version, refusal.reason)
        self.refusal = refusal
        self._metrics.candidate_refused.set(refusal is not None)

    def _serves(self, pointer: ChannelPointer) -> bool:
        return self.current is not None and (
            (self.current.pointer.name, self.current.pointer.version)
            == (pointer.name, pointer.version)
        )

    def _load(self, pointer: ChannelPointer) -> None:
        try:
            folder = self._registry.fetch(pointer.name, pointer.version, self._cache)
            scorer = SessionScorer.load(folder)
        except (StoreUnavailable, UnknownModel):
            raise
        except BundleCorrupt as error:
            self._bad = pointer
            self._failed("bundle_corrupt", error)
            return
        except Exception as error:
            # A bundle from outside must never end the thread that looks for the next one.
            self._bad = pointer
            logger.exception("champion_load_failed version=%s", pointer.version)
            self._failed("load_failed", error)
            return
        self._swap(Champion(scorer, pointer, folder, datetime.now(UTC)))
        self._remember(pointer, folder)

    def _swap(self, champion: Champion) -> None:
        before = self.current.pointer.version if self.current else None
        self.current = champion
        self._bad = None
        self.n_swaps += 1
        self._metrics.champion_swaps.inc()
        logger.info(
            "champion_serves name=%s version=%s before=%s n_items=%d",
            champion.pointer.name, champion.pointer.version, before, champion.scorer.n_items,
        )  # fmt: skip

    def _failed(self, reason: str, error: Exception) -> None:
        self._metrics.champion_errors.labels(reason).inc()
        message = f"{reason}: {error}"
        if message != self.last_error:
            kept = self.current.pointer.version if self.current else None
            logger.error("champion_kept reason=%s serving=%s error=%r", reason, kept, str(error))
        self.last_error = message

    @property
    def _last_served(self) -> Path:
        return self._cache / "last_served.json"

    def _remember(self, pointer: ChannelPointer, folder: Path) -> None:
        data = msgspec.json.encode(_Served(pointer, str(folder)))
        temporary = self._last_served.with_name(f"{uuid4().hex}.partial")
        try:
            temporary.write_bytes(data)
            temporary.replace(self._last_served)
        except OSError as error:  # only a start without the store would miss it
            logger.warning("champion_not_remembered error=%r", str(error))

    def _load_last_served(self) -> None:
        """Serve this machine's copy of the last champion while the store is away."""
        try:
            served = msgspec.json.decode(self._last_served.read_bytes(), type=_Served)
            folder = Path(served.folder)
            scorer = SessionScorer.load(folder)
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError, BundleCorrupt) as error:
            logger.error("last_champion_unusable error=%r", str(error))
            return
        self._swap(Champion(scorer, served.pointer, folder, datetime.now(UTC)))
