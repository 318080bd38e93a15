"""What Segment's library for browsers asks before it sends: the settings of a source.

With this the library is pointed here as a whole, by its `cdnURL` alone.
https://github.com/segmentio/analytics-next, `loadCDNSettings` and the type `CDNSettings`.
"""

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

router = APIRouter(tags=["segment"])


class SegmentIo(BaseModel):
    """Where the library sends events."""

    apiKey: str
    apiHost: str
    protocol: str


class Integrations(BaseModel):
    """No destination but us."""

    segment_io: SegmentIo = Field(alias="Segment.io")


class SourceMetrics(BaseModel):
    """How much the library counts its own doings: not at all."""

    sampleRate: float = 0


class SourceSettings(BaseModel):
    """Settings of a source as Segment's CDN gives them."""

    integrations: Integrations
    metrics: SourceMetrics = SourceMetrics()


@router.get("/v1/projects/{write_key}/settings", summary="Segment: settings of a source")
async def settings_of_source(write_key: str, request: Request) -> SourceSettings:
    """Events go to the host that was asked, by https where the page came by https."""
    is_page_secure = request.headers.get("origin", "").startswith("https://")
    segment_io = SegmentIo(
        apiKey=write_key,
        apiHost=f"{request.url.netloc}/v1",
        protocol="https" if is_page_secure else request.url.scheme,
    )
    return SourceSettings(integrations=Integrations.model_validate({"Segment.io": segment_io}))
