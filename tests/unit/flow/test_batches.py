from collections.abc import Sequence

import pytest

from chalicelib.flow.batches import each_or_all, partial_response


def test_work_that_succeeds_is_done_once_for_all() -> None:
    calls: list[list[int]] = []
    assert each_or_all([0, 1, 2], lambda some: calls.append(list(some))) == []
    assert calls == [[0, 1, 2]]


def test_only_what_fails_alone_comes_again() -> None:
    done: set[int] = set()

    def work(positions: Sequence[int]) -> None:
        if 1 in positions:
            raise RuntimeError("poison")
        done.update(positions)

    assert each_or_all([0, 1, 2], work) == [1]
    assert done == {0, 2}


def test_a_message_that_fails_alone_comes_again() -> None:
    calls: list[list[int]] = []

    def work(positions: Sequence[int]) -> None:
        calls.append(list(positions))
        raise RuntimeError("poison")

    assert each_or_all([4], work) == [4]
    assert calls == [[4], [4]]


def test_the_process_may_still_be_stopped() -> None:
    def work(_positions: Sequence[int]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        each_or_all([0, 1], work)


def test_partial_response_names_the_failed_messages() -> None:
    assert partial_response(["a", "b", "c"], [0, 2]) == {
        "batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": "c"}]
    }
