"""Work that follows from its place alone, done by threads before its turn comes."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Result = TypeVar("Result")
_N_THREADS = 4


class Ahead(Generic[Result]):
    """Results of `work` by number, 0 to n - 1; the next few are always under way."""

    def __init__(self, work: Callable[[int], Result], n: int) -> None:
        self._work, self._n = work, n
        self._pool = ThreadPoolExecutor(_N_THREADS, thread_name_prefix="ahead")
        self._under_way: dict[int, Future[Result]] = {}

    def __getitem__(self, number: int) -> Result:
        for soon in range(number, min(number + 2 * _N_THREADS, self._n)):
            if soon not in self._under_way:
                self._under_way[soon] = self._pool.submit(self._work, soon)
        return self._under_way.pop(number).result()

    def close(self) -> None:
        """Give the threads back; what has not begun is not done."""
        self._pool.shutdown(wait=True, cancel_futures=True)
