from datetime import timedelta

import pytest
from unit.store.builders import NOW

from chalicelib.store.idempotency import DAY, Hits, Idempotency
from chalicelib.store.opening import Store


@pytest.fixture
def idempotency(store: Store) -> Idempotency:
    return store.tenant("acme").idempotency


@pytest.fixture
def hits(store: Store) -> Hits:
    return store.tenant("acme").hits


def test_the_first_answer_stands(idempotency: Idempotency) -> None:
    assert idempotency.remember("event", "k", {"id": 1}, now=NOW) == {"id": 1}
    assert idempotency.remember("event", "k", {"id": 2}, now=NOW + timedelta(hours=23)) == {"id": 1}
    assert idempotency.recall("event", "k", now=NOW) == {"id": 1}


def test_keys_scopes_and_tenants_do_not_mix(idempotency: Idempotency, store: Store) -> None:
    idempotency.remember("event", "k", 1, now=NOW)
    assert idempotency.remember("event", "k2", 2, now=NOW) == 2
    assert idempotency.remember("execution", "k", 3, now=NOW) == 3
    assert store.tenant("other").idempotency.remember("event", "k", 4, now=NOW) == 4
    assert idempotency.recall("event", "k3", now=NOW) is None


def test_forgotten_after_a_day_even_while_the_row_stands(idempotency: Idempotency) -> None:
    idempotency.remember("event", "k", 1, now=NOW)
    tomorrow = NOW + timedelta(seconds=DAY + 1)
    assert idempotency.recall("event", "k", now=tomorrow) is None
    assert idempotency.remember("event", "k", 2, now=tomorrow) == 2
    assert idempotency.remember("event", "k", 3, now=tomorrow) == 2


def test_hits_are_counted_per_window_key_and_source(hits: Hits) -> None:
    minute = NOW.replace(second=0)
    assert [hits.hit("wh", "1.2.3.4", 60, now=minute + timedelta(seconds=s)) for s in (0, 30, 59)] == [1, 2, 3]
    assert hits.hit("wh", "5.6.7.8", 60, now=minute) == 1
    assert hits.hit("wh2", "1.2.3.4", 60, now=minute) == 1
    assert hits.hit("wh", "1.2.3.4", 60, now=minute + timedelta(seconds=60)) == 1
