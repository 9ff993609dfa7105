"""The embedded queues' choice among tenants."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from infra.local.fairness import choose, fair

NOW = 1_000.0


def message(group: str | None, *, visible: bool = True, received: int = 0) -> dict[str, Any]:
    return {"group_id": group, "visible_at": NOW - 1 if visible else NOW + 30, "receive_count": received}


def test_a_quiet_tenant_does_not_wait_behind_a_loud_one() -> None:
    loud = [message("loud") for _ in range(2000)]
    quiet = message("quiet")
    chosen = choose([*loud, quiet], 10, NOW)
    assert quiet in chosen[:2]
    assert len(chosen) == 10


def test_who_has_much_in_flight_comes_last() -> None:
    flying = [message("loud", visible=False, received=1) for _ in range(5)]
    assert [each["group_id"] for each in choose([*flying, message("loud"), message("quiet")], 2, NOW)] == [
        "quiet",
        "loud",
    ]


def test_what_is_delayed_is_not_in_flight() -> None:
    delayed = [message("loud", visible=False) for _ in range(5)]
    first, second = message("loud"), message("quiet")
    assert choose([*delayed, first, second], 2, NOW) == [first, second]


@given(st.lists(st.sampled_from(["a", "b", None]), max_size=40), st.integers(1, 10))
def test_nobody_is_held_back(groups: list[str | None], most: int) -> None:
    messages = [message(group) for group in groups]
    chosen = choose(messages, most, NOW)
    assert len(chosen) == min(most, len(messages))
    for group in set(groups):
        own = [each for each in messages if each["group_id"] == group]
        taken = [each for each in chosen if each["group_id"] == group]
        assert [id(each) for each in taken] == [id(each) for each in own[: len(taken)]]


def test_a_fifo_queue_stays_as_it_is() -> None:
    seen: list[Any] = []
    queue = {"is_fifo": True, "messages": [message("a")] * 20}
    fair(lambda *given: seen.append(given) or [])(queue, 10, 30)
    assert seen == [(queue, 10, 30)]
