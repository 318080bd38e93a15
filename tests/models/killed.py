"""Trainings in processes of their own, which tests kill."""

import os
import subprocess
import sys
from pathlib import Path


def started(script: Path, checkpoint: Path, out: Path, log: Path) -> subprocess.Popen[bytes]:
    """`script` training with `checkpoint`; it writes the model to `out`, what it says to `log`."""
    path = f"{script.parent}:{script.parents[2]}"
    with log.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, str(script), str(checkpoint), str(out)],
            stderr=stream, env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
