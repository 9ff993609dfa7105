"""Inquiries over the adapter: asking, finding, answering, and who may."""

from datetime import timedelta

import msgspec
import pytest

from chalicelib.api.views import encode_time
from chalicelib.domain.entities import Execution, Grant, RoleAssignment
from chalicelib.flow import inquiries as flow
from chalicelib.store.registry import Put

WIRE = {
    "id", "execution", "prompt", "response_schema", "assigned_to", "status", "response", "timeout_at", "responded_at",
    "created", "updated",
}  # fmt: skip
SUMMARY = {"id", "execution", "prompt", "assigned_to", "status", "has_response", "timeout_at", "created"}


def make_execution(api, action_ref="mine.greet", **fields):
    now = api.services.clock()
    row = Execution(
        id=api.services.new_id(), created=now, updated=now, action_ref=action_ref, status="completed", **fields
    )
    return api.activity.create_execution(row).id


def body_of(api, **fields):
    return {"execution": make_execution(api), "prompt": "Go?", **fields}


def make(api, **fields):
    answer = api.post("/api/v1/inquiries", json=body_of(api, **fields))
    assert answer.status == 201, answer.json
    return answer.data


def respond(api, inquiry, response="yes", **headers):
    path = f"/api/v1/inquiries/{inquiry['id']}/respond"
    return api.post(path, json={"response": response}, headers=headers)


def get(api, inquiry):
    return api.get(f"/api/v1/inquiries/{inquiry['id']}")


def ids(answer):
    assert answer.status == 200, answer.json
    return [item["id"] for item in answer.items]


# --- making and reading


def test_an_inquiry_is_made_and_read_back(api):
    due = encode_time(api.services.clock() + timedelta(hours=1))
    schema = {"ok": {"type": "boolean"}}
    body = body_of(api, response_schema=schema, assigned_to=api.identity.id, timeout_at=due)
    answer = api.post("/api/v1/inquiries", json=body)
    assert answer.status == 201
    assert answer.json["message"]
    inquiry = answer.data
    assert set(inquiry) == WIRE
    assert {name: inquiry[name] for name in body} == body
    assert (inquiry["status"], inquiry["response"], inquiry["responded_at"]) == ("pending", None, None)
    assert get(api, inquiry).data == inquiry


def test_what_goes_beyond_the_contract_is_shown_where_it_is_used(api):
    other = api.as_role().identity
    inquiry = make(
        api, required=2, exclude_asker=True, assigned_role="boss", default_response={"approved": False},
        escalation=[{"after": 60, "assigned_to": other.login}, {"after": 90, "assigned_role": "ceo"}],
        timeout_seconds=120,
    )  # fmt: skip
    assert inquiry["required"] == 2
    assert inquiry["excluded"] == [api.identity.id]
    assert inquiry["assigned_role"] == "boss"
    assert inquiry["default_response"] == {"approved": False}
    assert inquiry["escalation"] == [{"after": 60, "assigned_to": other.id}, {"after": 90, "assigned_role": "ceo"}]
    assert inquiry["escalated"] == 0
    assert inquiry["timeout_at"] is not None


def test_an_execution_has_one(api):
    body = body_of(api)
    assert api.post("/api/v1/inquiries", json=body).status == 201
    answer = api.post("/api/v1/inquiries", json=body)
    assert (answer.status, answer.json["code"]) == (409, "CONFLICT")


def test_there_must_be_an_execution(api):
    assert api.post("/api/v1/inquiries", json={"execution": 1, "prompt": "Go?"}).status == 404
    stranger = api.as_role("core.admin", tenant="t-other")
    body = {"execution": make_execution(api), "prompt": "Go?"}
    assert stranger.post("/api/v1/inquiries", json=body).status == 404


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": ""},
        {"prompt": "x" * 10_001},
        {"prompt": None},
        {"execution": "one"},
        {"assigned_to": 12345},
        {"assigned_to": "nobody@example.org"},
        {"response_schema": {"ok": {"type": "wonder"}}},
        {"response_schema": ["no"]},
        {"timeout_at": "tomorrow"},
        {"timeout_at": "2030-01-01T00:00:00"},
        {"timeout_at": "0001-01-01T00:00:00+14:00"},
        {"timeout_seconds": 0},
        {"required": 0},
        {"escalation": [{"after": 5}]},
        {"escalation": [{"assigned_to": 5}]},
        {"response_schema": {"ok": {"type": "boolean"}}, "default_response": {"ok": 5}},
    ],
)
def test_what_cannot_be_asked_is_refused(api, fields):
    body = body_of(api) | fields
    answer = api.post("/api/v1/inquiries", json=body)
    assert (answer.status, bool(answer.json["error"])) == (422, True), answer.json
    assert api.get("/api/v1/inquiries").items == []


def test_a_stranger_finds_nothing(api):
    inquiry = make(api)
    stranger = api.as_role("core.admin", tenant="t-other")
    for method, rest in (("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/respond")):
        body = {"response": 1} if method == "POST" else {}
        answer = stranger.request(method, f"/api/v1/inquiries/{inquiry['id']}{rest}", json=body)
        assert answer.status == 404
    assert ids(stranger.get("/api/v1/inquiries")) == []


# --- lists


def test_lists_are_newest_first_with_limit_and_offset(api):
    made = [make(api)["id"] for _ in range(5)][::-1]
    answer = api.get("/api/v1/inquiries", params={"limit": 2, "offset": 2})
    assert ids(answer) == made[2:4]
    assert set(answer.items[0]) == SUMMARY
    assert answer.json["pagination"] == {
        "page": 2, "page_size": 2, "total_items": 5, "total_pages": 3, "has_previous": True, "has_next": True,
    }  # fmt: skip
    assert ids(api.get("/api/v1/inquiries", params={"limit": 2, "offset": 4})) == made[4:]
    assert ids(api.get("/api/v1/inquiries/status/pending", params={"page": 2, "page_size": 3})) == made[3:]
    assert api.get("/api/v1/inquiries").json["pagination"]["page_size"] == 50
    assert api.get("/api/v1/inquiries", params={"limit": 9999}).json["pagination"]["page_size"] == 500
    for bad in ({"limit": 0}, {"offset": -1}, {"limit": "x"}, {"status": "open"}, {"execution": "x"}):
        assert api.get("/api/v1/inquiries", params=bad).status == 400


def test_pages_beyond_all_numbers_are_empty(api):
    make(api)
    for wanted in ({"offset": 2**63 - 1}, {"page": 2**63 - 1}, {"offset": 2**63 - 1, "status": "pending"}):
        assert ids(api.get("/api/v1/inquiries", params=wanted)) == []


def test_lists_are_filtered(api):
    mine, free, done = make(api, assigned_to=api.identity.id), make(api), make(api)
    respond(api, done)
    assert ids(api.get("/api/v1/inquiries", params={"status": "pending"})) == [free["id"], mine["id"]]
    assert ids(api.get("/api/v1/inquiries", params={"assigned_to": api.identity.id})) == [mine["id"]]
    assert ids(api.get("/api/v1/inquiries", params={"execution": done["execution"]})) == [done["id"]]
    assert ids(api.get("/api/v1/inquiries/status/responded")) == [done["id"]]
    assert api.get("/api/v1/inquiries/status/responded").items[0]["has_response"] is True
    assert api.get("/api/v1/inquiries/status/open").status == 400
    assert ids(api.get(f"/api/v1/executions/{free['execution']}/inquiries")) == [free["id"]]
    assert api.get("/api/v1/executions/1/inquiries").status == 404


# --- answering


def test_an_answer_settles_it(api):
    inquiry = make(api, response_schema={"ok": {"type": "boolean", "required": True}})
    answer = respond(api, inquiry, {"ok": True})
    assert answer.status == 200
    assert (answer.data["status"], answer.data["response"]) == ("responded", {"ok": True})
    assert answer.data["responded_at"] is not None
    (told,) = answer.data["responses"]
    assert (told["identity"], told["login"], told["response"]) == (api.identity.id, api.login, {"ok": True})
    assert "key" not in told
    again = respond(api, inquiry, {"ok": False})
    assert (again.status, again.json["code"]) == (400, "BAD_REQUEST")
    assert get(api, inquiry).data == answer.data


def test_a_response_that_breaks_the_schema_leaves_it_pending(api):
    inquiry = make(api, response_schema={"ok": {"type": "boolean", "required": True}})
    for response in ({}, {"ok": 1}, "yes", None):
        answer = respond(api, inquiry, response)
        assert answer.status == 422
        assert answer.json["details"]["path"] == "response"
        assert answer.json["details"]["violations"]
    assert get(api, inquiry).data == inquiry


def test_a_body_without_a_response_is_refused(api):
    inquiry = make(api)
    assert api.post(f"/api/v1/inquiries/{inquiry['id']}/respond", json={}).status == 422
    assert api.post("/api/v1/inquiries/1/respond", json={"response": 1}).status == 404
    assert respond(api, inquiry, None).status == 200


def test_a_key_gives_the_first_answer(api):
    inquiry = make(api)
    first = respond(api, inquiry, "first", **{"Idempotency-Key": "k1"})
    second = respond(api, inquiry, "second", **{"Idempotency-Key": "k1"})
    assert (second.status, second.data) == (200, first.data)
    assert respond(api, inquiry, "third", **{"Idempotency-Key": "k2"}).status == 400
    # Somebody else's key of the same text is another one.
    assert respond(api.as_role("core.admin"), inquiry, "x", **{"Idempotency-Key": "k1"}).status == 400


def test_its_time_may_be_up(api):
    due = encode_time(api.services.clock() - timedelta(seconds=1))
    inquiry = make(api, timeout_at=due)
    answer = respond(api, inquiry)
    assert answer.status == 400
    assert get(api, inquiry).data["status"] == "timeout"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
        ("2030-01-01T02:00:00+02:00", "2030-01-01T00:00:00Z"),
    ],
)
def test_any_moment_may_be_the_end(api, given, shown):
    assert make(api, timeout_at=given)["timeout_at"] == shown


def test_two_people_must_agree(api):
    inquiry = make(api, required=2)
    first = respond(api, inquiry, {"approved": True})
    assert (first.status, first.data["status"]) == (200, "pending")
    again = respond(api, inquiry, {"approved": True})
    assert (again.status, again.json["code"]) == (409, "CONFLICT")
    second = respond(api.as_role("core.admin"), inquiry, {"approved": True})
    assert (second.status, second.data["status"], len(second.data["responses"])) == (200, "responded", 2)


# --- who may


def test_being_assigned_is_permission_enough(api):
    viewer, other = api.as_role(), api.as_role("core.viewer")
    inquiry = make(api, assigned_to=viewer.identity.id)
    assert ids(viewer.get("/api/v1/inquiries", params={"assigned_to": viewer.identity.id})) == [inquiry["id"]]
    assert get(viewer, inquiry).data == inquiry
    for somebody in (other, api):
        assert respond(somebody, inquiry).status == 403
    assert get(other, inquiry).status == 403
    assert respond(viewer, inquiry).status == 200


def test_what_is_not_assigned_takes_a_grant(api):
    inquiry, viewer = make(api), api.as_role("core.viewer")
    assert viewer.get("/api/v1/inquiries").status == 403
    assert viewer.get("/api/v1/inquiries", params={"assigned_to": api.identity.id}).status == 403
    assert viewer.get("/api/v1/inquiries/status/pending").status == 403
    assert viewer.get(f"/api/v1/executions/{inquiry['execution']}/inquiries").status == 403
    assert get(viewer, inquiry).status == 403
    assert respond(viewer, inquiry).status == 403
    assert viewer.post("/api/v1/inquiries", json=body_of(api)).status == 403
    assert viewer.put(f"/api/v1/inquiries/{inquiry['id']}", json={"status": "cancelled"}).status == 403
    assert viewer.delete(f"/api/v1/inquiries/{inquiry['id']}").status == 403
    assert respond(api.with_grants(Grant(resource="inquiries", actions=["respond"])), inquiry).status == 200


def test_a_role_may_answer(api):
    holder, boss, other = api.as_role("core.viewer"), api.as_role(), api.as_role()
    by_set = make(api, assigned_role="core.viewer")
    assert respond(other, by_set).status == 403
    assert respond(holder, by_set).status == 200

    role = RoleAssignment(id=1, role="boss", created=api.services.clock(), updated=api.services.clock())
    api.registry.commit(Put(msgspec.structs.replace(boss.identity, roles=[role])))
    by_role = make(api, assigned_role="boss")
    assert respond(other, by_role).status == 403
    assert get(boss, by_role).status == 200
    assert respond(boss, by_role).status == 200


def test_rows_beyond_ones_reach_are_left_out(api):
    near = api.post("/api/v1/inquiries", json={"execution": make_execution(api, "near.do"), "prompt": "Near?"}).data
    far = api.post("/api/v1/inquiries", json={"execution": make_execution(api, "far.do"), "prompt": "Far?"}).data
    grants = ["read", "respond", "create", "update", "delete"]
    clerk = api.with_grants(Grant(resource="inquiries", actions=grants, constraints={"pack_refs": ["near"]}))
    answer = clerk.get("/api/v1/inquiries")
    assert ids(answer) == [near["id"]]
    assert answer.json["pagination"]["total_items"] == 1
    assert get(clerk, near).status == 200
    assert get(clerk, far).status == 403
    assert respond(clerk, far).status == 403
    assert clerk.put(f"/api/v1/inquiries/{far['id']}", json={"status": "cancelled"}).status == 403
    assert clerk.delete(f"/api/v1/inquiries/{far['id']}").status == 403
    body = {"execution": make_execution(api, "far.do"), "prompt": "Far?"}
    assert clerk.post("/api/v1/inquiries", json=body).status == 403
    assert respond(clerk, near).status == 200


def test_the_asker_may_be_kept_out(api):
    inquiry = make(api, exclude_asker=True)
    assert respond(api, inquiry).status == 403
    assert respond(api.as_role("core.admin"), inquiry).status == 200


def test_a_run_may_not_approve_itself(api):
    own = api.as_execution("core.admin")
    child = api.as_execution("core.admin", parent=own.execution_id)
    stranger = api.as_execution("core.admin")
    inquiry = api.post("/api/v1/inquiries", json={"execution": own.execution_id, "prompt": "Go?"}).data
    for part in (own, child):
        answer = respond(part, inquiry)
        assert (answer.status, "(privilege loop)" in answer.json["error"]) == (403, True)
    assert respond(stranger, inquiry).status == 200


def test_an_execution_answers_by_its_own_rights_only(api):
    inquiry = make(api, assigned_to=api.identity.id)
    assert respond(api.as_execution("core.viewer"), inquiry).status == 403
    assert get(api.as_execution("core.viewer"), inquiry).status == 403
    listed = api.as_execution("core.viewer").get("/api/v1/inquiries", params={"assigned_to": api.identity.id})
    assert listed.status == 403
    assert respond(api.as_execution("core.admin"), inquiry).status == 200


def test_a_sensor_is_nobody(api):
    inquiry = make(api)
    token = api.services.tokens.issue_sensor(
        tenant=api.tenant, identity_id=api.identity.id, sensor_ref="mine.watch", trigger_types=[],
        now=api.services.clock(),
    )  # fmt: skip
    assert respond(api.with_token(token), inquiry).status == 403


# --- changing


def put(api, inquiry, **fields):
    return api.put(f"/api/v1/inquiries/{inquiry['id']}", json=fields)


def test_somebody_else_is_asked(api):
    other = api.as_role()
    inquiry = make(api, assigned_to=api.identity.id)
    answer = put(api, inquiry, assigned_to=other.identity.id)
    assert (answer.status, answer.data["assigned_to"]) == (200, other.identity.id)
    assert respond(api, inquiry).status == 403
    assert put(api, inquiry, assigned_to=12345).status == 422
    assert ids(api.get("/api/v1/inquiries", params={"assigned_to": other.identity.id})) == [inquiry["id"]]
    assert respond(other, inquiry).status == 200


def test_an_administrator_settles_it(api):
    inquiry = make(api, response_schema={"ok": {"type": "boolean", "required": True}})
    assert put(api, inquiry, status="responded").status == 422
    assert put(api, inquiry, response={"ok": "x"}).status == 422
    assert put(api, inquiry, status="open").status == 422
    assert put(api, inquiry).data == inquiry
    assert put(api, inquiry, response={"ok": False}).data["response"] == {"ok": False}
    settled = put(api, inquiry, status="responded", response={"ok": True}).data
    assert (settled["status"], settled["response"]) == ("responded", {"ok": True})
    assert put(api, inquiry, status="pending").status == 400
    assert put(api, make(api), status="cancelled").data["status"] == "cancelled"
    assert api.put("/api/v1/inquiries/1", json={}).status == 404


def test_an_inquiry_is_deleted(api):
    inquiry = make(api)
    answer = api.delete(f"/api/v1/inquiries/{inquiry['id']}")
    assert (answer.status, answer.json["success"]) == (200, True)
    assert get(api, inquiry).status == 404
    assert api.delete(f"/api/v1/inquiries/{inquiry['id']}").status == 404
    assert api.post("/api/v1/inquiries", json={"execution": inquiry["execution"], "prompt": "Again?"}).status == 201


def test_a_deletion_that_meets_an_answer_says_so(api, monkeypatch):
    inquiry = make(api)
    monkeypatch.setattr(flow, "delete", lambda *_: False)
    assert api.delete(f"/api/v1/inquiries/{inquiry['id']}").status == 409
