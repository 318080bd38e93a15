"""Times as history spells them, as UTC.

A time without a zone is in the zone that the user names. Where a zone's clocks go back, the hour
that comes twice is taken the first time; the hour that they leave out is no time.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, available_timezones

import polars as pl

UNITS = ("s", "ms", "us")

_UTC_TIME = pl.Datetime("us", "UTC")
_PLAIN = "%Y-%m-%d %H:%M:%S%.f"


class UnknownTimezone(ValueError):
    """No time zone has this name."""


@dataclass(frozen=True)
class TimeFormat:
    """`form` is `auto`, a unit of UNITS since 1970, or a pattern of strftime; `timezone` IANA's."""

    form: str = "auto"
    timezone: str = "UTC"


AS_WRITTEN = TimeFormat()


def check_timezone(name: str) -> str:
    """Raises UnknownTimezone."""
    if name not in available_timezones():
        raise UnknownTimezone(
            f"unknown time zone, expected a name like `Europe/Berlin` or `UTC`: `{name}`"
        )
    return name


def utc(frame: pl.DataFrame, column: str, time: TimeFormat) -> pl.Series:
    """A column's times; null where it has none, or what does not read as one."""
    values = frame[column]
    kind = values.dtype
    if kind == pl.Date:
        values = values.cast(pl.Datetime("us"))
        kind = values.dtype
    if isinstance(kind, pl.Datetime):
        values = values.cast(pl.Datetime("us", kind.time_zone))
        return values.cast(_UTC_TIME) if kind.time_zone else _in_zone(values, time.timezone)
    if kind.is_numeric() or time.form in UNITS:
        unit = time.form if time.form in UNITS else "ms"
        return _epoch(values, unit)
    text = values.cast(pl.String).str.strip_chars()
    if time.form != "auto":
        has_zone = "%z" in time.form or "%Z" in time.form
        parsed = text.str.to_datetime(time.form, strict=False, time_unit="us", time_zone=None)
        return parsed.cast(_UTC_TIME) if has_zone else _in_zone(parsed, time.timezone)
    return _iso(text, time.timezone)


def _epoch(values: pl.Series, unit: str) -> pl.Series:
    factor = {"s": 1_000_000, "ms": 1_000, "us": 1}[unit]
    whole = values.cast(pl.Int64, strict=False)
    if unit == "s":  # fractions of a second are common
        exact = (
            (values.cast(pl.Float64, strict=False) * factor).round().cast(pl.Int64, strict=False)
        )
        micros = pl.select(
            pl.when(whole.is_not_null() & (whole.cast(pl.Float64) * factor == exact))
            .then(whole * factor)
            .otherwise(exact)
        ).to_series()
    else:
        micros = whole * factor
    in_range = micros.abs() < 253_402_300_800_000_000  # year 10000
    return pl.select(pl.when(in_range).then(micros)).to_series().cast(_UTC_TIME)


def _iso(text: pl.Series, timezone: str) -> pl.Series:
    """ISO 8601 text: the common forms in columns, the others one by one."""
    is_utc = text.str.contains(r"(Z| UTC)$")
    plain = text.str.replace(r"( UTC|Z)$", "").str.replace("T", " ", literal=True)
    parsed = plain.str.to_datetime(_PLAIN, strict=False, time_unit="us")
    as_utc = parsed.dt.replace_time_zone("UTC")
    local = as_utc if timezone == "UTC" else _in_zone(parsed, timezone)
    times = pl.select(pl.when(is_utc).then(as_utc).otherwise(local)).to_series()
    left = text.filter(parsed.is_null() & text.is_not_null()).unique()
    if left.is_empty():
        return times
    others = [_moment(value, timezone) for value in left]
    slow = text.replace_strict(left, pl.Series(others, dtype=_UTC_TIME), default=None)
    return pl.select(pl.coalesce(times, slow)).to_series()


def _moment(text: str, timezone: str) -> datetime | None:
    if text.isascii() and text.isdigit() and len(text) > 8:
        try:
            return datetime.fromtimestamp(int(text) / 1000, UTC)
        except (OverflowError, ValueError, OSError):
            return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(timezone))).astimezone(
            UTC
        )
    except (ValueError, OverflowError):
        return None


def _in_zone(values: pl.Series, timezone: str) -> pl.Series:
    return values.dt.replace_time_zone(timezone, ambiguous="earliest", non_existent="null").cast(
        _UTC_TIME
    )
