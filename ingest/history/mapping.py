"""Rows of a flat table into events, by a mapping of its columns to our fields.

One row is one event of at most one item; with `group_by`, rows that follow each other with the
same keys are one event of many items (the lines of an invoice). All of it is done in columns.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
import polars as pl

from ingest.history.files import REST, Tally
from ingest.history.frame import FIELDS, ITEM, completed
from ingest.history.grouping import grouped
from ingest.history.times import AS_WRITTEN, TimeFormat, utc

EVENT_FIELDS = tuple(name for name in FIELDS if name not in ("items", "extra"))
ITEM_FIELDS = tuple(field.name for field in ITEM.fields)
_NUMBERS = frozenset({"value", "price"})
_COUNTS = frozenset({"quantity", "index"})
_NO_TIME = "a row without a time"


@dataclass(frozen=True)
class From:
    """Where a field comes from: the first of `columns` with a value, else the constant `value`."""

    columns: tuple[str, ...] = ()
    value: str | float | None = None


@dataclass(frozen=True)
class Skip:
    """Rows that are left out for a `reason`: where a column's text is like this."""

    reason: str
    column: str
    is_missing: bool = False
    equals: tuple[str, ...] = ()
    starts_with: str = ""
    matches: str = ""
    below: float | None = None

    def mask(self, frame: pl.DataFrame) -> pl.Series:
        """Which rows to leave out."""
        text = text_of(frame, self.column)
        if self.is_missing:
            return text.is_null()
        if self.equals:
            found = text.is_in(list(self.equals))
        elif self.starts_with:
            found = text.str.starts_with(self.starts_with)
        elif self.matches:
            found = text.str.contains(self.matches)
        else:
            found = text.str.strip_chars().cast(pl.Float64, strict=False) < self.below
        return found.fill_null(False)


@dataclass(frozen=True)
class TableMapping:
    """How a table's rows become events; what no field names goes to `extra` where `keeps_rest`."""

    fields: Mapping[str, From]
    items: Mapping[str, From] = field(default_factory=dict)
    event_names: Mapping[str, str] = field(default_factory=dict)
    time: TimeFormat = AS_WRITTEN
    group_by: tuple[str, ...] = ()
    skip: tuple[Skip, ...] = ()
    keeps_rest: bool = True

    def columns(self) -> list[str]:
        """Every column that the mapping names, each once."""
        named = [name for source in self._sources() for name in source.columns]
        named += [*self.group_by, *(rule.column for rule in self.skip)]
        return list(dict.fromkeys(named))

    def _sources(self) -> Iterable[From]:
        return (*self.fields.values(), *self.items.values())


def events_of(
    frames: Iterable[pl.DataFrame], mapping: TableMapping, tally: Tally, max_items: int
) -> Iterator[pl.DataFrame]:
    """The events of a table's frames, at most `max_items` items in each."""
    rows = (_rows(frame, mapping, tally) for frame in frames)
    if mapping.group_by:
        yield from grouped(rows, max_items)
    else:
        for frame in rows:
            yield completed(frame)


def text_of(frame: pl.DataFrame, column: str) -> pl.Series:
    """A column as text, whole numbers without a fraction, empty text as null."""
    if column not in frame.columns:
        return _nested(frame, column)
    values = frame[column]
    kind = values.dtype
    if kind.is_float():
        whole = values.cast(pl.Int64, strict=False)
        is_whole = (whole.cast(kind) == values).fill_null(False)
        text = pl.when(is_whole).then(whole.cast(pl.String)).otherwise(values.cast(pl.String))
        return pl.select(text).to_series()
    if isinstance(kind, pl.Struct):
        return values.struct.json_encode()
    if isinstance(kind, (pl.List, pl.Array)):
        return frame.select(_json(column, kind)).to_series()
    text_series = values.cast(pl.String)
    return pl.select(pl.when(text_series != "").then(text_series)).to_series()


def _nested(frame: pl.DataFrame, column: str) -> pl.Series:
    """A field of a column of objects, by its dotted name; null where a frame has it not."""
    first, *parts = column.split(".")
    if not parts or first not in frame.columns:
        return pl.Series(column, [None] * frame.height, dtype=pl.String)
    values = frame[first]
    for part in parts:
        if not isinstance(values.dtype, pl.Struct) or part not in values.struct.fields:
            return pl.Series(column, [None] * frame.height, dtype=pl.String)
        values = values.struct.field(part)
    return text_of(pl.DataFrame({"value": values}), "value")


def _rows(frame: pl.DataFrame, mapping: TableMapping, tally: Tally) -> pl.DataFrame:
    """One event a row, with `item` beside and `key` of what groups it."""
    for rule in mapping.skip:
        frame = _without(frame, rule.mask(frame), rule.reason, tally)
    source = mapping.fields["occurred_at"]
    has_time = _first_text(frame, source).is_not_null()
    frame = _without(frame, ~has_time, _NO_TIME, tally)

    made: dict[str, pl.Series] = {}
    unread: dict[str, pl.Series] = {}
    made["occurred_at"] = utc(frame, source.columns[0], mapping.time)
    unread["occurred_at"] = _where(made["occurred_at"].is_null(), _first_text(frame, source))
    for name, place in mapping.fields.items():
        if name != "occurred_at":
            made[name], unread[name] = _field(frame, name, place)
    if mapping.event_names:
        names = made["event_name"]
        made["event_name"] = names.replace(dict(mapping.event_names))
    items: dict[str, pl.Series] = {}
    unread_items: dict[str, pl.Series] = {}
    for name, place in mapping.items.items():
        items[name], unread_items[name] = _field(frame, name, place)

    rows = pl.DataFrame([series.alias(name) for name, series in made.items()])
    rows = rows.with_columns(
        _noted(unread).alias("unread"), _noted(unread_items).alias("unread_item")
    )
    rows = rows.with_columns(_item(items, frame.height))
    if mapping.keeps_rest:
        rows = rows.with_columns(_rest(frame, set(mapping.columns())))
    if mapping.group_by:
        keys = [text_of(frame, key).alias(f"k{n}") for n, key in enumerate(mapping.group_by)]
        key = pl.DataFrame(keys).select(pl.struct(pl.all()).struct.json_encode())
        return rows.with_columns(key.to_series().alias("key"))
    has_item = pl.col("item").is_not_null() | pl.col("unread_item").is_not_null()
    return rows.with_columns(
        items=pl.when(has_item).then(pl.concat_list("item")),
        unread_items=pl.when(pl.col("unread_item").is_not_null()).then(
            pl.concat_list("unread_item")
        ),
    )


def _without(frame: pl.DataFrame, mask: pl.Series, reason: str, tally: Tally) -> pl.DataFrame:
    tally.skip(reason, int(mask.sum()))
    return frame.filter(~mask)


def _first_text(frame: pl.DataFrame, place: From) -> pl.Series:
    texts = [text_of(frame, column) for column in place.columns]
    constant = None if place.value is None else str(place.value)
    return pl.select(
        pl.coalesce(*texts, pl.repeat(constant, frame.height, dtype=pl.String))
    ).to_series()


def _field(frame: pl.DataFrame, name: str, place: From) -> tuple[pl.Series, pl.Series]:
    """A field's values, and the text of those that do not read as the field's kind."""
    text = _first_text(frame, place)
    if name in _NUMBERS or name in _COUNTS:
        number = text.str.strip_chars().cast(pl.Float64, strict=False)
        finite = pl.select(pl.when(number.is_finite()).then(number)).to_series()
        if name in _NUMBERS:
            return finite, _where(number.is_null(), text)
        whole = finite.cast(pl.Int32, strict=False)
        is_whole = (whole.cast(pl.Float64) == finite).fill_null(False)
        return _where(is_whole, whole), _where(
            number.is_null() | (finite.is_not_null() & ~is_whole), text
        )
    return text, pl.Series([None] * frame.height, dtype=pl.String)


def _where(mask: pl.Series, values: pl.Series) -> pl.Series:
    return pl.select(pl.when(mask).then(values)).to_series()


def _noted(unread: dict[str, pl.Series]) -> pl.Series:
    """What was not read of each row, as one JSON object; null where all was."""
    noted = {name: texts for name, texts in unread.items() if texts.null_count() < len(texts)}
    height = len(next(iter(unread.values()), pl.Series([])))
    if not noted:
        return pl.Series([None] * height, dtype=pl.String)
    return _object(pl.DataFrame([texts.alias(name) for name, texts in noted.items()]))


def _object(frame: pl.DataFrame) -> pl.Series:
    """Each row's columns that have a value as one JSON object; null where none has."""
    parts = [
        pl.when(pl.col(name).is_not_null()).then(
            pl.lit(f"{msgspec.json.encode(name).decode()}:") + _json(name, frame.schema[name])
        )
        for name in frame.columns
    ]
    joined = pl.concat_str(parts, separator=",", ignore_nulls=True)
    return frame.select(
        pl.when(pl.any_horizontal(pl.all().is_not_null())).then(pl.lit("{") + joined + pl.lit("}"))
    ).to_series()


def _json(name: str, kind: pl.DataType) -> pl.Expr:
    """A column's values as JSON text."""
    value = pl.col(name)
    if kind.is_integer() or kind == pl.Boolean:
        return value.cast(pl.String)
    if kind.is_temporal() or kind == pl.Binary or kind == pl.Categorical or kind.is_decimal():
        value = value.cast(pl.String)
    return pl.struct(value.alias("v")).struct.json_encode().str.slice(5).str.head(-1)


def _item(items: dict[str, pl.Series], height: int) -> pl.Series:
    """The row's item as one struct; null where all of its fields are."""
    if not items:
        return pl.Series("item", [None] * height, dtype=ITEM)
    known = pl.DataFrame([series.alias(name) for name, series in items.items()])
    fields = [
        (pl.col(name) if name in items else pl.lit(None)).cast(kind).alias(name)
        for name, kind in ((one.name, one.dtype) for one in ITEM.fields)
    ]
    item = pl.when(pl.any_horizontal(pl.all().is_not_null())).then(pl.struct(fields))
    return known.select(item.alias("item")).to_series()


def _rest(frame: pl.DataFrame, used: set[str]) -> pl.Series:
    """What no field names, as JSON for `extra`."""
    if REST in frame.columns:
        return frame[REST].alias("extra")
    tops = used | {name.split(".")[0] for name in used}
    rest = [name for name in frame.columns if name not in tops]
    if not rest:
        return pl.Series("extra", [None] * frame.height, dtype=pl.String)
    return _object(frame.select(rest)).alias("extra")
