"""A mapping file: TOML that says which column is which field of ours (docs/history.md).

Every mistake is said with the file, the key, what was given, and the nearest that would be right.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ingest.history.files import Layout
from ingest.history.formats import Format, Options, table_reader
from ingest.history.mapping import EVENT_FIELDS, ITEM_FIELDS, From, Skip, TableMapping
from ingest.history.times import UNITS, TimeFormat, UnknownTimezone, check_timezone
from warehouse.contracts import EVENT_NAMES

_TABLES = ("file", "event", "items", "event_names", "time", "group", "skip")
_REQUIRED = ("event_name", "occurred_at")
_LAYOUT_KEYS = ("delimiter", "encoding", "columns")
_TIME_KEYS = ("format", "timezone")
_CONDITIONS = ("is_missing", "equals", "starts_with", "matches", "below")


class InvalidMapping(ValueError):
    """A mapping file cannot be used as it is."""


def load(path: Path) -> tuple[Format, str]:
    """The format that a mapping file describes, and the file's text. Raises InvalidMapping."""
    try:
        text = path.read_text(encoding="utf-8")
        told = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidMapping(f"cannot read the mapping file `{path}`: {error}") from None
    try:
        return _format(told, path), text
    except InvalidMapping as error:
        raise InvalidMapping(f"`{path}`: {error}") from None


def _format(told: dict[str, Any], path: Path) -> Format:
    _known("", told, _TABLES)
    layout = _layout(told.get("file", {}))
    mapping = _mapping(told)

    def role_of(names: list[str]) -> str:
        for key, column in _named(mapping):
            if not {column, column.split(".")[0]} & set(names):
                raise InvalidMapping(
                    f"`{path}`: `{key}` names a column that a file has not{_near(column, names)}: "
                    f"`{column}`"
                )
        return "rows"

    def read_as(options: Options) -> Mapping[str, TableMapping]:
        if mapping.time.timezone:
            return {"rows": mapping}
        zoned = TimeFormat(mapping.time.form, options.timezone)
        return {"rows": replace(mapping, time=zoned)}

    return Format(
        name="mapping",
        expects="the columns that the mapping file names",
        role_of=role_of,
        events=frozenset({"rows"}),
        read=table_reader(read_as, layout),
        layout=layout,
    )


def _mapping(told: dict[str, Any]) -> TableMapping:
    event = _table("event", told)
    items = _table("items", told)
    _known("event", event, (*EVENT_FIELDS, "keep_rest"))
    _known("items", items, ITEM_FIELDS)
    keeps_rest = event.pop("keep_rest", True)
    if not isinstance(keeps_rest, bool):
        raise InvalidMapping(f"`event.keep_rest` must be true or false: `{keeps_rest}`")
    for name in _REQUIRED:
        if name not in event:
            raise InvalidMapping(f'`[event]` needs `{name}`, like `{name} = "a column"`')
    if not {"visitor_id", "session_id"} & set(event):
        raise InvalidMapping("`[event]` needs `visitor_id` or `session_id`: whose events are they?")
    fields = {name: _place(f"event.{name}", value) for name, value in event.items()}
    if not fields["occurred_at"].columns:
        raise InvalidMapping("`event.occurred_at` must be a column: a constant is no time")
    names = _event_names(_table("event_names", told))
    constant = fields["event_name"].value
    if constant is not None and names.get(str(constant), constant) not in EVENT_NAMES:
        raise _unknown("event.event_name", str(constant), EVENT_NAMES)
    return TableMapping(
        fields=fields,
        items={name: _place(f"items.{name}", value) for name, value in items.items()},
        event_names=names,
        time=_time(_table("time", told)),
        group_by=_group(_table("group", told)),
        skip=tuple(_skip(n, rule) for n, rule in enumerate(told.get("skip", []), 1)),
        keeps_rest=keeps_rest,
    )


def _named(mapping: TableMapping) -> Iterator[tuple[str, str]]:
    """Each key of the file that names a column, and the column."""
    for table, fields in (("event", mapping.fields), ("items", mapping.items)):
        for name, place in fields.items():
            yield from ((f"{table}.{name}", column) for column in place.columns)
    yield from (("group.by", column) for column in mapping.group_by)
    yield from (("skip", rule.column) for rule in mapping.skip)


def _place(key: str, value: Any) -> From:
    """A column's name, a list of them (the first with a value counts), or `{ value = … }`."""
    if isinstance(value, str) and value:
        return From((value,))
    if isinstance(value, list) and value and all(isinstance(one, str) and one for one in value):
        return From(tuple(value))
    if isinstance(value, dict) and isinstance(value.get("value"), str | int | float):
        _known(key, value, ("value", "column"))
        column = value.get("column")
        return From((column,) if column else (), value["value"])
    raise InvalidMapping(
        f'`{key}` must be a column (`"name"`), several (`["one", "else this"]`) or a constant '
        f'(`{{ value = "USD" }}`): `{value}`'
    )


def _event_names(told: dict[str, Any]) -> dict[str, str]:
    for theirs, ours in told.items():
        if ours not in EVENT_NAMES:
            raise _unknown(f"event_names.{theirs}", str(ours), EVENT_NAMES)
    return told


def _time(told: dict[str, Any]) -> TimeFormat:
    _known("time", told, _TIME_KEYS)
    form, timezone = told.get("format", "auto"), told.get("timezone", "")
    if form not in ("auto", *UNITS) and "%" not in str(form):
        raise InvalidMapping(
            f"`time.format` must be `auto`, one of {_listed(UNITS)} since 1970, or a pattern like "
            f"`%d/%m/%Y %H:%M`: `{form}`"
        )
    try:
        return TimeFormat(form, check_timezone(timezone) if timezone else "")
    except UnknownTimezone as error:
        raise InvalidMapping(f"`time.timezone`: {error}") from None


def _group(told: dict[str, Any]) -> tuple[str, ...]:
    _known("group", told, ("by",))
    by = told.get("by", [])
    by = [by] if isinstance(by, str) else by
    if not isinstance(by, list) or not all(isinstance(one, str) for one in by) or (told and not by):
        raise InvalidMapping(f'`group.by` must be a column or several, like `["invoice"]`: `{by}`')
    return tuple(by)


def _skip(number: int, told: Any) -> Skip:
    key = f"skip[{number}]"
    if not isinstance(told, dict):
        raise InvalidMapping("`skip` must be a list of tables, `[[skip]]`")
    _known(key, told, ("reason", "column", *_CONDITIONS))
    conditions = [name for name in _CONDITIONS if name in told]
    if not (told.get("reason") and told.get("column") and len(conditions) == 1):
        raise InvalidMapping(
            f"`{key}` needs `reason`, `column` and one of {_listed(_CONDITIONS)}: "
            f"`{', '.join(told)}`"
        )
    rule = dict(told)
    if "equals" in rule:
        equals = rule["equals"] if isinstance(rule["equals"], list) else [rule["equals"]]
        rule["equals"] = tuple(str(one) for one in equals)
    try:
        re.compile(rule.get("matches", ""))
        rule |= {"below": float(rule["below"])} if "below" in rule else {}
    except (re.error, TypeError, ValueError) as error:
        raise InvalidMapping(f"`{key}.{conditions[0]}` does not read: `{error}`") from None
    return Skip(**rule)


def _layout(told: Any) -> Layout:
    _known("file", told, _LAYOUT_KEYS)
    delimiter, encoding = told.get("delimiter", ""), told.get("encoding", "utf8")
    try:
        "".encode(encoding)
    except LookupError:
        raise InvalidMapping(f"`file.encoding` is no encoding: `{encoding}`") from None
    if not isinstance(delimiter, str) or len(delimiter) > 1:
        raise InvalidMapping(f"`file.delimiter` must be one character: `{delimiter}`")
    return Layout(delimiter, encoding, tuple(told.get("columns", ())))


def _table(name: str, told: dict[str, Any]) -> dict[str, Any]:
    table = told.get(name, {})
    if not isinstance(table, dict):
        raise InvalidMapping(f"`{name}` must be a table, `[{name}]`: `{table}`")
    return dict(table)


def _known(where: str, told: Any, keys: Iterable[str]) -> None:
    if not isinstance(told, dict):
        raise InvalidMapping(f"`{where}` must be a table, `[{where}]`: `{told}`")
    for key in told:
        if key not in keys:
            raise _unknown(f"{where}.{key}" if where else key, key, keys)


def _unknown(key: str, given: str, known: Iterable[str]) -> InvalidMapping:
    known = list(known)
    return InvalidMapping(
        f"`{key}`: expected one of {_listed(known)}{_near(given, known)}: `{given}`"
    )


def _near(given: str, known: Iterable[str]) -> str:
    near = get_close_matches(given, list(known), 1, cutoff=0.5)
    return f", did you mean `{near[0]}`?" if near else ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
