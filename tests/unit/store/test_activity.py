from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.store.builders import NOW, a_pair, an_enforcement, an_event, an_execution, new_id
from unit.store.conftest import Calls, Refusals

from chalicelib import clients
from chalicelib.domain import ids
from chalicelib.domain.entities import Execution
from chalicelib.domain.executions import OPEN, TERMINAL
from chalicelib.store.activity import Activity, BusyError
from chalicelib.store.opening import Store

TOKEN = "0123456789abcdef" * 2


@pytest.fixture
def activity(store: Store) -> Activity:
    return store.tenant("acme").activity


def item(id_: int, kind: str = "execution", tenant: str = "acme") -> dict[str, Any]:
    """The row as DynamoDB has it."""
    key = {"pk": {"S": f"{tenant}#{kind}"}, "id": {"N": str(id_)}}
    found: dict[str, Any] = clients.dynamodb().get_item(TableName="ActivityTable", Key=key, ConsistentRead=True)["Item"]
    return found


def size(row: dict[str, Any]) -> int:
    """An upper bound of the row's size in bytes, by DynamoDB's rules."""
    return sum(len(name) + len(next(iter(value.values())).encode()) for name, value in row.items())


def running(activity: Activity, execution: Execution | None = None) -> Execution:
    stored = activity.create_execution(execution or an_execution())
    claimed = activity.claim(stored.id, token_hash=TOKEN, deadline=NOW + timedelta(minutes=6), now=NOW)
    assert claimed is not None
    return claimed


def finished(activity: Activity, id_: int, **changed: Any) -> Execution | None:
    given = {"attempt": 1, "token_hash": TOKEN, "status": "completed", "result": {"ok": True}, "now": NOW}
    return activity.finish(id_, **given | changed)


class TestEvents:
    def test_come_back_as_recorded(self, activity: Activity) -> None:
        event = an_event(config={"source": "webhook"}, trigger=3, source_ref="webhook", rule=9, rule_ref="demo.rule")
        assert activity.record_events([(event, "k")]) == [event]
        assert activity.get_event(event.id) == event

    @pytest.mark.parametrize("payload", [None, [], {}, 0, False, "", "@text", {"a": [1, 2.5, None, "é"]}, 2**60])
    def test_any_payload(self, activity: Activity, payload: Any) -> None:
        event = an_event(payload=payload)
        activity.record_events([(event, "k")])
        assert activity.get_event(event.id).payload == payload

    def test_the_same_delivery_twice_is_one_event(self, activity: Activity) -> None:
        event = an_event()
        assert activity.record_events([(event, "k")]) == activity.record_events([(event, "k")])

    def test_strangers_under_one_id_both_survive_and_stay_where_they_are(self, activity: Activity) -> None:
        first = an_event()
        second = an_event(id=first.id, payload={"count": 2})
        activity.record_events([(first, "a delivery")])
        (moved,) = activity.record_events([(second, "another")])
        assert moved.id != first.id
        assert activity.record_events([(second, "another")]) == [moved]
        assert activity.get_event(first.id) == first
        assert activity.get_event(moved.id).payload == {"count": 2}

    def test_many_go_in_one_transaction(self, activity: Activity, calls: Calls) -> None:
        events = [(an_event(), str(number)) for number in range(10)]
        assert calls.during(lambda: activity.record_events(events)) == ["TransactWriteItems"]
        assert activity.record_events(events) == [event for event, _ in events]

    def test_a_redelivered_one_among_new_ones(self, activity: Activity) -> None:
        events = [(an_event(payload={"n": number}), str(number)) for number in range(4)]
        activity.record_events(events[2:3])
        assert activity.record_events([*events, events[0]]) == [event for event, _ in [*events, events[0]]]
        assert [activity.get_event(event.id).payload["n"] for event, _ in events] == [0, 1, 2, 3]

    def test_big_payloads_live_in_s3(self, activity: Activity) -> None:
        event = an_event(payload={"text": "x" * 300_000})
        activity.record_events([(event, "k")])
        assert activity.get_event(event.id) == event
        assert size(item(event.id, "event")) < 1000

    def test_of_another_tenant_do_not_exist(self, activity: Activity, store: Store) -> None:
        event = an_event()
        activity.record_events([(event, "k")])
        assert store.tenant("other").activity.get_event(event.id) is None


class TestStart:
    def test_both_rows_under_one_id(self, activity: Activity) -> None:
        event = an_event()
        (started,) = activity.start(
            [a_pair(event, action=4, executor=6, permission_set_refs=["core.viewer"], timeout=9)]
        )
        assert started.new
        assert started.enforcement.id == started.execution.id == started.execution.enforcement == started.id
        assert activity.get_execution(started.id) == started.execution
        stored = activity.get_enforcement(started.id)
        assert stored == msgspec.structs.replace(started.enforcement, config=started.execution.config)

    def test_again_changes_nothing_and_tells_how_it_stands(self, activity: Activity) -> None:
        pair = a_pair(an_event())
        (first,) = activity.start([pair])
        activity.claim(first.id, token_hash=TOKEN, deadline=NOW, now=NOW)
        (second,) = activity.start([pair])
        assert (second.new, second.id) == (False, first.id)
        assert second.execution.status == "running"

    def test_an_erring_rule_has_an_enforcement_only(self, activity: Activity) -> None:
        event = an_event()
        enforcement = an_enforcement(event, status="disabled", error="criteria: no such field")
        (started,) = activity.start([(enforcement, None, "5/1")])
        assert started.execution is None
        assert activity.get_enforcement(started.id).error == "criteria: no such field"
        assert activity.get_execution(started.id) is None
        assert not activity.start([(enforcement, None, "5/1")])[0].new

    def test_many_pairs_are_one_call(self, activity: Activity, calls: Calls) -> None:
        event = an_event()
        pairs = [a_pair(event, f"{number}/{event.id}") for number in range(50)]
        assert calls.during(lambda: activity.start(pairs)) == ["TransactWriteItems"]

    def test_old_and_new_pairs_together(self, activity: Activity) -> None:
        pairs = [a_pair(an_event(), f"{number}/1") for number in range(60)]
        activity.start(pairs[7:9])
        assert [each.new for each in activity.start(pairs)] == [number not in (7, 8) for number in range(60)]

    def test_strangers_with_one_derived_id_move_on_together(self, activity: Activity) -> None:
        event = an_event()
        at_ms = ids.milliseconds_of(event.id)
        seen: dict[int, str] = {}
        for number in range(10_000):  # a birthday among 8192 ids
            key = f"{number}/{event.id}"
            twin = seen.setdefault(ids.derive(at_ms, key), key)
            if twin != key:
                break
        started = activity.start([a_pair(event, twin), a_pair(event, key)])
        assert [each.new for each in started] == [True, True]
        assert started[0].id != started[1].id
        assert started[1].execution.id == started[1].id
        assert [each.id for each in activity.start([a_pair(event, twin), a_pair(event, key)])] == [
            each.id for each in started
        ]

    def test_an_execution_in_the_way(self, activity: Activity) -> None:
        event = an_event()
        pair = a_pair(event)
        taken = ids.derive(ids.milliseconds_of(event.id), pair[2])
        activity.create_execution(an_execution(id=taken))
        (started,) = activity.start([pair])
        assert started.new
        assert started.id != taken
        assert activity.get_execution(started.id) == started.execution

    def test_two_that_write_at_once_try_again(self, activity: Activity, refuse: Callable[[int], Refusals]) -> None:
        refusals = refuse(4)
        (started,) = activity.start([a_pair(an_event())])
        assert (started.new, refusals.left) == (True, 0)
        assert started.id == ids.derive(ids.milliseconds_of(started.id), f"5/{started.enforcement.event}")

    def test_a_pair_never_dodges_to_another_id(self, activity: Activity, refuse: Callable[[int], Refusals]) -> None:
        refuse(1000)
        with pytest.raises(BusyError):
            activity.start([a_pair(an_event())])


class TestCreateExecution:
    def test_comes_back_as_created(self, activity: Activity) -> None:
        execution = an_execution(
            env_vars={"A": "1"},
            parent=new_id(),
            secrets={"/password": [{"key": "db.password"}]},
            workflow_task={"task_name": "t"},
            worker_selector={"zone": "a"},
            artifact_retention_policy="days",
            artifact_retention_limit=0,
            original_execution=5,
        )
        assert activity.create_execution(execution) == execution
        assert activity.get_execution(execution.id) == execution

    def test_a_key_starts_one_execution(self, activity: Activity) -> None:
        first = activity.create_execution(an_execution(), "key")
        again = activity.create_execution(an_execution(), "key")
        assert again == first
        assert activity.create_execution(an_execution(), "other key").id != first.id

    def test_keys_are_the_tenants_own(self, activity: Activity, store: Store) -> None:
        first = activity.create_execution(an_execution(), "key")
        assert store.tenant("other").activity.create_execution(an_execution(), "key").id != first.id

    def test_a_key_is_good_again_after_a_day(self, activity: Activity) -> None:
        first = activity.create_execution(an_execution(), "key")
        later = an_execution(created=NOW + timedelta(days=1, seconds=1))
        assert activity.create_execution(later, "key").id == later.id != first.id

    def test_a_first_request_that_died_before_its_write(self, activity: Activity, store: Store) -> None:
        store.tenant("acme").idempotency.remember("execution", "key", 4711, now=NOW)
        assert activity.create_execution(an_execution(), "key").id == 4711
        assert activity.get_execution(4711) is not None


class TestMoving:
    def test_a_run(self, activity: Activity) -> None:
        execution = activity.create_execution(an_execution())
        deadline = NOW + timedelta(minutes=6)
        claimed = activity.claim(execution.id, token_hash=TOKEN, deadline=deadline, now=NOW)
        assert (claimed.status, claimed.attempt, claimed.version, claimed.deadline) == ("running", 1, 1, deadline)
        assert (claimed.config, claimed.started_at, claimed.attempt_token) == ({"message": "hello"}, NOW, TOKEN)
        done = finished(activity, execution.id, now=NOW + timedelta(seconds=1))
        assert (done.status, done.result, done.version) == ("completed", {"ok": True}, 2)
        assert (done.created, done.updated) == (NOW, NOW + timedelta(seconds=1))
        assert activity.get_execution(execution.id) == done

    def test_only_one_claims(self, activity: Activity) -> None:
        execution = running(activity)
        assert activity.claim(execution.id, token_hash="other", deadline=NOW, now=NOW) is None
        assert activity.get_execution(execution.id).attempt_token == TOKEN

    @pytest.mark.parametrize("changed", [{"attempt": 2}, {"token_hash": "forged"}, {"from_": ("canceling",)}])
    def test_a_result_that_is_not_the_attempts_is_dropped(self, activity: Activity, changed: dict[str, Any]) -> None:
        execution = running(activity)
        assert finished(activity, execution.id, **changed) is None
        assert activity.get_execution(execution.id) == execution

    @pytest.mark.parametrize("status", TERMINAL)
    def test_terminal_is_absorbing(self, activity: Activity, status: Any) -> None:
        execution = running(activity)
        end = finished(activity, execution.id, status=status)
        assert finished(activity, execution.id, status="failed") is None
        assert activity.claim(execution.id, token_hash=TOKEN, deadline=NOW, now=NOW) is None
        assert activity.transition(execution.id, from_=OPEN, to="running", now=NOW) is None
        assert activity.get_execution(execution.id) == end
        with pytest.raises(ValueError, match="terminal"):
            activity.transition(execution.id, from_=("running", status), to="running", now=NOW)

    def test_an_unknown_id_is_not_created(self, activity: Activity) -> None:
        assert finished(activity, 4711) is None
        activity.look_again(4711, NOW)
        assert activity.get_execution(4711) is None

    def test_another_tenants_does_not_move(self, activity: Activity, store: Store) -> None:
        execution = running(activity)
        assert finished(store.tenant("other").activity, execution.id) is None
        assert activity.get_execution(execution.id).status == "running"

    def test_the_next_attempt(self, activity: Activity) -> None:
        execution = running(activity)
        assert activity.transition(execution.id, from_=("running",), to="requested", attempt=2, now=NOW) is None
        waiting = activity.transition(execution.id, from_=("running",), to="requested", attempt=1, now=NOW)
        assert (waiting.status, waiting.attempt, waiting.deadline) == ("requested", 1, None)
        again = activity.claim(execution.id, token_hash="second", deadline=NOW, now=NOW + timedelta(minutes=1))
        assert (again.attempt, again.started_at) == (2, NOW)
        assert finished(activity, execution.id) is None
        assert finished(activity, execution.id, attempt=2, token_hash="second") is not None

    def test_a_claim_taken_back_was_no_attempt(self, activity: Activity) -> None:
        execution = running(activity)
        waiting = activity.transition(
            execution.id, from_=("running",), to="requested", attempt=1, undo_attempt=True, now=NOW
        )
        assert waiting.attempt == 0

    def test_a_version_guards(self, activity: Activity) -> None:
        execution = running(activity)
        assert activity.transition(execution.id, from_=("running",), to="canceling", version=0, now=NOW) is None
        assert activity.transition(execution.id, from_=("running",), to="canceling", version=1, now=NOW) is not None

    def test_big_values_live_in_s3(self, activity: Activity) -> None:
        big = {"text": "é" * 150_000}
        execution = running(activity, an_execution(config=big, secrets={"/x": ["y" * 150_000]}))
        assert execution.config == big
        done = finished(activity, execution.id, result=big)
        assert done.result == big
        assert activity.get_execution(execution.id) == done
        assert size(item(execution.id)) < 1000

    @given(
        moves=st.lists(
            st.tuples(st.sampled_from((*OPEN, *TERMINAL)), st.sets(st.sampled_from(OPEN), min_size=1)), max_size=8
        )
    )
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_indexes_say_what_the_status_says(self, activity: Activity, moves: list[tuple[Any, set[Any]]]) -> None:
        execution = activity.create_execution(an_execution())
        status, version = "requested", 0
        for to, from_ in moves:
            moved = activity.transition(execution.id, from_=from_, to=to, now=NOW)
            assert (moved is not None) == (status in from_)
            if moved is not None:
                status, version = to, version + 1
        row = item(execution.id)
        assert (row["s"]["S"], row["v"]["N"]) == (status, str(version))
        assert ("du" in row) == (status in OPEN)
        state = row.get("st", {}).get("S")
        assert state == (None if status == "completed" else f"acme#{'open' if status in OPEN else status}")


class TestSweeping:
    def test_open_rows_are_due_in_a_quarter_of_an_hour(self, activity: Activity, store: Store) -> None:
        executions = [activity.create_execution(an_execution()) for _ in range(9)]
        finished(activity, running(activity).id)
        assert sorted(store.due(NOW + timedelta(minutes=15)).executions) == [("acme", each.id) for each in executions]
        assert store.due(NOW + timedelta(minutes=14)).executions == []

    def test_looking_again_later(self, activity: Activity, store: Store) -> None:
        execution = activity.create_execution(an_execution())
        activity.look_again(execution.id, NOW + timedelta(hours=2))
        assert store.due(NOW + timedelta(minutes=15)).executions == []
        assert store.due(NOW + timedelta(hours=2)).executions == [("acme", execution.id)]

    def test_what_ended_is_not_looked_at_again(self, activity: Activity, store: Store) -> None:
        execution = running(activity)
        finished(activity, execution.id)
        activity.look_again(execution.id, NOW + timedelta(hours=2))
        assert store.due(NOW + timedelta(hours=2)).executions == []


def test_the_write_budget_of_a_webhooks_execution(activity: Activity, calls: Calls) -> None:
    """Design §9: at most 14 write units, indexes included, while every row is below 1 KB."""
    event = an_event(
        payload={"message": "m" * 150},
        config={"source": "webhook", "webhook_key": "wh_" + "0" * 32, "headers": {"x": "y" * 100}},
        trigger=new_id(),
        source_ref="webhook",
    )
    units = 0
    indexed = ("su", "pa", "st", "du")

    def entries(row: dict[str, Any]) -> int:
        assert size(row) < 1024
        return sum(name in row for name in indexed)

    made = calls.during(lambda: activity.record_events([(event, str(event.id))]))
    units += 1 + entries(item(event.id, "event"))
    pair = a_pair(event, action=new_id(), executor=new_id())
    id_ = activity.start([pair])[0].id
    units += 2 * 2 + entries(item(id_, "enforcement")) + entries(item(id_))

    def cost_of(work: Any) -> int:
        before = item(id_)
        work()
        after = item(id_)
        assert size(after) < 1024
        # An index entry that is removed or made costs one unit, one that moves two.
        changed = [name for name in indexed if before.get(name) != after.get(name)]
        return 1 + sum((name in before) + (name in after) for name in changed)

    units += cost_of(lambda: activity.claim(id_, token_hash=TOKEN, deadline=NOW, now=NOW))
    result = {"exit_code": 0, "duration_ms": 3, "succeeded": True, "stdout": "s" * 200}
    units += cost_of(lambda: finished(activity, id_, result=result))
    assert made == ["PutItem"]
    assert units <= 14


def test_one_call_each(activity: Activity, calls: Calls) -> None:
    event = an_event()
    assert calls.during(lambda: activity.record_events([(event, "k")])) == ["PutItem"]
    assert calls.during(lambda: activity.start([a_pair(event)])) == ["TransactWriteItems"]
    execution = activity.create_execution(an_execution())
    assert calls.during(lambda: activity.claim(execution.id, token_hash=TOKEN, deadline=NOW, now=NOW)) == ["UpdateItem"]
    assert calls.during(lambda: finished(activity, execution.id)) == ["UpdateItem"]
