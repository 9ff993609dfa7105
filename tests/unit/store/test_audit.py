"""A tenant's audit records in the store: never overwritten, in the order of time, found without a scan, gone with the
tenant."""

from datetime import UTC, datetime, timedelta

import pytest

from chalicelib.domain.audit import AuditEvent, Wanted
from chalicelib.domain.entities import Execution
from chalicelib.domain.ids import derive
from chalicelib.store.audit import Audit
from chalicelib.store.removal import Progress

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def event(seconds=0, **fields):
    created = NOW + timedelta(seconds=seconds)
    number = derive(int(created.timestamp() * 1000), "audit")
    given = {"id": number, "created": created, "category": "api", "event_type": "pack.create", "outcome": "success"}
    return AuditEvent(**given | fields)


def started(activity, seconds):
    created = NOW + timedelta(seconds=seconds)
    number = derive(int(created.timestamp() * 1000), "execution")
    execution = Execution(id=number, created=created, updated=created, action_ref="p.a", status="requested", executor=7)
    return activity.create_execution(execution).id


def nobody(_):
    return None


@pytest.fixture
def acme(store):
    return store.tenant("acme")


def ids(audit, wanted=Wanted(), *, offset=0, limit=100):  # noqa: B008  # frozen
    found, _ = audit.find(wanted, nobody, offset=offset, limit=limit)
    return [each.id for each in found]


def test_there_is_no_way_to_change_or_delete_a_record():
    assert {name for name in vars(Audit) if not name.startswith("_")} == {
        "append",
        "get",
        "of_request",
        "find",
        "count",
        "since",
    }


def test_a_record_never_takes_the_place_of_another(acme):
    first, second = acme.audit.append(event(resource_ref="one")), acme.audit.append(event(resource_ref="two"))
    assert second.id == first.id + 1
    assert acme.audit.get(first.id, nobody).resource_ref == "one"
    assert acme.audit.get(second.id, nobody) == second


def test_records_and_starts_stand_together_by_time(acme):
    order = [acme.audit.append(event(n)).id if n % 2 else started(acme.activity, n) for n in range(7)]
    newest = order[::-1]
    assert ids(acme.audit) == newest
    assert ids(acme.audit, offset=2, limit=3) == newest[2:5]
    assert ids(acme.audit, Wanted(category="execution")) == newest[::2]
    assert ids(acme.audit, Wanted(http_status=200)) == []
    assert [each.id for each in acme.audit.since(Wanted(), nobody, after=order[2])] == order[3:]
    assert acme.audit.count(Wanted(category="api"), nobody) == 3
    between = Wanted(created_after=NOW + timedelta(seconds=2), created_before=NOW + timedelta(seconds=4))
    assert ids(acme.audit, between) == newest[3:5]


def test_a_start_has_its_executors_login(acme):
    number = started(acme.activity, 0)
    assert acme.audit.get(number, {7: "bob"}.get).actor_login == "bob"


def test_a_record_is_one_write_and_a_page_two_reads(acme, calls):
    assert calls.during(lambda: acme.audit.append(event(request_id="r"))) == ["PutItem"]
    assert calls.during(lambda: ids(acme.audit)) == ["Query", "Query"]
    assert calls.during(lambda: acme.audit.of_request("r")) == ["Query", "BatchGetItem"]


def test_by_request(acme):
    one, two = acme.audit.append(event(0, request_id="r")), acme.audit.append(event(1, request_id="r"))
    acme.audit.append(event(2, request_id="s"))
    assert acme.audit.of_request("r") == [two, one]


def test_times_at_the_edges_of_the_calendar(acme):
    kept = acme.audit.append(event()).id
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    assert ids(acme.audit, Wanted(created_after=first, created_before=last)) == [kept]
    assert ids(acme.audit, Wanted(created_after=last)) == []
    assert ids(acme.audit, Wanted(created_before=first)) == []


def test_they_go_with_their_tenant(store, acme):
    other = store.tenant("acme2")
    acme.audit.append(event(request_id="r"))
    kept = other.audit.append(event(request_id="r"))
    assert acme.removal.go_on(Progress(), lambda: False) is None
    assert ids(acme.audit) == []
    assert ids(other.audit) == [kept.id]
