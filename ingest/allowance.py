"""An allowance of bytes that fills up again with time."""

import threading
from time import monotonic


class Allowance:
    """So many bytes an hour, and at most those of one hour at once. Safe from any thread."""

    def __init__(self, bytes_per_hour: int) -> None:
        self._most = float(bytes_per_hour)
        self._left = self._most
        self._at = monotonic()
        self._lock = threading.Lock()

    def take(self, n_bytes: int) -> bool:
        """Whether `n_bytes` were left, which are then taken."""
        with self._lock:
            now = monotonic()
            self._left = min(self._most, self._left + (now - self._at) * self._most / 3600)
            self._at = now
            if n_bytes > self._left:
                return False
            self._left -= n_bytes
            return True
