"""One log format for every process: time, level and logger as key=value, then the message's own."""

import logging


# Whose lines below a warning are of interest: ours, and uvicorn's start and stop.
_OURS = ("api", "assets", "cli", "ingest", "models", "warehouse", "uvicorn.error")


def configure(level: str) -> None:
    """Write our log lines of at least `level`, and others' warnings, to standard error."""
    logging.basicConfig(
        level=max(logging.WARNING, logging.getLevelName(level)),
        format="%(asctime)s level=%(levelname)s logger=%(name)s %(message)s",
        force=True,
    )
    for name in _OURS:
        logging.getLogger(name).setLevel(level)
    # Our own lines tell of requests that are tried again.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
