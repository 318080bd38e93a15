"""Rows of a raw object and their sequence numbers, some of which may have been erased.

An object's name says which sequence numbers it was made for; those that were erased since are
listed in its Parquet metadata. So a rewritten object keeps its name, and every other row its
number.
"""

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from warehouse.parquet import write_parquet

_METADATA = b"shallop.erased"

Numbers = npt.NDArray[np.int64]


class WrongRowCount(ValueError):
    """An object holds another number of rows than its name and its erased rows leave."""


@dataclass(frozen=True, eq=False)
class RawRows:
    """Rows and the sequence number of each; `erased` are numbers that have no row any more."""

    table: pa.Table
    numbers: Numbers
    erased: Numbers

    @classmethod
    def of(cls, table: pa.Table, first: int, last: int) -> "RawRows":
        """The rows of an object that was made for `first..last`. Raises WrongRowCount."""
        metadata = (table.schema.metadata or {}).get(_METADATA, b"[]")
        erased = np.asarray(msgspec.json.decode(metadata, type=list[int]), dtype=np.int64)
        numbers = np.arange(first, last + 1, dtype=np.int64)
        if len(erased):
            numbers = np.setdiff1d(numbers, erased)
        if len(numbers) != table.num_rows:
            raise WrongRowCount(
                f"should hold {len(numbers)} rows by its name and holds {table.num_rows}"
            )
        return cls(table, numbers, erased)

    def without(self, mask: npt.NDArray[np.bool_]) -> "RawRows":
        """The rows that `mask` does not mark."""
        return RawRows(
            self.table.filter(pa.array(~mask)),
            self.numbers[~mask],
            np.union1d(self.erased, self.numbers[mask]),
        )

    def accounts_for(self, other: "RawRows") -> bool:
        """Whether each row of `other` is one of ours, equal to it, or was erased here.

        A column that only we have must be null.
        """
        is_common = np.isin(other.numbers, self.numbers)
        if not np.isin(other.numbers[~is_common], self.erased).all():
            return False
        theirs = other.table.filter(pa.array(is_common))
        ours = self.table.filter(pa.array(np.isin(self.numbers, other.numbers)))
        extra = [name for name in ours.column_names if name not in theirs.column_names]
        return (
            set(theirs.column_names) <= set(ours.column_names)
            and all(ours[name].null_count == ours.num_rows for name in extra)
            and ours.select(theirs.column_names).equals(theirs)
        )

    def is_same(self, made: "RawRows") -> bool:
        """Whether this stored object has the rows `made`, apart from what was erased in either.

        A column that the stored one lacks was new, and is empty.
        """
        known = [name for name in made.table.column_names if name in self.table.column_names]
        new = set(made.table.column_names) - set(known)
        return all(made.table[name].null_count == made.table.num_rows for name in new) and (
            self.without(np.isin(self.numbers, made.erased)).accounts_for(
                RawRows(made.table.select(known), made.numbers, made.erased)
            )
        )

    def parquet(self) -> bytes:
        """The object of these rows."""
        kept = {
            key: value
            for key, value in (self.table.schema.metadata or {}).items()
            if key != _METADATA
        }
        if len(self.erased):
            kept[_METADATA] = msgspec.json.encode(self.erased.tolist())
        return write_parquet(self.table.replace_schema_metadata(kept))


def concatenated(parts: list[RawRows]) -> RawRows:
    """The rows of adjoining objects, in order."""
    return RawRows(
        pa.concat_tables([part.table for part in parts], promote_options="default"),
        np.concatenate([part.numbers for part in parts]),
        np.concatenate([part.erased for part in parts]),
    )
