"""The object store: a folder or an S3 server behind one small interface.

Keys are relative to the store's URI. Writes are whole objects and atomic; `put_if_absent` is the
conditional write that append-only raw data rests on.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit
from uuid import uuid4

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error
from minio.versioningconfig import OFF

from warehouse.settings import Settings, StorageSettings


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
    if settings.store_uri.startswith("s3://"):
        return S3Store(settings.store_uri, settings.storage)
    return FolderStore(Path(settings.store_uri))


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


class S3Store:
    """A bucket on an S3 server (MinIO API), optionally below a prefix."""

    def __init__(self, uri: str, storage: StorageSettings) -> None:
        parts = urlsplit(uri)
        self.bucket = parts.netloc
        self.prefix = parts.path.strip("/")
        endpoint = urlsplit(storage.s3_endpoint)
        self._endpoint = storage.s3_endpoint
        # One retry: callers (flusher, poller, Dagster) have their own; a request must end soon.
        self._http = urllib3.PoolManager(
            timeout=urllib3.Timeout(total=storage.s3_timeout_seconds),
            retries=urllib3.Retry(total=1, backoff_factor=0.2),
            maxsize=16,
        )
        self._client = Minio(
            endpoint=endpoint.netloc,
            access_key=storage.s3_access_key.get_secret_value(),
            secret_key=storage.s3_secret_key.get_secret_value(),
            region=storage.s3_region,
            secure=endpoint.scheme == "https",
            http_client=self._http,
        )

    def put(self, key: str, data: bytes) -> None:
        try:
            self._put(key, data)
        except ObjectNotFound:  # the bucket: nobody has written before
            self.prepare()
            self._put(key, data)

    def _put(self, key: str, data: bytes) -> None:
        with self._translated(key):
            self._client.put_object(
                bucket_name=self.bucket, object_name=self._name(key), data=BytesIO(data),
                length=len(data),
            )  # fmt: skip

    def put_if_absent(self, key: str, data: bytes) -> bool:
        status = self._put_if_absent(key, data)
        if status == 404:  # the bucket: nobody has written before
            self.prepare()
            status = self._put_if_absent(key, data)
        if status not in (200, 412):
            raise StoreUnavailable(
                f"the S3 server at {self._endpoint} answered {status} to a write of `{key}`"
            )
        return status == 200

    def _put_if_absent(self, key: str, data: bytes) -> int:
        """HTTP status of a conditional write: 200, or 412 where the key exists."""
        # The SDK's put_object has no conditional form; a presigned URL takes the header.
        with self._translated(key):
            url = self._client.presigned_put_object(
                bucket_name=self.bucket, object_name=self._name(key), expires=timedelta(minutes=5)
            )
            reply = self._http.request("PUT", url, body=data, headers={"If-None-Match": "*"})
        return reply.status

    def get(self, key: str) -> bytes:
        with self._translated(key):
            reply = self._client.get_object(bucket_name=self.bucket, object_name=self._name(key))
            try:
                return bytes(reply.data)
            finally:
                reply.close()
                reply.release_conn()

    def stat(self, key: str) -> ObjectInfo:
        with self._translated(key):
            found = self._client.stat_object(bucket_name=self.bucket, object_name=self._name(key))
        return ObjectInfo(key, found.size or 0, found.last_modified or datetime.now(UTC))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        with suppress(ObjectNotFound), self._translated(prefix):  # no bucket, no objects
            for found in self._client.list_objects(
                bucket_name=self.bucket,
                prefix=self._name(prefix).rstrip("/") + "/",
                recursive=True,
            ):
                name = found.object_name or ""
                if not found.is_dir:
                    yield ObjectInfo(
                        name.removeprefix(f"{self.prefix}/" if self.prefix else ""),
                        found.size or 0,
                        found.last_modified or datetime.now(UTC),
                    )

    def delete(self, key: str) -> None:
        with suppress(ObjectNotFound), self._translated(key):
            self._client.remove_object(bucket_name=self.bucket, object_name=self._name(key))

    def purge(self, prefix: str) -> int:
        with self._translated(prefix):
            if self._client.get_bucket_versioning(bucket_name=self.bucket).status == OFF:
                return 0
            versions = self._client.list_objects(
                bucket_name=self.bucket,
                prefix=self._name(prefix).rstrip("/") + "/",
                recursive=True,
                include_version=True,
            )
            old = [one for one in versions if one.is_delete_marker or one.is_latest == "false"]
            # Markers last: without one the version before it would be back.
            for found in sorted(old, key=lambda one: one.is_delete_marker):
                self._client.remove_object(
                    bucket_name=self.bucket,
                    object_name=found.object_name or "",
                    version_id=found.version_id,
                )
        return len(old)

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{self._name(key)}"

    def prepare(self) -> None:
        with self._translated(""):
            if not self._client.bucket_exists(bucket_name=self.bucket):
                try:
                    self._client.make_bucket(bucket_name=self.bucket)
                except S3Error as error:  # another process was first
                    if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                        raise

    def _name(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        """Errors of the SDK and its transport as ours."""
        try:
            yield
        except S3Error as error:
            if error.code in ("NoSuchKey", "NoSuchObject", "NoSuchBucket"):
                raise ObjectNotFound(key) from None
            raise StoreUnavailable(
                f"the S3 server at {self._endpoint} refused bucket `{self.bucket}`: "
                f"{error.code}: {error.message}"
            ) from error
        except (MinioException, urllib3.exceptions.HTTPError) as error:
            raise StoreUnavailable(
                f"no answer from the S3 server at {self._endpoint}, is it up and "
                f"SHALLOP_STORAGE__S3_ENDPOINT right? {getattr(error, 'reason', error)}"
            ) from error


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
