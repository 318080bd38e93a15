"""One log format for every process: time, level and logger as key=value, then the message's own."""

import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

# The HTTP request that is being answered, in lines written while it is.
request_id: ContextVar[str] = ContextVar("request_id", default="")

# Whose lines below a warning are of interest: ours, and uvicorn's start and stop.
_OURS = ("api", "assets", "cli", "ingest", "models", "warehouse", "uvicorn.error")


class KeyValueFormatter(logging.Formatter):
    """`time=… level=… logger=… <message>`, one line but for a traceback."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        request = f"request_id={request_id.get()} " if request_id.get() else ""
        # Values come from clients: a line break in one must not start a line of its own.
        message = record.message.replace("\r", "\\r").replace("\n", "\\n")
        return (
            f"time={moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z "
            f"level={record.levelname.lower()} logger={record.name} {request}{message}"
        )


def configure(level: str) -> None:
    """Write our log lines of at least `level`, and others' warnings, to standard error."""
    root = logging.getLogger()
    if not any(isinstance(handler.formatter, KeyValueFormatter) for handler in root.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(KeyValueFormatter())
        root.addHandler(handler)
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level]))
    for name in _OURS:
        logging.getLogger(name).setLevel(level)
    # Our own lines tell of requests that are tried again.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
