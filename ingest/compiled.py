"""The compiled passes over events (`compiled.cpp`): a body into columns, columns into sessions.

They need neither Python's objects nor its lock. What they say is what `ingest.columns` and
`ingest.session_columns` say in Python (tested equal), which do the work without a compiler.
"""

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from warehouse.compiled import compiled_library

SOURCE = Path(__file__).with_name("compiled.cpp")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-shared")

_SOURCES = (SOURCE, *sorted(SOURCE.parent.glob("*.h")))


class Text(ctypes.Structure):
    """Bytes that C++ reads."""

    _fields_ = (("data", ctypes.c_char_p), ("length", ctypes.c_int64))

    @classmethod
    def of(cls, text: str | None) -> "Text":
        """Those of a text in UTF-8, none where there is none."""
        data = text.encode() if text else b""
        return cls(data, len(data))


class ArrowArray(ctypes.Structure):
    """As in Arrow's C data interface; what it points to is between C++ and Arrow."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("length", "nulls", "offset", "buffers", "children")),
        *((name, ctypes.c_void_p) for name in ("p1", "p2", "p3", "release", "private")),
    )

    def taken(self, schema: pa.Schema) -> pa.RecordBatch:
        """What C++ made, which is Arrow's to release from now on."""
        return pa.RecordBatch._import_from_c(ctypes.addressof(self), schema)

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> "ArrowArray":
        """A batch for C++ to read; `release` it."""
        array = cls()
        batch._export_to_c(ctypes.addressof(array))
        return array

    def let_go(self) -> None:
        """Release what `of` made."""
        _RELEASE(self.release)(ctypes.addressof(self))


_RELEASE: Any = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@lru_cache(maxsize=1)
def compiled() -> ctypes.CDLL | None:
    """The passes, None where there is no compiler; the log says so."""
    library = compiled_library(_SOURCES, FLAGS, "batches of events are read by Python")
    if library is not None:
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        library.read_events.argtypes = [pointer, pointer, ctypes.c_char_p, number, pointer]
        library.session_rows.argtypes = [pointer, number, pointer, pointer]
    return library
