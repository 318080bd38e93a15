"""Log lines that repeat while something is down."""

from time import monotonic


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
