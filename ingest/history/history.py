"""History: files of one format as events with stable ids, in batches, always in the same order."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from ingest.history import catalogue
from ingest.history.files import Tally, digest, expand
from ingest.history.formats import AUTO, Format, Options, Source, assigned, by_name, detected
from ingest.history.ga4 import GA4
from ingest.history.ga360 import GA360
from ingest.history.identity import Hashes, Ids, Repeats, hashes_of, names_of
from ingest.history.mapping_file import InvalidMapping, load
from ingest.history.otto import OTTO
from ingest.history.rees46 import REES46
from ingest.history.retailrocket import RETAILROCKET
from ingest.history.shallop import SHALLOP
from ingest.history.yoochoose import YOOCHOOSE
from warehouse.settings import IngestSettings

# In the order in which files are tried on them.
FORMATS = {form.name: form for form in (GA4, GA360, REES46, RETAILROCKET, OTTO, YOOCHOOSE, SHALLOP)}
MAPPING = "mapping"
# Part of what names raw objects: to be raised when rows of a format become other events.
READERS_VERSION = 1


class RowsLost(RuntimeError):
    """A reader has not accounted for every row that it was given: a mistake of ours."""


@dataclass(frozen=True)
class Survey:
    """What a first pass found: rows read, those left out by reason, events, and what repeats."""

    tally: Tally
    n_events: int
    repeated: Hashes = field(repr=False)


class History:
    """Files of one format; opened with `open_history`, nothing is read yet but headers."""

    def __init__(
        self, form: Format, source: Source, told: str, items: list[Path] | None = None
    ) -> None:
        self.format = form
        self.source = source
        self._told = told
        self._item_files = items if items is not None else self._items_beside()
        self._catalogue: pl.DataFrame | None = None

    @property
    def files(self) -> list[Path]:
        """All files, those about items included."""
        found = [file for files in self.source.files.values() for file in files]
        return list(dict.fromkeys([*found, *self._item_files]))

    def digest(self) -> str:
        """What this history is, by what is in its files and how they are read."""
        parts = [self.format.name, self._told, repr(self.source.options), str(READERS_VERSION)]
        for role, files in sorted(self.source.files.items()):
            parts += [role, *(digest(file) for file in files)]
        parts += [digest(file) for file in self._item_files]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def survey(self) -> Survey:
        """Read all rows once: how many there are, and which of them say the same.

        Raises UnreadableFile, RowsLost.
        """
        tally, repeats = Tally(), Repeats()
        n_events = n_rows = 0
        for frame in self.format.read(self.source, tally):
            n_events += frame.height
            n_rows += int(frame["n_rows"].sum())
            repeats.add(hashes_of(names_of(frame)))
        if n_rows + tally.skipped.total() != tally.n_rows:
            raise RowsLost(
                f"{tally.n_rows} rows were read, {n_rows} are in events and "
                f"{tally.skipped.total()} were left out: `{self.format.name}`"
            )
        return Survey(tally, n_events, repeats.found())

    def events(self, survey: Survey) -> Iterator[pl.DataFrame]:
        """All events in order, with ids, completed from what is known of items."""
        ids = Ids(self.format.name, survey.repeated)
        items = self._load_catalogue()
        for frame in self.format.read(self.source, Tally()):
            with_ids = ids.given(frame)
            yield with_ids if items is None else catalogue.filled(with_ids, items)

    def _load_catalogue(self) -> pl.DataFrame | None:
        if self._catalogue is None:
            if self._item_files:
                self._catalogue = catalogue.load(self._item_files)
            else:
                self._catalogue = self.format.catalogue(self.source)
        return self._catalogue

    def _items_beside(self) -> list[Path]:
        if "items" in self.source.files:
            return self.source.of("items")
        return catalogue.beside(self.source.of("table")) if self.format is SHALLOP else []


def open_history(
    names: list[Path],
    format_name: str = AUTO,
    *,
    limits: IngestSettings,
    timezone: str = "UTC",
    mapping: Path | None = None,
    items: Path | None = None,
) -> History:
    """The history in files, folders or patterns, which must all be of one format.

    Raises NoFiles, UnknownColumns, UnreadableFile, InvalidMapping.
    """
    files = expand(names)
    told = ""
    options = Options(timezone, limits.max_event_items)
    if format_name == MAPPING or mapping:
        if mapping is None or format_name not in (AUTO, MAPPING):
            raise InvalidMapping(
                "a mapping file and `--format mapping` belong together, given were "
                f"`--format {format_name}` and `--mapping {mapping}`"
            )
        form, told = load(mapping)
    elif format_name == AUTO:
        form = detected(files, FORMATS)
    else:
        form = by_name(format_name, FORMATS)
    source = assigned(form, files, options)
    return History(form, source, told, [items] if items else None)
