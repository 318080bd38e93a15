"""The formats of history that can be read, and which of them some files are."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import polars as pl

from ingest.history.files import HEADED, Layout, Tally, columns, frames
from ingest.history.mapping import TableMapping, events_of

AUTO = "auto"


class UnknownColumns(ValueError):
    """Files have not the columns of a format."""


@dataclass(frozen=True)
class Options:
    """How to read: the zone of times without one, and most items of one event."""

    timezone: str = "UTC"
    max_items: int = 200


@dataclass(frozen=True)
class Source:
    """Files by the role that each has in its format, in order."""

    files: Mapping[str, list[Path]]
    options: Options = field(default_factory=Options)

    def of(self, role: str) -> list[Path]:
        return self.files.get(role, [])


Read = Callable[[Source, Tally], Iterator[pl.DataFrame]]
Catalogue = Callable[[Source], pl.DataFrame | None]


@dataclass(frozen=True)
class Format:
    """One family of exports.

    `role_of` says from a file's columns which of the format's files it is, None for none;
    `events` are the roles without which there is nothing to read; `expects` says it in words.
    """

    name: str
    expects: str
    role_of: Callable[[list[str]], str | None]
    events: frozenset[str]
    read: Read
    catalogue: Catalogue = lambda source: None
    layout: Layout = HEADED


def by_name(name: str, formats: Mapping[str, Format]) -> Format:
    """The format of that name. Raises UnknownColumns."""
    if name in formats:
        return formats[name]
    near = get_close_matches(name, formats, 1)
    hint = f", did you mean `{near[0]}`?" if near else ""
    listed = ", ".join(f"`{known}`" for known in formats)
    raise UnknownColumns(f"unknown format, expected one of {listed}{hint} `{name}`")


def assigned(form: Format, files: list[Path], options: Options) -> Source:
    """The files by their roles in a format. Raises UnknownColumns, UnreadableFile."""
    roles: dict[str, list[Path]] = {}
    for file in files:
        names = columns(file, form.layout)
        role = form.role_of(names)
        if role is None:
            raise UnknownColumns(
                f"`{form.name}` needs {form.expects}; `{file}` has: {listed(names)}"
            )
        roles.setdefault(role, []).append(file)
    if not form.events & set(roles):
        raise UnknownColumns(
            f"`{form.name}` needs {form.expects}; none of the files has events: "
            f"{', '.join(f'`{file}`' for file in files)}"
        )
    return Source(roles, options)


def detected(files: list[Path], formats: Mapping[str, Format]) -> Format:
    """The format that takes all of the files. Raises UnknownColumns, UnreadableFile."""
    named = {file: columns(file) for file in files}
    for form in formats.values():
        roles = {form.role_of(names) for names in named.values()}
        if None not in roles and any(role in form.events for role in roles):
            return form
    seen = "; ".join(f"`{file}` has: {listed(names)}" for file, names in named.items())
    known = "".join(f"\n  {form.name}: {form.expects}" for form in formats.values())
    raise UnknownColumns(
        f"the columns are of no known format: {seen}\nknown are{known}\n"
        "or describe the columns in a mapping file: `--format mapping --mapping FILE`"
    )


def table_reader(
    mappings: Callable[[Options], Mapping[str, TableMapping]], layout: Layout = HEADED
) -> Read:
    """A reader of flat files, each role by its mapping."""

    def read(source: Source, tally: Tally) -> Iterator[pl.DataFrame]:
        for role, mapping in mappings(source.options).items():
            for file in source.of(role):
                rows = frames(file, tally, mapping.columns(), layout)
                yield from events_of(rows, mapping, tally, source.options.max_items)

    return read


def listed(names: list[str]) -> str:
    """Names of columns for a message."""
    shown = ", ".join(f"`{name}`" for name in names[:40])
    return shown + (", …" if len(names) > 40 else "") if names else "nothing"
