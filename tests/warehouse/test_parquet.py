"""Parquet files in memory."""

import subprocess
import sys
import textwrap

import pyarrow as pa

from warehouse.parquet import read_parquet, write_parquet

TABLE = pa.table({"n": range(5), "name": list("abcde")})


def test_a_table_comes_back_whole_or_in_part() -> None:
    data = write_parquet(TABLE)
    assert read_parquet(data) == TABLE
    assert read_parquet(data, columns=["name"]) == TABLE.select(["name"])
    assert write_parquet(read_parquet(data)) == data


def test_a_process_that_ends_after_it_read_is_not_aborted() -> None:
    # `pq.read_table` of the same bytes is: in about every second process.
    program = textwrap.dedent("""
        import pyarrow as pa
        from warehouse.parquet import read_parquet, write_parquet
        data = write_parquet(pa.table({f"c{i}": range(70) for i in range(30)}))
        for _ in range(3):
            read_parquet(data)
    """)
    codes = {
        subprocess.run([sys.executable, "-c", program], check=False).returncode for _ in range(12)
    }
    assert codes == {0}
