"""Every setting of Shallop, typed, in one place.

Values come from the environment (`SHALLOP_<PART>__<FIELD>`) or a `.env` file beside the checkout.
Nothing else in the code base reads the environment; dbt receives its part through
`Settings.dbt_environment`.
"""

import hashlib
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from warehouse.settings.access import AccessSettings
from warehouse.settings.ingest import IngestSettings
from warehouse.settings.privacy import PrivacySettings
from warehouse.settings.refresh import RefreshSettings
from warehouse.settings.serving import ServingSettings
from warehouse.settings.storage import StorageSettings
from warehouse.settings.training import TrainingSettings
from warehouse.settings.warehouse import WarehouseSettings

__all__ = [
    "AccessSettings", "IngestSettings", "PrivacySettings", "RefreshSettings", "ServingSettings",
    "Settings", "StorageSettings", "TrainingSettings", "WarehouseSettings", "get_settings",
]  # fmt: skip


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

    def store_environment(self) -> dict[str, str]:
        """The environment in which another process of Shallop has this home and this store."""
        storage = self.storage
        return {
            "SHALLOP_HOME": str(self.home),
            "SHALLOP_STORAGE__URI": storage.uri,
            "SHALLOP_STORAGE__S3_ENDPOINT": storage.s3_endpoint,
            "SHALLOP_STORAGE__S3_REGION": storage.s3_region,
            "SHALLOP_STORAGE__S3_ACCESS_KEY": storage.s3_access_key.get_secret_value(),
            "SHALLOP_STORAGE__S3_SECRET_KEY": storage.s3_secret_key.get_secret_value(),
            "SHALLOP_STORAGE__S3_TIMEOUT_SECONDS": str(storage.s3_timeout_seconds),
        }

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
