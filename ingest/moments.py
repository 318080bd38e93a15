"""Times as whole microseconds since 1970, as the outbox and Arrow keep them."""

from datetime import UTC, datetime

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(moment: datetime) -> int:
    """Whole microseconds since 1970 of a time with a zone."""
    passed = moment - _EPOCH
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds


def from_microseconds(passed: int) -> datetime:
    """The UTC time that many microseconds after 1970."""
    return datetime.fromtimestamp(passed // 1_000_000, UTC).replace(microsecond=passed % 1_000_000)
