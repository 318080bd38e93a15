"""Settings of the collector."""

from typing import Literal

from pydantic import Field

from warehouse.settings.part import Part


class IngestSettings(Part):
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
