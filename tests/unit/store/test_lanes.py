from datetime import UTC, datetime, timedelta

import pytest

from chalicelib.domain.admission import BATCH
from chalicelib.store.lanes import Lanes
from chalicelib.store.opening import Store

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=2)
LANE = (1 << 88) - 1  # the highest number that a lane can have


@pytest.fixture
def lanes(store: Store) -> Lanes:
    return store.tenant("acme").lanes


def test_holders_are_swapped_if_they_are_still_the_same(lanes: Lanes) -> None:
    assert lanes.holders("p.a", LANE) == {}
    assert lanes.swap("p.a", LANE, {}, {2: NOW, 1: LATER})
    assert not lanes.swap("p.a", LANE, {}, {3: NOW})
    assert not lanes.swap("p.a", LANE, {1: LATER}, {3: NOW})
    assert not lanes.swap("p.a", LANE, {1: LATER, 2: LATER}, {3: NOW})
    assert lanes.holders("p.a", LANE) == {1: LATER, 2: NOW}
    assert lanes.of_action("p.a") == [LANE]
    assert lanes.swap("p.a", LANE, {1: LATER, 2: NOW}, {})
    assert lanes.of_action("p.a") == []
    assert not lanes.swap("p.a", LANE, {1: LATER}, {})
    assert lanes.swap("p.a", LANE, {}, {1: NOW})


def test_a_queue_goes_by_ids(lanes: Lanes) -> None:
    for id_ in (3, 1, 2, 2):
        lanes.enqueue("p.a", LANE, id_, NOW)
    assert lanes.queue("p.a", LANE) == [1, 2, 3]
    lanes.dequeue("p.a", LANE, [1])
    lanes.dequeue("p.a", LANE, [1])
    assert lanes.queue("p.a", LANE) == [2, 3]


def test_of_a_long_queue_the_first_ones(lanes: Lanes) -> None:
    for id_ in range(BATCH + 5):
        lanes.enqueue("p.a", LANE, id_, NOW)
    first = lanes.queue("p.a", LANE)
    assert first == list(range(BATCH))
    lanes.dequeue("p.a", LANE, first)
    assert lanes.queue("p.a", LANE) == list(range(BATCH, BATCH + 5))


def test_lanes_actions_and_tenants_are_apart(store: Store, lanes: Lanes) -> None:
    lanes.swap("p.a", 1, {}, {1: NOW})
    lanes.enqueue("p.a", 1, 7, NOW)
    for others, action_ref, lane in ((lanes, "p.a", 2), (lanes, "p.b", 1), (store.tenant("stranger").lanes, "p.a", 1)):
        assert others.holders(action_ref, lane) == {}
        assert others.queue(action_ref, lane) == []
