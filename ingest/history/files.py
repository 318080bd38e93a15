"""Files of history: found, told apart, and read in batches of bounded size.

Delimited text (`.csv`, `.tsv`, `.dat`), JSON lines and Parquet, the first two also compressed
(`.gz`, `.zst`). Text stays text: an item id with leading zeros is not a number. A line that does
not read is counted and left out; a file that does not is an error.
"""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from glob import glob
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

BATCH_ROWS = 20_000
REST = "__rest"  # of rows that were JSON: what is beside the columns asked for, as JSON text

_KINDS: dict[str, Literal["text", "json", "parquet"]] = {
    ".csv": "text",
    ".tsv": "text",
    ".dat": "text",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".parquet": "parquet",
}
_COMPRESSIONS = (".gz", ".zst")
_N_FIRST = 500

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


class UnreadableFile(ValueError):
    """A file is not what its name says."""


class NoFiles(ValueError):
    """Nothing was found where history should be."""


@dataclass(frozen=True)
class Layout:
    """How delimited text is laid out; without `names` its first line has them."""

    delimiter: str = ""
    encoding: str = "utf8"
    names: tuple[str, ...] = ()


HEADED = Layout()


@dataclass
class Tally:
    """Rows read so far, and of them those left out, by reason."""

    n_rows: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def skip(self, reason: str, n_rows: int = 1) -> None:
        """Leave out rows for a reason; they have been counted as read."""
        if n_rows:
            self.skipped[reason] += n_rows


def expand(names: Iterable[Path]) -> list[Path]:
    """The files that names, folders and patterns stand for, each once. Raises NoFiles."""
    found: dict[Path, None] = {}
    for name in names:
        if name.is_dir():
            inside = [path for path in sorted(name.rglob("*")) if path.is_file() and _kind(path)]
        elif name.is_file():
            inside = [name]
        else:
            inside = [Path(path) for path in sorted(glob(str(name), recursive=True))]
            inside = [path for path in inside if path.is_file()]
        if not inside:
            what = "no such file" if not name.is_dir() else f"no {', '.join(_KINDS)} in the folder"
            raise NoFiles(f"{what}: `{name}`")
        found.update(dict.fromkeys(inside))
    return list(found)


def columns(path: Path, layout: Layout = HEADED) -> list[str]:
    """Names of a file's columns; of JSON lines the keys of the first. Raises UnreadableFile.

    A key that no row has among the first `_N_FIRST` is not known here, and is read all the same.
    """
    with _explained(path):
        kind = known_kind(path)
        if kind == "parquet":
            return list(pq.read_schema(path).names)
        if kind == "text":
            return list(layout.names) or _header(path, layout)
        first = islice(_json_rows(path, Tally(), strict=True), 1)
        rest = islice(_json_rows(path, Tally()), 1, _N_FIRST)
        return list(dict.fromkeys(chain.from_iterable((*first, *rest))))


def frames(
    path: Path, tally: Tally, wanted: Sequence[str], layout: Layout = HEADED
) -> Iterator[pl.DataFrame]:
    """The rows of a file as frames, columns as the file has them.

    Rows that were JSON have the `wanted` columns as text, which a dotted name takes out of an
    object, and all else in the column REST. Raises UnreadableFile.
    """
    with _explained(path):
        if known_kind(path) == "json":
            for rows in _batched(_json_rows(path, tally)):
                yield _frame_of(rows, wanted)
        elif known_kind(path) == "parquet":
            with pq.ParquetFile(path) as parquet:
                for batch in parquet.iter_batches(BATCH_ROWS):
                    yield _polars(batch, tally)
        else:
            for batch in _text_batches(path, tally, layout):
                yield _polars(batch, tally)


def records(path: Path, tally: Tally) -> Iterator[list[dict[str, Any]]]:
    """The rows of a file as objects, many at a time. Raises UnreadableFile."""
    with _explained(path):
        kind = known_kind(path)
        if kind == "json":
            yield from _batched(_json_rows(path, tally))
        elif kind == "parquet":
            with pq.ParquetFile(path) as parquet:
                for batch in parquet.iter_batches(BATCH_ROWS // 10):
                    tally.n_rows += batch.num_rows
                    yield batch.to_pylist()
        else:
            for batch in _text_batches(path, tally, HEADED):
                tally.n_rows += batch.num_rows
                yield batch.to_pylist()


def digest(path: Path) -> str:
    """sha256 of a file's content."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def known_kind(path: Path) -> Literal["text", "json", "parquet"]:
    """What a file is by its name. Raises UnreadableFile."""
    kind = _kind(path)
    if kind is None:
        raise UnreadableFile(
            f"unknown kind of file, expected {', '.join(_KINDS)}, text also with "
            f"{' or '.join(_COMPRESSIONS)}: `{path}`"
        )
    return kind


def _kind(path: Path) -> Literal["text", "json", "parquet"] | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes.pop()
        return None if suffixes[-1:] == [".parquet"] else _KINDS.get("".join(suffixes[-1:]))
    return _KINDS.get("".join(suffixes[-1:]))


def _open(path: Path) -> pa.NativeFile:
    return pa.input_stream(str(path), compression="detect", buffer_size=1 << 20)


def _header(path: Path, layout: Layout) -> list[str]:
    encoding = "utf-8-sig" if layout.encoding == "utf8" else layout.encoding
    with _open(path) as stream, io.TextIOWrapper(stream, encoding=encoding, newline="") as text:
        line = text.readline()
    delimiter = layout.delimiter or _delimiter(line)
    return next(csv.reader([line], delimiter=delimiter), [])


def _delimiter(line: str) -> str:
    """Of comma, semicolon and tab the one that a header has most of."""
    return max(",;\t", key=line.count)


def _text_batches(path: Path, tally: Tally, layout: Layout) -> Iterator[pa.RecordBatch]:
    names = columns(path, layout)
    if not names:
        raise UnreadableFile(f"an empty file: `{path}`")
    with _open(path) as stream:
        head = stream.read(1 << 16).split(b"\n")[0].decode("latin-1")

    def skip(row: pa_csv.InvalidRow) -> Literal["skip"]:
        tally.n_rows += 1
        tally.skip("a line with another number of fields")
        return "skip"

    with (
        _open(path) as stream,
        pa_csv.open_csv(
            stream,
            read_options=pa_csv.ReadOptions(
                encoding=layout.encoding,
                column_names=layout.names or None,
                use_threads=False,  # which also keeps the order of what `skip` hears
                block_size=4 << 20,
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=layout.delimiter or _delimiter(head),
                newlines_in_values=True,
                invalid_row_handler=skip,
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=True,
                null_values=[""],
            ),
        ) as batches,
    ):
        yield from batches


def _polars(batch: pa.RecordBatch, tally: Tally) -> pl.DataFrame:
    tally.n_rows += batch.num_rows
    frame = pl.from_arrow(batch)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _json_rows(path: Path, tally: Tally, strict: bool = False) -> Iterator[dict[str, Any]]:
    """The objects of JSON lines; of those that are none, with `strict`, raises UnreadableFile."""
    with _open(path) as stream, io.BufferedReader(stream, 1 << 20) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            tally.n_rows += 1
            try:
                yield _decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                if strict:
                    raise UnreadableFile(
                        f"line {number} is not a JSON object ({error}): `{path}`"
                    ) from error
                tally.skip("a line that is not a JSON object")


def _batched(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(islice(rows, BATCH_ROWS // 10)):
        yield batch


def _frame_of(rows: list[dict[str, Any]], wanted: Sequence[str]) -> pl.DataFrame:
    parents = {name.split(".")[0] for name in wanted}
    values: dict[str, list[str | None]] = {
        name: [_as_text(_at(row, name)) for row in rows] for name in wanted
    }
    rests = ({key: value for key, value in row.items() if key not in parents} for row in rows)
    values[REST] = [_present_json(rest) for rest in rests]
    return pl.DataFrame(values, schema=dict.fromkeys(values, pl.String))


def _at(row: dict[str, Any], name: str) -> Any:
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return _encode(value).decode()


def _present_json(fields: dict[str, Any]) -> str | None:
    present = {key: value for key, value in fields.items() if value is not None}
    return _encode(present).decode() if present else None


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What the libraries and the system say of a file, as UnreadableFile."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeError, EOFError) as error:
        raise UnreadableFile(f"cannot read `{path}`: {error}") from error
