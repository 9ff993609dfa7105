"""Turns at the front: nobody waits behind another's burst, and no turn is lost."""

import asyncio
import contextlib
import threading
import time

from infra.local.fairness import Places, Turns


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


def test_nobody_fills_all_places() -> None:
    places = Places(4, most=3)
    assert [places.take("loud", 0.01) for _ in range(4)] == [True, True, True, False]
    assert places.take("quiet", 0.01)
    places.give_back("loud")
    assert places.take("loud", 0.01)


def test_a_place_that_is_free_goes_to_who_has_the_fewest() -> None:
    places, order = Places(2, most=2), []
    assert places.take("loud", 1)
    assert places.take("loud", 1)

    def work(caller: str) -> None:
        assert places.take(caller, 10)
        order.append(caller)
        places.give_back(caller)

    threads = [threading.Thread(target=work, args=(caller,)) for caller in ["loud"] * 5 + ["quiet"]]
    for thread in threads:
        thread.start()
    while places.waiting() < len(threads):
        time.sleep(0.001)
    places.give_back("loud")
    for thread in threads:
        thread.join(10)
    assert order[0] == "quiet"
    assert len(order) == 6


def test_one_tenant_alone_has_all_turns() -> None:
    async def run() -> int:
        turns, most, working = Turns(4), 0, 0

        async def work(caller: str, tenant: str | None) -> None:
            nonlocal most, working
            async with turns.of(caller, tenant):
                working += 1
                most = max(most, working)
                await asyncio.sleep(0)
                working -= 1

        # A webhook's poster, and somebody who looks on with a token.
        await asyncio.gather(*(work("hook", None) for _ in range(9)), *(work("acme", "acme") for _ in range(3)))
        return most

    assert asyncio.run(run()) == 4


def test_of_two_tenants_each_has_one_turn_at_a_time() -> None:
    async def run() -> dict[str, int]:
        turns, most, working = Turns(4), dict.fromkeys("ab", 0), dict.fromkeys("ab", 0)

        async def work(tenant: str) -> None:
            async with turns.of(tenant, tenant):
                working[tenant] += 1
                most[tenant] = max(most[tenant], working[tenant])
                await asyncio.sleep(0.001)
                working[tenant] -= 1

        await asyncio.gather(work("b"), *(work("a") for _ in range(6)), work("b"))
        return most

    assert asyncio.run(run()) == {"a": 1, "b": 1}
