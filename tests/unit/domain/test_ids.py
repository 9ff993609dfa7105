from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain import ids

MOMENTS = st.integers(min_value=ids.EPOCH_MS, max_value=ids.EPOCH_MS + (1 << 40) - 1)
ENTROPY = st.integers(min_value=0, max_value=ids.LOW_MASK)


@given(MOMENTS, st.text(), st.integers(min_value=0, max_value=50))
def test_derived_ids_are_the_same_each_time_and_fit_a_double(at_ms: int, key: str, salt: int) -> None:
    id_ = ids.derive(at_ms, key, salt)
    assert id_ == ids.derive(at_ms, key, salt)
    assert 0 <= id_ <= ids.MAX_ID
    assert float(id_) == id_


@given(MOMENTS, st.text())
def test_an_id_knows_its_millisecond(at_ms: int, key: str) -> None:
    id_ = ids.derive(at_ms, key)
    assert ids.milliseconds_of(id_) == at_ms
    low, high = ids.same_millisecond(id_)
    assert low <= id_ <= high
    assert ids.milliseconds_of(low) == ids.milliseconds_of(high) == at_ms


@given(MOMENTS, MOMENTS, st.text(), st.text())
def test_ids_are_ordered_by_time(first: int, second: int, key: str, other: str) -> None:
    if first < second:
        assert ids.derive(first, key) < ids.derive(second, other)


@given(ENTROPY, st.lists(MOMENTS, min_size=2, max_size=50))
def test_a_sequence_never_repeats_even_when_the_clock_goes_back(entropy: int, moments: list[int]) -> None:
    sequence = ids.Sequence(entropy)
    drawn = [sequence.draw(moment) for moment in moments]
    assert drawn == sorted(set(drawn))


def test_salts_lead_to_different_ids() -> None:
    at_ms = ids.EPOCH_MS + 1234
    assert len({ids.derive(at_ms, "rule/event", salt) for salt in range(20)}) > 15


def test_time_of_an_id() -> None:
    moment = datetime(2026, 11, 22, 15, 34, 38, 123000, UTC)
    assert ids.time_of(ids.derive(int(moment.timestamp() * 1000), "x")) == moment
