"""Parquet files in memory, as the object store gives and takes them."""

from collections.abc import Sequence
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq


def read_parquet(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The table that a file holds, whole or some of its columns.

    Not by `pq.read_table`: threads of its scanner let go of Python's bytes when they please, and a
    process that ends meanwhile is aborted (in half of the runs of a script that reads a small file
    and is done).
    """
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        return file.read(None if columns is None else list(columns), use_threads=False)


def write_parquet(table: pa.Table) -> bytes:
    """A file of the table: the same table gives the same bytes."""
    target = BytesIO()
    pq.write_table(table, target, compression="zstd")
    return target.getvalue()
