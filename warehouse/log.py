"""One log format for every process: time, level and logger as key=value, then the message's own."""

import logging


def configure(level: str) -> None:
    """Write log lines of at least `level` to standard error."""
    logging.basicConfig(
        level=level,
        format="%(asctime)s level=%(levelname)s logger=%(name)s %(message)s",
        force=True,
    )
    # Our own lines tell of requests and of what came of them, retries included.
    for name in ("httpx", "httpcore", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
