"""Settings of the app."""

from typing import Literal

from pydantic import Field, field_validator

from warehouse.origins import normalised
from warehouse.settings.part import Part


class ServingSettings(Part):
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
