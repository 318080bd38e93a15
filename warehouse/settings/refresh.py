"""Settings of when the pipeline runs."""

from pydantic import Field, SecretStr

from warehouse.settings.part import Part


class RefreshSettings(Part):
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
