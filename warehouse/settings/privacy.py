"""Settings of erasure and retention."""

from pydantic import Field, SecretStr, field_validator

from warehouse.settings.part import Part


class PrivacySettings(Part):
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
