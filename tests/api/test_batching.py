import asyncio
from collections.abc import Sequence

import pytest

from api.batching import _MAX_BATCH, Batcher


def answered(asked: Sequence[int]) -> list[int | Exception]:
    return [ValueError(one) if one < 0 else 2 * one for one in asked]


def test_what_waits_is_answered_together_and_in_order() -> None:
    sizes = []

    def answer(asked: Sequence[int]) -> list[int | Exception]:
        sizes.append(len(asked))
        return answered(asked)

    async def run() -> list[int]:
        batcher: Batcher[int, int] = Batcher(answer)
        first = await asyncio.gather(*(batcher.ask(one) for one in range(_MAX_BATCH + 5)))
        return [*first, await batcher.ask(100)]

    assert asyncio.run(run()) == [2 * one for one in [*range(_MAX_BATCH + 5), 100]]
    assert sizes == [_MAX_BATCH, 5, 1]


def test_an_error_is_told_to_the_one_it_is_for() -> None:
    async def run() -> list[int | BaseException]:
        batcher: Batcher[int, int] = Batcher(answered)
        return await asyncio.gather(
            batcher.ask(1), batcher.ask(-1), batcher.ask(2), return_exceptions=True
        )

    one, error, two = asyncio.run(run())
    assert (one, two) == (2, 4)
    assert isinstance(error, ValueError)


def test_a_defect_is_told_to_all_and_the_next_are_answered() -> None:
    broken = True

    def answer(asked: Sequence[int]) -> list[int | Exception]:
        if broken:
            raise IndexError("defect")
        return answered(asked)

    async def run() -> int:
        nonlocal broken
        batcher: Batcher[int, int] = Batcher(answer)
        with pytest.raises(IndexError, match="defect"):
            await batcher.ask(1)
        broken = False
        return await batcher.ask(3)

    assert asyncio.run(run()) == 6


def test_a_request_that_gave_up_disturbs_nobody() -> None:
    async def run() -> int:
        batcher: Batcher[int, int] = Batcher(answered)
        gone = asyncio.ensure_future(batcher.ask(1))
        stays = asyncio.ensure_future(batcher.ask(2))
        await asyncio.sleep(0)
        gone.cancel()
        return await stays

    assert asyncio.run(run()) == 4
