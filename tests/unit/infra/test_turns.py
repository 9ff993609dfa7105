"""Turns at the front: nobody waits behind another's burst, and no turn is lost."""

import asyncio
import contextlib

from infra.local.fairness import Turns


def test_a_burst_lets_others_in_between() -> None:
    order: list[str] = []

    async def run() -> None:
        turns = Turns(1)

        async def work(caller: str) -> None:
            async with turns.of(caller):
                order.append(caller)
                await asyncio.sleep(0)

        await asyncio.gather(*(work("loud") for _ in range(20)), work("quiet"))

    asyncio.run(run())
    assert order.index("quiet") <= 2
    assert len(order) == 21


def test_who_gives_up_takes_no_turn_along() -> None:
    async def run() -> int:
        turns, done = Turns(1), 0
        async with turns.of("first"):
            waiting = [asyncio.ensure_future(_turn(turns, "a")) for _ in range(3)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            await asyncio.sleep(0)
        waiting[1].cancel()  # its turn has come already
        with contextlib.suppress(asyncio.CancelledError):
            await waiting[0]
        with contextlib.suppress(asyncio.CancelledError):
            await waiting[1]
        await waiting[2]
        for _ in range(5):
            await asyncio.wait_for(_turn(turns, "b"), 1)
            done += 1
        return done

    assert asyncio.run(run()) == 5


async def _turn(turns: Turns, caller: str) -> None:
    async with turns.of(caller):
        await asyncio.sleep(0)
