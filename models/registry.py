"""The models kept in the object store, and which of them serves.

A bundle's `manifest.json` is uploaded last, so a version that can be seen is whole; a channel's
pointer is replaced last, so a channel always names such a version.
"""

import os
import shutil
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from models.bundle import CHECKS, FILES, REPORT, read_manifest, verify_files
from models.erasures import erasures_of
from models.manifest import MANIFEST, NAME, BundleCorrupt, Manifest, decode_manifest
from models.registry_entries import (
    BundleInfo,
    BundleRef,
    ChannelPointer,
    NoChampionModel,
    RefusedByGate,
    UnknownModel,
    word,
)  # fmt: skip
from warehouse import layout
from warehouse.store import ObjectNotFound, ObjectStore

__all__ = [
    "BundleCorrupt",
    "BundleInfo",
    "BundleRef",
    "ChannelPointer",
    "NoChampionModel",
    "RefusedByGate",
    "Registry",
    "UnknownModel",
]  # fmt: skip

_EARLIER_KEPT = 50


class Registry:
    """Bundles and channels in an object store. Every method may raise StoreUnavailable."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def pointer(self, channel: str = layout.CHAMPION) -> ChannelPointer:
        """What `channel` serves.

        Raises NoChampionModel before the first promotion, BundleCorrupt where it is damaged.
        """
        try:
            data = self._store.get(layout.channel_key(word(channel)))
        except ObjectNotFound:
            raise NoChampionModel(
                f"no model serves yet, run `shallop refresh` first; channel: `{channel}`"
            ) from None
        try:
            return msgspec.json.decode(data, type=ChannelPointer)
        except msgspec.DecodeError as error:
            raise BundleCorrupt(
                f"what `{channel}` serves cannot be read, `shallop registry promote` writes it "
                f"anew; {error}: `{layout.channel_key(channel)}`"
            ) from None

    def upload(self, folder: Path, *, is_refused: bool = False) -> tuple[str, str]:
        """Keep the bundle in `folder`; its name and version.

        One that was refused is kept as it is, for whoever wants to know why. Raises BundleCorrupt.
        """
        manifest = read_manifest(folder) if is_refused else verify_files(folder)
        for file in (*manifest.files, MANIFEST):
            key = layout.bundle_key(manifest.name, manifest.version, file)
            self._store.put(key, (folder / file).read_bytes())
        return manifest.name, manifest.version

    def fetch(self, name: str, version: str, cache: Path) -> Path:
        """A verified local copy in `cache/<name>/<version>`, downloaded where there is none.

        Raises UnknownModel and BundleCorrupt.
        """
        folder = cache / word(name) / word(version)
        if folder.is_dir():
            try:
                verify_files(folder)
                return folder
            except BundleCorrupt:
                shutil.rmtree(folder)
        manifest = self._manifest(name, version)
        partial = folder.with_name(f"{version}.{uuid4().hex}.partial")
        partial.mkdir(parents=True)
        try:
            for file in (*manifest.files, MANIFEST):
                if Path(file).name != file:
                    raise BundleCorrupt(f"{MANIFEST} of {name} {version} names: `{file}`")
                (partial / file).write_bytes(self._file(name, version, file))
            verify_files(partial)
            try:
                os.rename(partial, folder)
            except OSError:  # another process was first; its copy is as good once verified
                verify_files(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return folder

    def promote(
        self,
        name: str,
        version: str,
        *,
        channel: str = layout.CHAMPION,
        reason: str = "",
        is_forced: bool = False,
    ) -> ChannelPointer:
        """Let `channel` serve a kept bundle.

        Raises UnknownModel where it is not whole, and, unless forced, RefusedByGate where it failed
        a check.
        """
        self._check_whole(name, version)
        failed = [check["message"] for check in self.checks(name, version) if not check["passed"]]
        if failed and not is_forced:
            raise RefusedByGate(
                f"the gate refused this model: {'; '.join(failed)}: `{name} {version}`"
            )
        try:
            before = self.pointer(channel)
        except (BundleCorrupt, NoChampionModel):
            return self._point(ChannelPointer(channel, name, version, datetime.now(UTC), reason))
        if (before.name, before.version) == (name, version):
            return before
        earlier = (before.previous, *before.earlier) if before.previous else ()
        return self._point(
            ChannelPointer(
                channel,
                name,
                version,
                datetime.now(UTC),
                reason,
                BundleRef(before.name, before.version),
                earlier[:_EARLIER_KEPT],
            )
        )

    def refuse(self, name: str, version: str, reason: str) -> ChannelPointer:
        """Write down that the gate refused a candidate, and why; what serves stays."""
        return self._point(ChannelPointer(layout.REFUSED, name, version, datetime.now(UTC), reason))

    def refusal(self) -> ChannelPointer | None:
        """The last refused candidate, None where there is none or a champion came after it.

        Raises BundleCorrupt where a pointer is damaged.
        """
        try:
            refused = self.pointer(layout.REFUSED)
        except NoChampionModel:
            return None
        try:
            return refused if refused.promoted_at > self.pointer().promoted_at else None
        except NoChampionModel:
            return refused

    def rollback(self, channel: str = layout.CHAMPION) -> ChannelPointer:
        """Let `channel` serve what it served before; again, and it goes one further back.

        Raises NoChampionModel where there is nothing before, UnknownModel where it is gone.
        """
        now = self.pointer(channel)
        if now.previous is None:
            raise NoChampionModel(
                f"nothing to roll back to, `{channel}` never served another model than: "
                f"`{now.name} {now.version}`"
            )
        self._check_whole(now.previous.name, now.previous.version)
        before, *earlier = now.earlier or (None,)
        return self._point(
            ChannelPointer(
                channel,
                now.previous.name,
                now.previous.version,
                datetime.now(UTC),
                f"rolled back from {now.version}",
                before,
                tuple(one for one in earlier if one),
            )
        )

    def versions(self) -> list[BundleInfo]:
        """Every whole bundle, newest first."""
        channels: dict[tuple[str, str], list[str]] = {}
        found: list[tuple[str, str]] = []
        n_bytes: Counter[tuple[str, str]] = Counter()
        for entry in self._store.list(layout.MODELS):
            parts = entry.key.removeprefix(f"{layout.MODELS}/").split("/")
            if entry.key.startswith(f"{layout.CHANNELS}/"):
                pointer = self.pointer(parts[-1].removesuffix(".json"))
                channels.setdefault((pointer.name, pointer.version), []).append(pointer.channel)
            elif len(parts) == 3:
                n_bytes[parts[0], parts[1]] += entry.size
                found += [(parts[0], parts[1])] if parts[2] == MANIFEST else []
        described = [
            self._described(*bundle, channels.get(bundle, []), n_bytes[bundle]) for bundle in found
        ]
        return sorted(described, key=lambda info: (info.created_at, info.version), reverse=True)

    def manifest(self, name: str, version: str) -> dict[str, Any]:
        """Where the bundle comes from and its hashes. Raises UnknownModel."""
        return self._json(name, version, MANIFEST)  # type: ignore[no-any-return]

    def metrics(self, name: str, version: str) -> dict[str, Any]:
        """Figures of the model and its baselines on the hold-out. Raises UnknownModel."""
        return self._json(name, version, "metrics.json")  # type: ignore[no-any-return]

    def checks(self, name: str, version: str) -> list[dict[str, Any]]:
        """The gate's verdict. Raises UnknownModel."""
        return self._json(name, version, CHECKS)  # type: ignore[no-any-return]

    def report(self, name: str, version: str) -> bytes:
        """The model's report, as HTML. Raises UnknownModel, also where it was made without one."""
        if REPORT not in self._manifest(name, version).files:
            raise UnknownModel(f"this model was made without a report: `{name} {version}`")
        return self._file(name, version, REPORT)

    def _described(self, name: str, version: str, channels: list[str], n_bytes: int) -> BundleInfo:
        manifest, metrics = self._manifest(name, version), self.metrics(name, version)
        of_model = metrics.get("models", {}).get(metrics.get("served", NAME), {})
        values = [check.get("values", {}) for check in self.checks(name, version)]
        seconds = next((one["load_seconds"] for one in values if "load_seconds" in one), None)
        return BundleInfo(
            name, version, manifest.created_at, manifest.snapshot_id, of_model, channels, n_bytes,
            seconds, len(erasures_of(self._store, name, version)),
        )  # fmt: skip

    def _manifest(self, name: str, version: str) -> Manifest:
        return decode_manifest(self._file(name, version, MANIFEST), f"{name} {version}")

    def _json(self, name: str, version: str, file: str) -> Any:
        return msgspec.json.decode(self._file(name, version, file))

    def _file(self, name: str, version: str, file: str) -> bytes:
        try:
            return self._store.get(layout.bundle_key(word(name), word(version), file))
        except ObjectNotFound as error:
            raise UnknownModel(
                f"no whole model bundle `{name} {version}`, see `shallop registry list`; {error}"
            ) from None

    def _check_whole(self, name: str, version: str) -> None:
        for file in {*FILES, *self._manifest(name, version).files}:
            try:
                self._store.stat(layout.bundle_key(name, version, file))
            except ObjectNotFound as error:
                raise UnknownModel(
                    f"model bundle `{name} {version}` is not whole; {error}"
                ) from None

    def _point(self, pointer: ChannelPointer) -> ChannelPointer:
        data = msgspec.json.format(msgspec.json.encode(pointer))
        self._store.put(layout.channel_key(pointer.channel), data)
        return pointer
