"""C++ of ours, compiled on the machine that runs it, once per version, and loaded by ctypes.

A library is kept in the user's cache folder under a name that follows from its source, its flags
and the processor. Whoever asks for one does without it where there is no compiler.
"""

import ctypes
import logging
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

_log = logging.getLogger(__name__)
_COMPILERS = ("c++", "g++", "clang++")


def compiler() -> str | None:
    """The C++ compiler of this machine, None where there is none."""
    return next((found for name in _COMPILERS if (found := shutil.which(name))), None)


def compiled_library(
    sources: Sequence[Path], flags: Sequence[str], otherwise: str
) -> ctypes.CDLL | None:
    """The first of `sources` compiled, the others are its headers; None where that cannot be.

    The log then says what happens `otherwise`.
    """
    found = compiler()
    if found is None:
        _log.info("no C++ compiler, %s", otherwise)
        return None
    try:
        folder = Path.home() / ".cache" / "shallop"
        return ctypes.CDLL(str(_compiled(found, sources, flags, folder)))
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        output = getattr(error, "stderr", "")
        _log.warning("%s, compiling failed: %s %s", otherwise, error, output)
        return None


def _compiled(compiler: str, sources: Sequence[Path], flags: Sequence[str], folder: Path) -> Path:
    """The library in `folder`, compiled unless this source was for this processor."""
    key = "\n".join(
        [
            *(source.read_text() for source in sources),
            *flags,
            compiler,
            platform.machine(),
            _processor(),
        ]
    )
    made_from = sources[0]
    library = folder / f"{made_from.stem}-{sha256(key.encode()).hexdigest()[:16]}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / library.name
            subprocess.run(
                [compiler, *flags, str(made_from), "-o", str(made)],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            os.replace(made, library)
    return library


def _processor() -> str:
    """What tells processors with other instructions apart: a cache may be on a shared disk."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("flags", "Features"))}))
