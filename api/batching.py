"""Requests that wait at the same moment are answered together.

Nobody waits for others to come: what has been parsed when the event loop gets round to answering
is one batch, a single request as a rule and more under load. Weights of a large catalogue are then
read once for all, and the neighbours of all sessions found in one go.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

_MAX_BATCH = 32  # bounds how long the first of a batch waits for the last


class Batcher(Generic[Asked, Answer]):
    """Calls `answer` with all that waits; it gives an answer or an error for each, in order."""

    def __init__(self, answer: Callable[[Sequence[Asked]], Sequence[Answer | Exception]]) -> None:
        self._answer = answer
        self._waiting: list[tuple[Asked, asyncio.Future[Answer]]] = []

    async def ask(self, asked: Asked) -> Answer:
        """The answer to `asked`. Raises the error that was given for it."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._run)
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((asked, future))
        return await future

    def _run(self) -> None:
        batch, self._waiting = self._waiting[:_MAX_BATCH], self._waiting[_MAX_BATCH:]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._run)
        try:
            answers = self._answer([asked for asked, _ in batch])
        except Exception as error:  # a defect is told to each request, and stops no later one
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():  # its client has gone
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
