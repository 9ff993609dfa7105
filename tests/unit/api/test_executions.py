"""Executions over the adapter: asking for them, reading them back, stopping them."""

from datetime import timedelta

import msgspec
import pytest
from unit.api.resources import make_action, make_pack

from chalicelib.domain import ids
from chalicelib.domain.entities import Enforcement, Execution, Grant, Key
from chalicelib.store.registry import Put

WIRE = {
    "id", "action", "action_ref", "config", "parent", "enforcement", "executor", "worker", "status", "result",
    "created", "updated",
}  # fmt: skip
REDACTED = {"$attune_secret": True, "redacted": True}


@pytest.fixture(autouse=True)
def action(api):
    make_pack(api)
    return make_action(
        api, param_schema={"name": {"type": "string", "required": True}, "times": {"type": "integer", "default": 1}}
    )


def execute(api, headers=None, **fields):
    body = {"action_ref": "mine.greet", "parameters": {"name": "Ada"}, **fields}
    return api.post("/api/v1/executions/execute", json=body, headers=headers)


def store(api, status="completed", *, age=0, **fields):
    """An execution as if it had been made ``age`` seconds ago."""
    at = api.services.clock() - timedelta(seconds=age)
    id_ = ids.derive(int(at.timestamp() * 1000), "test")
    row = Execution(**{"id": id_, "created": at, "updated": at, "action_ref": "mine.greet", "status": status, **fields})
    return api.activity.create_execution(row)


def make_key(api, ref, *, value="s3cret", encrypted=True):
    now = api.services.clock()
    key = Key(
        id=api.services.new_id(), ref=ref, created=now, updated=now, owner_type="system", name=ref.rpartition(".")[2],
        encrypted=encrypted, sealed=api.services.cipher.seal(api.tenant, ref, value),
    )  # fmt: skip
    api.registry.commit(Put(key, new=True))
    return key


def test_an_execution_is_requested_and_handed_on(api, action):
    answer = execute(api)
    assert answer.status == 201
    execution = answer.data
    assert set(execution) == WIRE
    assert execution["action"] == action["id"]
    assert execution["status"] == "requested"
    assert execution["config"] == {"name": "Ada", "times": 1}
    assert execution["executor"] == api.identity.id
    assert (execution["result"], execution["parent"], execution["enforcement"]) == (None, None, None)
    assert [message["id"] for message in api.sent("executions")] == [execution["id"]]
    assert api.get(f"/api/v1/executions/{execution['id']}").data == execution


def test_the_published_client_finds_the_fields_beside_the_envelope(api):
    body = execute(api).json
    assert {name: body[name] for name in WIRE - {"result"}} == {name: body["data"][name] for name in WIRE - {"result"}}
    assert body["result"] == {}


def test_what_a_request_says_of_its_run_is_kept(api):
    execution = execute(
        api,
        env_vars={"A": "b", "N": 1},
        timeout=7,
        artifact_retention_policy="days",
        artifact_retention_limit=2,
        worker_selector={"zone": "a"},
        permission_set_refs=["core.viewer"],
    ).data
    assert execution["timeout_seconds"] == 7
    assert execution["artifact_retention_policy"] == "days"
    assert execution["artifact_retention_limit"] == 2
    assert execution["worker_selector"] == {"zone": "a"}
    assert execution["permission_set_refs"] == ["core.viewer"]
    assert api.activity.get_execution(execution["id"]).env_vars == {"A": "b", "N": "1"}


def test_variables_that_are_not_a_requests_to_set_are_refused(api):
    refused = execute(api, env_vars={"ATTUNE_API_TOKEN": "mine"})
    assert refused.status == 422
    assert "ATTUNE_API_TOKEN" in refused.json["error"]
    assert refused.json["details"] == {"path": "env_vars"}


def test_bad_parameters_make_an_execution_that_failed_from_the_start(api):
    answer = execute(api, parameters={"times": "often"})
    assert answer.status == 201
    assert answer.data["status"] == "failed"
    assert "name" in answer.data["result"]["error"]
    assert "times" in answer.data["result"]["error"]
    assert api.sent("executions") == []


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"action_ref": "mine.gone"}, 404),
        ({"action_ref": 5}, 422),
        ({"parameters": "text"}, 422),
        ({"timeout": 0}, 422),
        ({"permission_set_refs": ["nowhere.set"]}, 422),
        ({"secrets": ["nowhere.key"]}, 422),
    ],
)
def test_a_bad_request_starts_nothing(api, change, status):
    assert execute(api, **change).status == status
    assert api.get("/api/v1/executions").items == []
    assert api.sent("executions") == []


def test_an_idempotency_key_starts_one_execution(api):
    first = execute(api, headers={"Idempotency-Key": "once"})
    again = execute(api, headers={"Idempotency-Key": "once"}, parameters={"name": "Bob"})
    other = execute(api, headers={"Idempotency-Key": "twice"})
    assert (first.status, again.status) == (201, 201)
    assert again.data == first.data
    assert other.data["id"] != first.data["id"]
    assert execute(api, headers={"Idempotency-Key": "x" * 256}).status == 400


def test_idempotency_keys_are_each_callers_own(api):
    first = execute(api, headers={"Idempotency-Key": "once"})
    somebody = execute(api.as_role("core.executor"), headers={"Idempotency-Key": "once"})
    assert somebody.data["id"] != first.data["id"]


def test_executing_needs_its_grant(api):
    assert execute(api.as_role("core.executor")).status == 201
    assert execute(api.as_role("core.viewer")).status == 403
    assert execute(api.as_role("core.executor"), permission_set_refs=["core.admin"]).status == 403
    elsewhere = api.with_grants(Grant(resource="actions", actions=["execute"], constraints={"pack_refs": ["other"]}))
    assert execute(elsewhere).status == 403


def test_a_private_packs_action_is_not_there_for_others(api):
    make_pack(api, "secret", visibility="private", installed_by=api.identity.id)
    make_action(api, "secret.greet")
    assert execute(api, action_ref="secret.greet").status == 201
    assert execute(api.as_role("core.admin"), action_ref="secret.greet").status == 404


def test_named_keys_go_in_by_reference(api):
    make_key(api, "team.token")
    execution = execute(api, secrets=["team.token"]).data
    stored = api.activity.get_execution(execution["id"])
    assert stored.secrets == {"/token": [{"key": "team.token"}]}
    assert "s3cret" not in msgspec.json.encode(stored).decode()
    assert execute(api.as_role("core.executor"), secrets=["team.token"]).status == 403


def test_what_the_schema_calls_secret_is_shown_to_those_who_may_decrypt(api):
    make_action(api, "mine.sign", param_schema={"pin": {"type": "string", "secret": True}, "who": {"type": "string"}})
    created = execute(api, action_ref="mine.sign", parameters={"pin": "1234", "who": "Ada"}).data
    assert created["config"] == {"pin": REDACTED, "who": "Ada"}
    path = f"/api/v1/executions/{created['id']}"
    assert api.get(path).data["config"]["pin"] == REDACTED
    assert api.get(f"{path}?include_secret_values=true").data["config"]["pin"] == "1234"
    assert api.as_role("core.viewer").get(f"{path}?include_secret_values=true").status == 403


def test_references_to_keys_are_put_together_for_those_who_may_decrypt(api):
    make_key(api, "db.password", value="hunter2")
    row = store(
        api,
        config={"header": REDACTED, "list": [1, REDACTED]},
        secrets={"/header": ["Bearer ", {"key": "db.password"}], "/list/1": [{"key": "db.gone"}]},
    )
    path = f"/api/v1/executions/{row.id}"
    assert api.get(path).data["config"]["header"] == REDACTED
    assert api.get(f"{path}?include_secret_values=true").data["config"] == {
        "header": "Bearer hunter2",
        "list": [1, REDACTED],
    }


def test_a_packs_secret_settings_are_shown_to_those_who_may_configure_it(api):
    pack = api.registry.packs.get("mine")
    api.registry.commit(Put(msgspec.structs.replace(pack, config={"api": {"token": "hunter2"}})))
    source = {"pack": "mine", "config": "/api/token"}
    row = store(api, config={"token": REDACTED}, secrets={"/token": [source]})
    path = f"/api/v1/executions/{row.id}?include_secret_values=true"
    assert api.get(path).data["config"] == {"token": "hunter2"}
    reader = api.with_grants(
        Grant(resource="executions", actions=["read"]), Grant(resource="keys", actions=["decrypt"])
    )
    assert reader.get(path).data["config"] == {"token": REDACTED}


def test_one_execution(api):
    at = api.services.clock()
    row = store(api, "failed", result={"error": "no"}, started_at=at, rule_ref="mine.answer", parent=7, timeout=3)
    data = api.get(f"/api/v1/executions/{row.id}").data
    assert set(data) == WIRE | {"started_at", "timeout_seconds"}
    assert (data["status"], data["result"], data["parent"]) == ("failed", {"error": "no"}, 7)
    assert data["started_at"].endswith("Z")
    assert api.get("/api/v1/executions/1").status == 404
    assert api.get("/api/v1/executions/one").status == 400
    assert api.as_role().get(f"/api/v1/executions/{row.id}").status == 403
    stranger = api.as_role("core.admin", tenant=f"{api.tenant}-other")
    assert stranger.get(f"/api/v1/executions/{row.id}").status == 404


def test_the_list_is_newest_first_with_totals_on_request(api):
    rows = [store(api, age=age) for age in (30, 20, 10)]
    answer = api.get("/api/v1/executions?per_page=2")
    assert [item["id"] for item in answer.items] == [rows[2].id, rows[1].id]
    assert answer.json["pagination"] == {"page": 1, "page_size": 2, "has_previous": False, "has_next": True}
    second = api.get("/api/v1/executions?per_page=2&page=2&include_total=true")
    assert [item["id"] for item in second.items] == [rows[0].id]
    assert second.json["pagination"] == {
        "page": 2, "page_size": 2, "total_items": 3, "total_pages": 2, "has_previous": True, "has_next": False,
    }  # fmt: skip
    assert set(answer.items[0]) == {
        "id", "action_ref", "status", "parent", "enforcement", "rule_ref", "trigger_ref", "created", "updated",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("status=completed", ["done", "child"]),
        ("status=succeeded", ["done", "child"]),
        ("status=failed", ["failed"]),
        ("action_ref=mine.other", ["failed"]),
        ("pack_name=mine", ["done", "failed", "child"]),
        ("pack_name=min", []),
        ("rule_ref=mine.rule", ["failed"]),
        ("trigger_ref=mine.trigger", ["failed"]),
        ("executor=5", ["done"]),
        ("result_contains=NEEDLE", ["done"]),
        ("parent=99", ["child"]),
        ("enforcement=77", []),
        ("top_level_only=true", ["done", "failed"]),
        ("status=completed&top_level_only=true", ["done"]),
    ],
)
def test_every_filter(api, query, names):
    rows = {
        "done": store(api, age=30, executor=5, result={"data": "a Needle"}),
        "failed": store(
            api, "failed", age=20, action_ref="mine.other", trigger_ref="mine.trigger", rule_ref="mine.rule"
        ),
        "child": store(api, age=10, parent=99),
    }
    if "rule_ref" in query:
        # The rule's executions are found by its enforcements.
        rows["failed"] = _started(api, rows["failed"])
    found = [item["id"] for item in api.get(f"/api/v1/executions?{query}").items]
    assert sorted(found) == sorted(rows[name].id for name in names)


def _started(api, like):
    enforcement = Enforcement(
        id=like.id, rule=3, rule_ref="mine.rule", trigger_ref="mine.trigger", event=like.id, status="processed",
        created=like.created,
    )  # fmt: skip
    execution = msgspec.structs.replace(like, enforcement=like.id)
    return api.activity.start([(enforcement, execution, "3/1")])[0].execution


@pytest.mark.parametrize("query", ["status=sleeping", "page=0", "per_page=x", "parent=x", "top_level_only=maybe"])
def test_a_bad_query_is_refused(api, query):
    assert api.get(f"/api/v1/executions?{query}").status == 400


def test_executions_by_status_come_with_totals(api):
    done, failed = store(api, age=20), store(api, "failed", age=10)
    for name in ("completed", "succeeded"):
        answer = api.get(f"/api/v1/executions/status/{name}")
        assert [item["id"] for item in answer.items] == [done.id]
        assert answer.json["pagination"]["total_items"] == 1
    assert [item["id"] for item in api.get("/api/v1/executions/status/failed").items] == [failed.id]
    assert api.get("/api/v1/executions/status/sleeping").status == 400


def test_what_an_enforcement_started(api):
    execution = _started(api, store(api, "requested", age=10))
    answer = api.get(f"/api/v1/enforcements/{execution.enforcement}/executions")
    assert [item["id"] for item in answer.items] == [execution.id]
    assert answer.json["pagination"]["total_items"] == 1
    assert api.get("/api/v1/enforcements/1/executions").status == 404


def test_stats_count_every_status_once(api):
    for age, status in enumerate(
        ["completed", "completed", "failed", "running", "canceling", "requested", "scheduled", "cancelled", "abandoned"]
    ):
        store(api, status, age=age + 1)
    assert api.get("/api/v1/executions/stats").data == {
        "total": 9, "completed": 2, "failed": 1, "running": 2, "pending": 2, "cancelled": 1, "timeout": 0,
        "abandoned": 1,
    }  # fmt: skip


def test_rows_beyond_the_grant_are_left_out_before_paging(api):
    mine = [store(api, age=age, executor=api.identity.id) for age in (40, 20)]
    store(api, age=30, executor=1)
    some = api.with_grants(
        Grant(resource="executions", actions=["read"], constraints={"ids": [row.id for row in mine]})
    )
    answer = some.get("/api/v1/executions?per_page=2&include_total=true")
    assert [item["id"] for item in answer.items] == [mine[1].id, mine[0].id]
    assert answer.json["pagination"]["total_items"] == 2
    assert api.as_role().get("/api/v1/executions").status == 403


def test_a_waiting_execution_is_cancelled_at_once(api):
    execution = execute(api).data
    answer = api.post(f"/api/v1/executions/{execution['id']}/cancel")
    assert answer.status == 200
    assert answer.data["status"] == "cancelled"
    assert answer.data["result"]["error"] == "Cancelled by user before execution started"
    assert api.post(f"/api/v1/executions/{execution['id']}/cancel").status == 409


def test_a_running_execution_is_cancelled_by_way_of_canceling(api):
    row = store(api, "running", age=5)
    for _ in range(2):
        answer = api.post(f"/api/v1/executions/{row.id}/cancel")
        assert (answer.status, answer.data["status"]) == (200, "canceling")
    assert api.post("/api/v1/executions/1/cancel").status == 404


def test_cancelling_needs_its_grant(api):
    execution = execute(api).data
    path = f"/api/v1/executions/{execution['id']}/cancel"
    assert api.as_role("core.executor").post(path).status == 403
    assert api.as_role("core.editor").post(path).status == 200
