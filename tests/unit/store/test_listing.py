from datetime import timedelta
from typing import Any

import pytest
from unit.store.builders import NOW, NOW_MS, a_pair, an_enforcement, an_event, an_execution, new_id
from unit.store.conftest import Calls

from chalicelib.store.activity import Activity
from chalicelib.store.listing import EnforcementFilter, EventFilter, ExecutionFilter, Page
from chalicelib.store.opening import Store
from chalicelib.store.rows import BLOB_MARK

EVERYTHING = Page(size=100, total=True)


@pytest.fixture
def activity(store: Store) -> Activity:
    return store.tenant("acme").activity


def later(seconds: int) -> int:
    return new_id(NOW_MS + seconds * 1000)


def make(activity: Activity, count: int, **fields: Any) -> list[int]:
    """``count`` executions; their ids, newest first."""
    made = [activity.create_execution(an_execution(**fields)).id for _ in range(count)]
    return made[::-1]


def listed(activity: Activity, page: Page = EVERYTHING, **wanted: Any) -> list[int]:
    found = activity.executions(ExecutionFilter(**wanted), page)
    if page == EVERYTHING:
        assert found.total == len(found.items)
    return [each.id for each in found.items]


def test_newest_first(activity: Activity, store: Store) -> None:
    ids = make(activity, 3)
    store.tenant("other").activity.create_execution(an_execution())
    assert listed(activity) == ids


def test_an_empty_list(activity: Activity) -> None:
    found = activity.executions(ExecutionFilter(), EVERYTHING)
    assert (found.items, found.has_next, found.total) == ([], False, 0)


@pytest.mark.parametrize("wanted", [{}, {"pack_name": "demo"}], ids=str)
def test_a_page_beyond_all_numbers_is_empty(activity: Activity, wanted: dict[str, Any]) -> None:
    make(activity, 1)
    found = activity.executions(ExecutionFilter(**wanted), Page(2**62, 100))
    assert (found.items, found.has_next) == ([], False)


@pytest.mark.parametrize(
    "wanted",
    [{}, {"action_ref": "demo.act"}, {"status": "requested"}, {"pack_name": "demo"}, {"top_level_only": True}],
    ids=str,
)
@pytest.mark.parametrize("in_order", [True, False])
def test_pages(activity: Activity, wanted: dict[str, Any], *, in_order: bool) -> None:
    ids = make(activity, 7)
    numbers = (1, 2, 3, 4) if in_order else (4, 3, 2, 1)
    pages = {number: activity.executions(ExecutionFilter(**wanted), Page(number, 3, total=True)) for number in numbers}
    assert [[each.id for each in pages[number].items] for number in (1, 2, 3, 4)] == [ids[:3], ids[3:6], ids[6:], []]
    assert [pages[number].has_next for number in (1, 2, 3, 4)] == [True, True, False, False]
    assert {pages[number].total for number in numbers} == {7}


def test_walking_on_repeats_nothing_when_new_ones_come(activity: Activity) -> None:
    ids = make(activity, 4)
    assert listed(activity, Page(1, 2)) == ids[:2]
    activity.create_execution(an_execution(id=later(1)))
    assert listed(activity, Page(2, 2)) == ids[2:]


def test_hidden_rows_leave_no_holes(activity: Activity) -> None:
    ids = make(activity, 6)
    seen = set(ids[::2])
    wanted = ExecutionFilter(allowed=lambda execution: execution.id in seen)
    first, second = (activity.executions(wanted, Page(number, 2, total=True)) for number in (1, 2))
    assert [each.id for each in [*first.items, *second.items]] == ids[::2]
    assert (first.total, first.has_next, second.has_next) == (3, True, False)


def test_two_callers_pages_do_not_mix(activity: Activity) -> None:
    ids = make(activity, 6)
    assert listed(activity, Page(1, 2)) == ids[:2]
    some = ExecutionFilter(allowed=lambda execution: execution.id != ids[0])
    activity.executions(some, Page(1, 2))
    assert listed(activity, Page(2, 2)) == ids[2:4]
    assert [each.id for each in activity.executions(some, Page(2, 2)).items] == ids[3:5]


def test_every_filter_of_executions(activity: Activity) -> None:
    plain = activity.create_execution(an_execution(executor=7)).id
    other_pack = activity.create_execution(an_execution(action_ref="demolition.act")).id
    child = activity.create_execution(an_execution(parent=plain)).id
    event = an_event(id=later(2))
    ruled = activity.start([a_pair(event)])[0].id
    failed = activity.create_execution(an_execution(id=later(3), status="failed", result={"error": "No such file"})).id
    done = activity.create_execution(an_execution(id=later(4), status="completed", result={"ok": "Fine"})).id

    assert listed(activity) == [done, failed, ruled, child, other_pack, plain]
    assert listed(activity, executor=7) == [plain]
    assert listed(activity, pack_name="demolition") == [other_pack]
    assert listed(activity, pack_name="demo") == [done, failed, ruled, child, plain]
    assert listed(activity, action_ref="demolition.act") == [other_pack]
    assert listed(activity, parent=plain) == [child]
    assert listed(activity, parent=plain, top_level_only=True) == []
    assert listed(activity, top_level_only=True) == [done, failed, ruled, other_pack, plain]
    assert listed(activity, enforcement=ruled) == [ruled]
    assert listed(activity, enforcement=plain) == []
    assert listed(activity, rule_ref="demo.rule") == [ruled]
    assert listed(activity, rule_ref="demo.none") == []
    assert listed(activity, trigger_ref="demo.hook") == [ruled]
    assert listed(activity, result_contains="such FILE") == [failed]
    assert listed(activity, status="failed") == [failed]
    assert listed(activity, status="completed") == [done]
    assert listed(activity, status="requested") == [ruled, child, other_pack, plain]
    assert listed(activity, status="running") == []
    assert listed(activity, status="completed", action_ref="demo.act", executor=8) == []


def test_statuses_follow_transitions(activity: Activity) -> None:
    waiting, run, lost, done = make(activity, 4)
    for each in (run, lost, done):
        activity.claim(each, token_hash="t", deadline=NOW, now=NOW)
    activity.transition(lost, from_=("running",), to="abandoned", now=NOW)
    activity.transition(done, from_=("running",), to="completed", now=NOW)
    statuses = {"requested": waiting, "running": run, "abandoned": lost, "completed": done}
    for status, id_ in statuses.items():
        assert listed(activity, status=status) == [id_]
    counts = activity.execution_counts()
    assert {status: count for status, count in counts.items() if count} == dict.fromkeys(statuses, 1)


def test_every_filter_of_events(activity: Activity) -> None:
    plain = an_event(trigger=3)
    timer = an_event(trigger_ref="core.intervaltimer", rule=5, rule_ref="demo.rule")
    sensed = an_event(source=8, source_ref="demo.sensor")
    activity.record_events([(each, str(each.id)) for each in (plain, timer, sensed)])

    def found(**wanted: Any) -> list[Any]:
        return activity.events(EventFilter(**wanted), EVERYTHING).items

    assert found() == [sensed, timer, plain]
    assert found(trigger_ref="demo.hook") == [sensed, plain]
    assert found(trigger_ref="demo.hook", trigger=3) == [plain]
    assert found(trigger=3) == [plain]
    assert found(rule_ref="demo.rule") == [timer]
    assert found(source=8) == [sensed]
    assert found(trigger_ref="demo.hook", allowed=lambda event: event.source is None) == [plain]


def test_every_filter_of_enforcements(activity: Activity) -> None:
    first, second = an_event(), an_event(id=later(1), trigger_ref="demo.other")
    one = activity.start([a_pair(first, "a")])[0].id
    broken = an_enforcement(first, rule=9, rule_ref="demo.broken", status="disabled", error="no", config={"a": 1})
    two = activity.start([(broken, None, "b")])[0].id
    three = activity.start([a_pair(second, "c")])[0].id

    def found(**wanted: Any) -> set[int]:
        return {each.id for each in activity.enforcements(EnforcementFilter(**wanted), EVERYTHING).items}

    assert found() == {one, two, three}
    assert found(event=first.id) == {one, two}
    assert found(event=first.id, rule_ref="demo.broken") == {two}
    assert found(rule_ref="demo.rule") == {one, three}
    assert found(rule=9) == {two}
    assert found(status="disabled") == {two}
    assert found(status="processed", rule_ref="demo.broken") == set()
    assert found(trigger_ref="demo.other") == {three}
    assert activity.get_enforcement(two).config == {"a": 1}


def test_big_values_are_only_marked(activity: Activity) -> None:
    event = an_event(payload={"text": "x" * 200_000})
    activity.record_events([(event, "k")])
    (listed_event,) = activity.events(EventFilter(), Page()).items
    assert list(listed_event.payload) == [BLOB_MARK]


def test_a_page_costs_the_same_however_much_there_is(activity: Activity, calls: Calls) -> None:
    make(activity, 120)
    assert calls.during(lambda: listed(activity, Page(1, 20))) == ["Query"]
    assert calls.during(lambda: listed(activity, Page(2, 20))) == ["Query"]
    assert calls.during(lambda: listed(activity, Page(1, 20), action_ref="demo.act")) == ["Query", "BatchGetItem"]


def test_an_old_cursor_is_not_used(activity: Activity, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = make(activity, 4)
    now = [0.0]
    monkeypatch.setattr(activity._listing._cursors, "clock", lambda: now[0])
    assert listed(activity, Page(1, 2)) == ids[:2]
    newest = activity.create_execution(an_execution(id=later(1), created=NOW + timedelta(seconds=1))).id
    now[0] = 61.0
    assert listed(activity, Page(2, 2)) == [newest, *ids][2:4]
