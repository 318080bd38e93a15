"""Every setting of Shallop, typed, in one place.

Values come from the environment (`SHALLOP_<PART>__<FIELD>`) or a `.env` file beside the checkout.
Nothing else in the code base reads the environment; dbt receives its part through
`Settings.dbt_environment`.
"""

import hashlib
import re
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from warehouse.access_settings import AccessSettings
from warehouse.origins import normalised

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StorageSettings(_Part):
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


class IngestSettings(_Part):
    """The collector: limits, outbox, flusher and session state."""

    max_body_bytes: int = Field(1_048_576, ge=1024, description="Largest request body, in bytes.")
    max_batch_events: int = Field(1_000, ge=1, description="Most events in one request.")
    max_event_items: int = Field(200, ge=1, description="Most items in one event.")
    max_future_seconds: int = Field(
        86_400, ge=0, description="How far ahead of our clock `occurred_at` may be, in seconds."
    )
    refused_bytes_per_hour: int = Field(
        16_777_216,
        ge=0,
        description="Bodies refused as a whole that each worker keeps as rejected, bytes an hour.",
    )
    outbox_limit_events: int = Field(
        2_000_000,
        ge=1,
        description="Events waiting for the store before the collector answers 503.",
    )
    flush_interval_seconds: float = Field(
        2.0, gt=0, description="Seconds between two shipments of the outbox to the store."
    )
    drain_seconds: float = Field(
        20.0,
        gt=0,
        description="Longest that a shutdown ships what waits; the rest stays in the outbox.",
    )
    flush_max_rows: int = Field(100_000, ge=1, description="Most rows in one raw Parquet object.")
    session_gap_seconds: int = Field(
        1_800, ge=1, description="Inactivity that ends a session the client did not name, seconds."
    )
    session_max_steps: int = Field(
        50, ge=1, description="Latest steps of a live session kept for recommending."
    )
    session_ttl_seconds: int = Field(
        86_400, ge=60, description="Seconds after which an idle live session is forgotten."
    )
    keep_ip_prefix: bool = Field(
        True, description="Keep the sender's address, truncated; false: drop it."
    )
    ipv4_prefix_bits: int = Field(
        24, ge=8, le=32, description="Bits of an IPv4 address that are kept."
    )
    ipv6_prefix_bits: int = Field(
        48, ge=16, le=128, description="Bits of an IPv6 address that are kept."
    )
    user_agent: Literal["keep", "family", "drop"] = Field(
        "keep",
        description="The browser: as it names itself, its `family` (`Chrome 128 / Android`), none.",
    )


class WarehouseSettings(_Part):
    """DuckDB, as dbt runs it."""

    memory_limit: str = Field("2GB", description="DuckDB's memory limit while dbt builds.")
    threads: int = Field(2, ge=1, description="DuckDB's threads while dbt builds.")


class TrainingSettings(_Part):
    """What a refresh trains on and how; hyperparameters live in `config_file`."""

    config_file: Path | None = Field(
        None, description="JSON file of GRU4Rec hyperparameters; empty means the defaults."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where to train: `auto` takes CUDA when a GPU is there."
    )
    threads: int = Field(1, ge=1, description="CPU math threads of training.")
    seed: int = Field(42, description="Seed of initial weights, negatives and dropout.")
    checkpoint_seconds: float = Field(
        60.0, ge=0, description="Seconds between two checkpoints of a training; 0 means none."
    )
    window_days: int = Field(
        90, ge=1, description="Days of events, back from the last, trained on."
    )
    min_item_support: int = Field(
        5, ge=1, description="Steps an item needs inside the window to be in the model."
    )
    min_session_steps: int = Field(2, ge=2, description="Steps a session needs to be trained on.")
    holdout_share: float = Field(
        0.1, gt=0, lt=0.5, description="Share of the latest sessions kept to judge the model."
    )
    bot_filter: bool = Field(
        True, description="Learn nothing from sessions whose user agents are all known bots'."
    )
    max_session_events: int = Field(
        1_000,
        ge=0,
        description="Views, carts and purchases in a session above which nothing is learned from "
        "it; those of one moment count once, 0 is no limit.",
    )
    max_events_per_minute: int = Field(
        60, ge=0, description="Likewise, those within any 60 seconds of a session; 0 is no limit."
    )
    view_weight: float = Field(
        1.0, gt=0, le=1000, description="How much a step on an item that is only viewed teaches."
    )
    cart_weight: float = Field(
        1.0, gt=0, le=1000, description="Likewise, one that is then put into the cart."
    )
    purchase_weight: float = Field(
        1.0, gt=0, le=1000, description="Likewise, one that the session goes on to buy."
    )
    refit: bool = Field(
        True, description="Train once more on all sessions, hold-out included, before publishing."
    )
    fusion: bool = Field(
        True,
        description="Serve GRU4Rec fused with VMIS-kNN and sequential rules, else it alone.",
    )
    rerank: bool = Field(
        True,
        description="Re-rank the fusion's best items by trees where they prove better at it.",
    )
    rerank_predictions: int = Field(
        20_000,
        ge=1,
        description="Most predictions, the latest, that the trees are learned from.",
    )
    warm_start_epochs: int = Field(
        0,
        ge=0,
        description="Epochs of a training that begins from the champion's weights; 0: from chance.",
    )
    min_holdout_steps: int = Field(
        20, ge=1, description="Predictions the hold-out needs before a model may be judged."
    )

    @property
    def signal_weights(self) -> dict[str, float]:
        """Weight of a step's loss by the outcome of its item."""
        return {
            "view_item": self.view_weight, "add_to_cart": self.cart_weight,
            "purchase": self.purchase_weight,
        }  # fmt: skip


class ServingSettings(_Part):
    """The HTTP application."""

    host: str = Field("127.0.0.1", description="Address the app listens on.")
    port: int = Field(8000, ge=1, le=65535, description="Port the app listens on.")
    workers: int = Field(1, ge=1, description="uvicorn worker processes.")
    default_k: int = Field(10, ge=1, description="Recommendations when a request names no `k`.")
    max_k: int = Field(100, ge=1, description="Most recommendations one request may ask for.")
    champion_poll_seconds: float = Field(
        2.0, gt=0, description="Seconds between two looks for a new champion model."
    )
    exclude: Literal["current", "session", "none"] = Field(
        "current",
        description="Not recommended back: the `current` item, the whole `session`, or `none`.",
    )
    cors_origins: tuple[str, ...] = Field(
        (), description="Origins (JSON array) whose pages may call the app from a browser."
    )
    shop_name: str = Field("Demo shop", description="Name at the top of the shop page.")
    currency: str = Field(
        "USD", pattern="^[A-Z]{3}$", description="Currency of the shop page's prices (ISO 4217)."
    )
    dagster_url: str = Field(
        "http://127.0.0.1:3000", description="Where the pages link to the Dagster web UI."
    )

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(normalised(origin) for origin in value)


class RefreshSettings(_Part):
    """When the pipeline runs and who hears of a failure."""

    cron: str = Field("15 3 * * *", description="Schedule of `refresh`, cron in UTC.")
    after_events: int = Field(
        10_000, ge=1, description="New raw events that start a `refresh` before its schedule."
    )
    alert_webhook_url: SecretStr = Field(
        SecretStr(""), description="URL that a failed run is posted to as JSON; empty means nobody."
    )
    drift_threshold: float = Field(
        0.2, gt=0, description="Population stability index above which a column has drifted."
    )


class PrivacySettings(_Part):
    """Erasure, and how long things are kept (`shallop retention`); 0 days means for ever."""

    key: SecretStr = Field(
        SecretStr(""),
        description="Secret of the erased ids' digests; empty means the file `<home>/privacy.key`, "
        "made by the first erasure.",
    )
    raw_days: int = Field(
        0, ge=0, description="Days that raw events are kept after receipt; 0 keeps them for ever."
    )
    rejected_days: int = Field(
        90, ge=0, description="Days that rejected events are kept after receipt; 0 for ever."
    )
    keep_snapshots: int = Field(
        30, ge=2, description="Latest mart snapshots kept, beside those of the models kept."
    )
    keep_reports: int = Field(30, ge=1, description="Latest drift reports kept.")
    keep_models: int = Field(
        30, ge=1, description="Latest models kept, beside those a channel serves or goes back to."
    )
    run_days: int = Field(
        90, ge=0, description="Days that finished Dagster runs are kept; 0 for ever."
    )
    cron: str = Field("45 5 * * *", description="Schedule of `retention`, cron in UTC.")

    @field_validator("key")
    @classmethod
    def _is_secret(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value()) < 16:
            raise ValueError("a key has at least 16 characters, `openssl rand -hex 32` makes one")
        return value


class Settings(BaseSettings):
    """All settings; frozen, refused at start-up when one is wrong."""

    model_config = SettingsConfigDict(
        env_prefix="SHALLOP_",
        env_nested_delimiter="__",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # it may be a key; our messages name what may be named
    )

    home: Path = Field(
        Path(".shallop"),
        description="Local state of this box: outbox, warehouse, Dagster, model cache.",
    )
    dagster_home: Path | None = Field(
        None, description="Dagster's home (`DAGSTER_HOME`); empty means `<home>/dagster`."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe log lines that are written."
    )
    key: SecretStr = Field(
        SecretStr(""), description="Key that commands of this box (replay, simulate, …) send."
    )
    storage: StorageSettings = StorageSettings()
    ingest: IngestSettings = IngestSettings()
    warehouse: WarehouseSettings = WarehouseSettings()
    training: TrainingSettings = TrainingSettings()
    serving: ServingSettings = ServingSettings()
    access: AccessSettings = AccessSettings()
    refresh: RefreshSettings = RefreshSettings()
    privacy: PrivacySettings = PrivacySettings()

    @model_validator(mode="after")
    def _s3_has_keys(self) -> "Settings":
        storage = self.storage
        if storage.uri.startswith("s3://") and not (
            storage.s3_access_key.get_secret_value() and storage.s3_secret_key.get_secret_value()
        ):
            raise ValueError(
                "the store is on S3 but has no keys, set SHALLOP_STORAGE__S3_ACCESS_KEY and "
                f"SHALLOP_STORAGE__S3_SECRET_KEY: `{storage.uri}`"
            )
        return self

    @property
    def store_uri(self) -> str:
        """The object store as an absolute folder path or `s3://bucket/prefix`."""
        uri = self.storage.uri or str(self.home / "store")
        return uri if uri.startswith("s3://") else str(Path(uri).absolute())

    @property
    def outbox_path(self) -> Path:
        """The collector's SQLite file."""
        return self.home.absolute() / "outbox.sqlite"

    @property
    def keys_path(self) -> Path:
        """The keys of this box, as hashes."""
        return self.home.absolute() / "keys.json"

    @property
    def privacy_key_path(self) -> Path:
        """Where the key of the erased ids' digests is, unless a setting has it."""
        return self.home.absolute() / "privacy.key"

    @property
    def duckdb_temp_path(self) -> Path:
        """Where DuckDB spills to; of this home alone, so that what a kill left can be removed."""
        home = hashlib.sha256(str(self.home.absolute()).encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"shallop-duckdb-{home}"

    @property
    def warehouse_path(self) -> Path:
        """The DuckDB file that dbt alone opens."""
        return self.home.absolute() / "warehouse.duckdb"

    @property
    def dagster_path(self) -> Path:
        """DAGSTER_HOME, of the embedded Dagster unless named."""
        return (self.dagster_home or self.home / "dagster").absolute()

    @property
    def model_cache_path(self) -> Path:
        """Verified local copies of model bundles, memory-mapped by the workers."""
        return self.home.absolute() / "models"

    @property
    def checkpoint_path(self) -> Path:
        """Where a refresh keeps checkpoints of its trainings."""
        return self.home.absolute() / "checkpoints"

    @property
    def extension_path(self) -> Path:
        """DuckDB extensions, seeded from their wheels."""
        return self.home.absolute() / "duckdb-extensions"

    def dbt_environment(self) -> dict[str, str]:
        """The environment that the dbt project reads with `env_var`."""
        storage = self.storage
        return {
            "SHALLOP_STORE_URI": self.store_uri,
            "SHALLOP_DBT_TARGET": "s3" if self.store_uri.startswith("s3://") else "folder",
            "SHALLOP_WAREHOUSE_PATH": str(self.warehouse_path),
            "SHALLOP_EXTENSION_PATH": str(self.extension_path),
            "SHALLOP_DUCKDB_TEMP_PATH": str(self.duckdb_temp_path),
            "SHALLOP_WAREHOUSE__MEMORY_LIMIT": self.warehouse.memory_limit,
            "SHALLOP_WAREHOUSE__THREADS": str(self.warehouse.threads),
            "SHALLOP_TRAINING__BOT_FILTER": str(self.training.bot_filter).lower(),
            "SHALLOP_TRAINING__MAX_SESSION_EVENTS": str(self.training.max_session_events),
            "SHALLOP_TRAINING__MAX_EVENTS_PER_MINUTE": str(self.training.max_events_per_minute),
            "SHALLOP_S3_HOST": urlsplit(storage.s3_endpoint).netloc,
            "SHALLOP_S3_USE_SSL": str(storage.s3_endpoint.startswith("https://")).lower(),
            "SHALLOP_STORAGE__S3_REGION": storage.s3_region,
            "SHALLOP_STORAGE__S3_ACCESS_KEY": storage.s3_access_key.get_secret_value(),
            "SHALLOP_STORAGE__S3_SECRET_KEY": storage.s3_secret_key.get_secret_value(),
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
            "DO_NOT_TRACK": "1",
        }


@lru_cache
def get_settings() -> Settings:
    """The process's settings, read once."""
    return Settings()
