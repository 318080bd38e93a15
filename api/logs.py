"""Log lines as key=value, each with the id of the request that it belongs to."""

import logging
from contextvars import ContextVar
from datetime import UTC, datetime

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


def configure(level: str) -> None:
    """Give the process's log lines our form; a worker process starts without any handler."""
    root = logging.getLogger()
    if not root.handlers:
        log.configure(level)
    for handler in root.handlers:
        if type(handler) is logging.StreamHandler:  # and none that a test or a tool has put there
            handler.setFormatter(KeyValueFormatter())
