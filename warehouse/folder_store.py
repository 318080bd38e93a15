"""The object store in a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from warehouse.store import ObjectInfo, ObjectNotFound, StoreUnavailable, sync_folder


class FolderStore:
    """A store in a folder of this machine; survives a crash at any point."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, key: str, data: bytes) -> None:
        with self._temporary(key, data) as (temporary, path):
            os.replace(temporary, path)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        with self._temporary(key, data) as (temporary, path):
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
        return True

    def get(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, IsADirectoryError):
            raise ObjectNotFound(key) from None
        except OSError as error:
            raise StoreUnavailable(f"cannot read the store: {error}") from error

    def stat(self, key: str) -> ObjectInfo:
        path = self._path(key)
        if not path.is_file():
            raise ObjectNotFound(key)
        return self._info(path)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        files = (path for path in (self.root / prefix).rglob("*") if path.is_file())
        for path in sorted(files):
            if not path.name.endswith(".partial"):
                yield self._info(path)

    def delete(self, key: str) -> None:
        with suppress(FileNotFoundError):
            self._path(key).unlink()

    def purge(self, prefix: str) -> int:
        # A writer that is alive fails, and writes again.
        left = [path for path in (self.root / prefix).rglob("*.partial") if path.is_file()]
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)

    def uri(self, key: str) -> str:
        return str(self.root / key)

    def prepare(self) -> None:
        with self._temporary(".writable", b""):
            pass

    def _path(self, key: str) -> Path:
        path = self.root / key
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise ObjectNotFound(key)
        return path

    def _info(self, path: Path) -> ObjectInfo:
        status = path.stat()
        key = path.relative_to(self.root).as_posix()
        return ObjectInfo(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    @contextmanager
    def _temporary(self, key: str, data: bytes) -> Iterator[tuple[Path, Path]]:
        """A synced file of `data` beside the key's path, removed afterwards where still there."""
        path = self._path(key)
        temporary = path.with_name(f"{path.name}.{uuid4().hex}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary, path
            sync_folder(path.parent)
        except OSError as error:
            raise StoreUnavailable(f"cannot write to the store: {error}") from error
        finally:
            with suppress(OSError):
                temporary.unlink()
