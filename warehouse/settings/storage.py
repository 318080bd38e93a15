"""Settings of the object store."""

import re
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from warehouse.settings.part import Part

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class StorageSettings(Part):
    """Where raw events, marts, models and reports are kept."""

    uri: str = Field(
        "",
        description="Object store: a folder, or `s3://bucket/prefix`; empty means `<home>/store`.",
    )
    s3_endpoint: str = Field(
        "http://127.0.0.1:9000", description="URL of the S3 server (MinIO API), with its scheme."
    )
    s3_region: str = Field("us-east-1", description="Region that requests are signed for.")
    s3_access_key: SecretStr = Field(SecretStr(""), description="S3 access key.")
    s3_secret_key: SecretStr = Field(SecretStr(""), description="S3 secret key.")
    s3_timeout_seconds: float = Field(
        10.0, gt=0, description="Seconds before a request to the S3 server is given up."
    )

    @field_validator("uri")
    @classmethod
    def _known_scheme(cls, value: str) -> str:
        scheme = urlsplit(value).scheme
        if scheme not in ("", "s3"):
            raise ValueError(f"unknown store, expected a folder or `s3://bucket/prefix`: `{value}`")
        if scheme == "s3" and not _BUCKET.fullmatch(urlsplit(value).netloc):
            raise ValueError(
                "expected `s3://bucket/prefix` with a bucket of 3 to 63 lower-case letters, "
                f"digits, dots or hyphens: `{value}`"
            )
        return value.rstrip("/")

    @field_validator("s3_endpoint")
    @classmethod
    def _http_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"expected a URL like `http://minio:9000`: `{value}`")
        return value.rstrip("/")
