"""Rows of event and item files (Parquet, CSV, JSON lines), read in batches.

CSV values stay text: an item id with leading zeros is not a number.
"""

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

SUFFIXES = (".parquet", ".csv", ".jsonl", ".ndjson")

_BATCH_ROWS = 2_000
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class UnreadableFile(ValueError):
    """A file is not what its name says."""


def rows(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file as dicts. Raises UnreadableFile."""
    try:
        if file.suffix == ".parquet":
            with pq.ParquetFile(file) as parquet:
                for batch in parquet.iter_batches(_BATCH_ROWS):
                    yield from batch.to_pylist()
        elif file.suffix == ".csv":
            for batch in _csv_batches(file):
                yield from batch.to_pylist()
        else:
            yield from _json_lines(_known_suffix(file))
    except pa.ArrowInvalid as error:
        raise UnreadableFile(f"cannot read `{file}`: {error}") from error


def columns(file: Path) -> list[str]:
    """Names of a file's columns; of JSON lines those of the first row. Raises UnreadableFile."""
    try:
        if file.suffix == ".parquet":
            return list(pq.read_schema(file).names)
        if file.suffix == ".csv":
            return _csv_header(file)
        return list(next(_json_lines(_known_suffix(file)), {}))
    except pa.ArrowInvalid as error:
        raise UnreadableFile(f"cannot read `{file}`: {error}") from error


def count(file: Path) -> int:
    """Rows of a file. Raises UnreadableFile."""
    if file.suffix == ".parquet":
        try:
            return int(pq.read_metadata(file).num_rows)
        except pa.ArrowInvalid as error:
            raise UnreadableFile(f"cannot read `{file}`: {error}") from error
    if file.suffix == ".csv":
        return sum(batch.num_rows for batch in _csv_batches(file))
    with _known_suffix(file).open("rb") as lines:
        return sum(1 for line in lines if line.strip())


def digest(file: Path) -> str:
    """sha256 of a file's content."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _known_suffix(file: Path) -> Path:
    if file.suffix not in SUFFIXES:
        raise UnreadableFile(f"unknown kind of file, expected {', '.join(SUFFIXES)}: `{file}`")
    return file


def _csv_header(file: Path) -> list[str]:
    with file.open(newline="", encoding="utf-8-sig") as text:
        return next(csv.reader(text), [])


def _csv_batches(file: Path) -> Iterator[pa.RecordBatch]:
    names = _csv_header(file)
    if not names:
        raise UnreadableFile(f"an empty file: `{file}`")
    as_text = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
    )
    quoted = pa_csv.ParseOptions(newlines_in_values=True)
    with pa_csv.open_csv(file, convert_options=as_text, parse_options=quoted) as batches:
        yield from batches


def _json_lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield _decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise UnreadableFile(
                    f"line {number} is not a JSON object ({error}): `{file}`"
                ) from error
