"""Families of refresh tokens, and uses of integration tokens."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chalicelib.store.token_notes import GRACE, USE_STEP, ReusedError, RevokedError, Use

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
LIFE = timedelta(days=7)


@pytest.fixture
def notes(services: Any) -> Any:
    return services.store.tenant("acme").token_notes


def rotate(notes: Any, generation: int, *, after: timedelta = timedelta(0), family: str = "f") -> int:
    successor: int = notes.rotate(family, generation, now=NOW + after, life=LIFE)
    return successor


def test_each_token_is_used_up_by_its_successor(notes: Any) -> None:
    assert [rotate(notes, generation) for generation in range(4)] == [1, 2, 3, 4]
    assert rotate(notes, 0, family="another") == 1


def test_two_tabs_that_refresh_at_once_get_the_same(notes: Any) -> None:
    assert rotate(notes, 0) == rotate(notes, 0, after=GRACE) == 1
    assert rotate(notes, 1, after=GRACE) == 2


def test_a_token_used_again_later_ends_its_family(notes: Any) -> None:
    rotate(notes, 0)
    with pytest.raises(ReusedError):
        rotate(notes, 0, after=GRACE + timedelta(seconds=1))
    for generation in (0, 1, 2):
        with pytest.raises(RevokedError):
            rotate(notes, generation, after=GRACE)


def test_a_token_from_further_back_ends_its_family_at_once(notes: Any) -> None:
    rotate(notes, 0)
    rotate(notes, 1)
    with pytest.raises(ReusedError):
        rotate(notes, 0)
    with pytest.raises(RevokedError):
        rotate(notes, 2)


def test_a_token_whose_note_is_lost_opens_nothing(notes: Any) -> None:
    with pytest.raises(RevokedError):
        rotate(notes, 3)


def test_a_family_that_is_revoked_before_its_first_use(notes: Any) -> None:
    notes.revoke("f", now=NOW, life=LIFE)
    with pytest.raises(RevokedError):
        rotate(notes, 0)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), max_size=8))
def test_whatever_is_tried_a_family_only_goes_forward(notes: Any, tries: list[tuple[int, int]]) -> None:
    """No sequence of old and new tokens gets past a family's end, or gets two different tokens of one number to work
    on beyond the grace."""
    family = uuid4().hex
    passed, reached, ended = timedelta(0), 0, False
    since = None
    for generation, pause in tries:
        passed += timedelta(seconds=pause)
        try:
            successor = notes.rotate(family, generation, now=NOW + passed, life=LIFE)
        except RevokedError:
            ended = ended or reached > 0
            continue
        assert not ended
        assert successor == generation + 1
        assert generation == reached or (generation == reached - 1 and since is not None and passed - since <= GRACE)
        if generation == reached:
            reached, since = successor, passed


def test_a_use_is_noted_once_in_its_step(notes: Any) -> None:
    assert notes.uses([7]) == {}
    notes.used(7, now=NOW, ip="203.0.113.7")
    notes.used(7, now=NOW + USE_STEP - timedelta(seconds=1), ip="203.0.113.8")
    assert notes.uses([7, 8]) == {7: Use(NOW, "203.0.113.7")}
    notes.used(7, now=NOW + USE_STEP, ip=None)
    assert notes.uses([7]) == {7: Use(NOW + USE_STEP, None)}
    notes.forget(7)
    assert notes.uses([7]) == {}
    assert notes.uses([]) == {}
