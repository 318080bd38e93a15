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
    root.setLevel(level)
    if any(isinstance(handler.formatter, KeyValueFormatter) for handler in root.handlers):
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    handler.addFilter(_is_of_interest)
    root.addHandler(handler)
    # Our own lines tell of requests that are tried again.
    logging.getLogger("urllib3").setLevel(logging.ERROR)


def _is_of_interest(record: logging.LogRecord) -> bool:
    """A filter of the handler: libraries that set a level of their own pass by the root's."""
    return record.levelno >= logging.WARNING or record.name.startswith(_OURS)
