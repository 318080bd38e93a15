"""Log lines as key=value, each with the id of the request that it belongs to."""

import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from time import monotonic

from warehouse import log

request_id: ContextVar[str] = ContextVar("request_id", default="-")


class KeyValueFormatter(logging.Formatter):
    """`time=… level=… logger=… request_id=… <message>`, one line but for a traceback."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        # Values come from clients: a line break in one must not start a line of its own.
        message = record.message.replace("\r", "\\r").replace("\n", "\\n")
        return (
            f"time={moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z "
            f"level={record.levelname.lower()} logger={record.name} "
            f"request_id={request_id.get()} {message}"
        )


class Seldom:
    """Says when a repeated line is due, so that an outage does not flood the log."""

    def __init__(self, every_seconds: float = 10.0) -> None:
        self._every_seconds = every_seconds
        self._last: dict[str, float] = {}

    def is_due(self, line: str) -> bool:
        """Whether `line`, one of a few, was not written within the last `every_seconds`."""
        now = monotonic()
        if now - self._last.get(line, -self._every_seconds) < self._every_seconds:
            return False
        self._last[line] = now
        return True


def configure(level: str) -> None:
    """Give the process's log lines our form; a worker process starts without any handler."""
    root = logging.getLogger()
    if not root.handlers:
        log.configure(level)
    for handler in root.handlers:
        if type(handler) is logging.StreamHandler:  # and none that a test or a tool has put there
            handler.setFormatter(KeyValueFormatter())
