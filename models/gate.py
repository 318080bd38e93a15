"""Whether a candidate may serve; each check and its threshold are explained in docs/gate.md.

A candidate that fails one of them, or breaks down while it is looked at, is kept but not promoted.
"""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from models.bundle import Check, read_bundle
from models.evidence import Evidence
from models.gate_behaviour import behaviour_checks
from models.gate_correctness import content_checks, data_checks, serving_checks
from models.gate_figures import figure_checks
from models.manifest import BundleCorrupt
from models.scorer import SessionScorer

__all__ = ["Check", "Evidence", "judge"]

_log = logging.getLogger(__name__)


def judge(metrics: dict[str, Any], folder: Path, evidence: Evidence) -> list[Check]:
    """Every check of the candidate bundle in `folder`; it may serve if all passed.

    `metrics` is the content of its metrics.json. A bundle that cannot be loaded fails, it does not
    raise.
    """
    checks = [*figure_checks(metrics), *data_checks(metrics, evidence)]
    started = time.perf_counter()
    try:
        content = read_bundle(folder)
    except BundleCorrupt as error:
        return [*checks, Check("bundle_loads", False, str(error))]
    scorer = SessionScorer(content)
    checks += [_loaded(folder, time.perf_counter() - started), *content_checks(content, evidence)]
    try:
        scorer.verify_golden(content.golden, folder)
    except BundleCorrupt as error:
        return [*checks, Check("golden_sessions", False, str(error))]
    checks += _unless_it_breaks(
        "serving", lambda: serving_checks(content, scorer, metrics, evidence)
    )
    checks += _unless_it_breaks("behaviour", lambda: behaviour_checks(scorer, evidence))
    return checks


def _loaded(folder: Path, seconds: float) -> Check:
    n_bytes = sum(file.stat().st_size for file in folder.iterdir())
    return Check(
        "bundle_loads", True,
        f"every file has the sha256 of the manifest; {n_bytes:,} bytes load in {seconds:.2f} s",
        {"n_bytes": n_bytes, "load_seconds": round(seconds, 4)},
    )  # fmt: skip


def _unless_it_breaks(name: str, look: Callable[[], Iterator[Check]]) -> list[Check]:
    """The checks; one that fails more where a candidate breaks the code that looks at it."""
    checks: list[Check] = []
    try:
        for check in look():
            checks.append(check)
    except Exception as error:
        _log.exception("candidate_broke_down checks=%s", name)
        message = f"the candidate broke down while it was looked at: {error!r}"
        checks.append(Check(f"{name}_checks_run", False, message))
    return checks
