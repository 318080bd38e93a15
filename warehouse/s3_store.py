"""The object store on an S3 server."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from io import BytesIO
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error
from minio.versioningconfig import OFF

from warehouse.settings import StorageSettings
from warehouse.store import ObjectInfo, ObjectNotFound, StoreUnavailable

_ABSENT = {"If-None-Match": "*"}
# Some servers keep an object of no bytes where a client died between its headers and its data.
# Nothing of ours is empty, so that is no object; its ETag is the MD5 of nothing.
_EMPTY = {"If-Match": '"d41d8cd98f00b204e9800998ecf8427e"'}


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
        status = self._put_where(_ABSENT, key, data)
        if status == 404:  # the bucket: nobody has written before
            self.prepare()
            status = self._put_where(_ABSENT, key, data)
        if status == 412 and not self.stat(key).size:
            status = self._put_where(_EMPTY, key, data)
        if status not in (200, 412):
            raise StoreUnavailable(
                f"the S3 server at {self._endpoint} answered {status} to a write of `{key}`"
            )
        return status == 200

    def _put_where(self, condition: dict[str, str], key: str, data: bytes) -> int:
        """HTTP status of a conditional write: 200, or 412 where the condition does not hold."""
        # The SDK's put_object has no conditional form; a presigned URL takes the header.
        with self._translated(key):
            url = self._client.presigned_put_object(
                bucket_name=self.bucket, object_name=self._name(key), expires=timedelta(minutes=5)
            )
            reply = self._http.request("PUT", url, body=data, headers=condition)
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
                if not found.is_dir and found.size:
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
