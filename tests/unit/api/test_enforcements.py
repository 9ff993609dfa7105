"""Enforcements over the adapter."""

from datetime import timedelta

import msgspec
import pytest
from unit.api.resources import make_action, make_pack

from chalicelib.domain import ids
from chalicelib.domain.entities import Enforcement, Execution

WIRE = {
    "id", "rule", "rule_ref", "trigger_ref", "config", "event", "status", "payload", "condition", "conditions",
    "created", "resolved_at",
}  # fmt: skip


def store(api, *, age, error=None, config=None, **fields):
    """An enforcement as if made ``age`` seconds ago: with its execution or, given an ``error``, without."""
    at = api.services.clock() - timedelta(seconds=age)
    id_ = ids.derive(int(at.timestamp() * 1000), "event")
    enforcement = Enforcement(
        **{
            "id": id_, "rule": 3, "rule_ref": "mine.rule", "trigger_ref": "mine.called", "event": id_, "created": at,
            "status": "disabled" if error else "processed", "payload": {"n": 1}, "conditions": {"expression": "true"},
            "resolved_at": at, "error": error, **fields,
        }
    )  # fmt: skip
    execution = Execution(
        id=id_, created=at, updated=at, action_ref="mine.greet", status="requested", enforcement=id_, config=config
    )
    pair = (enforcement, None if error else execution, f"{enforcement.rule}/{id_}")
    return api.activity.start([pair])[0].enforcement


def test_one_enforcement_with_what_its_execution_got(api):
    enforcement = store(api, age=10, config={"name": "Ada"})
    data = api.get(f"/api/v1/enforcements/{enforcement.id}").data
    assert set(data) == WIRE
    assert data["config"] == {"name": "Ada"}
    assert (data["status"], data["condition"], data["conditions"]) == ("processed", "all", {"expression": "true"})
    assert (data["payload"], data["event"], data["rule"]) == ({"n": 1}, enforcement.event, 3)
    assert data["resolved_at"].endswith("Z")
    assert api.get("/api/v1/enforcements/1").status == 404


def test_what_went_wrong_is_shown(api):
    enforcement = store(api, age=10, error="criteria: payload.n is missing")
    data = api.get(f"/api/v1/enforcements/{enforcement.id}").data
    assert (data["status"], data["error"]) == ("disabled", "criteria: payload.n is missing")
    assert data["config"] is None
    assert api.get("/api/v1/enforcements").items[0]["error"] == "criteria: payload.n is missing"


def test_secret_parameters_are_masked(api):
    make_pack(api)
    make_action(api, param_schema={"pin": {"type": "string", "secret": True}})
    path = f"/api/v1/enforcements/{store(api, age=10, config={'pin': '1234'}).id}"
    assert api.get(path).data["config"] == {"pin": {"$attune_secret": True, "redacted": True}}
    assert api.get(f"{path}?include_secret_values=true").data["config"] == {"pin": "1234"}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["new", "old"]),
        ("per_page=1", ["new"]),
        ("per_page=1&page=2", ["old"]),
        ("rule=3", ["old"]),
        ("rule_ref=mine.other", ["new"]),
        ("trigger_ref=mine.rung", ["new"]),
        ("status=processed", ["old"]),
        ("status=disabled", ["new"]),
        ("event={old}", ["old"]),
    ],
)
def test_every_filter(api, query, names):
    rows = {
        "old": store(api, age=30),
        "new": store(api, age=10, error="no", rule=4, rule_ref="mine.other", trigger_ref="mine.rung"),
    }
    answer = api.get(f"/api/v1/enforcements?{query.format(old=rows['old'].event)}")
    assert [item["id"] for item in answer.items] == [rows[name].id for name in names]
    assert set(answer.items[-1]) - {"error"} == WIRE - {"config", "payload", "conditions", "resolved_at"}


def test_totals_on_request(api):
    store(api, age=10)
    assert api.get("/api/v1/enforcements?include_total=true").json["pagination"]["total_items"] == 1
    assert "total_items" not in api.get("/api/v1/enforcements").json["pagination"]
    assert api.get("/api/v1/enforcements?status=open").status == 400


def test_enforcements_are_for_those_who_may_read_them(api):
    enforcement = store(api, age=10)
    viewer = api.as_role("core.viewer")
    assert viewer.get("/api/v1/enforcements").status == 403
    assert viewer.get(f"/api/v1/enforcements/{enforcement.id}").status == 403
    stranger = api.as_role("core.admin", tenant=f"{api.tenant}-other")
    assert stranger.get(f"/api/v1/enforcements/{enforcement.id}").status == 404
    assert stranger.get("/api/v1/enforcements").items == []


def test_an_execution_of_the_same_id_that_is_not_the_enforcements_stays_out_of_it(api):
    enforcement = store(api, age=10, error="no")
    at = api.services.clock()
    stranger = Execution(
        id=enforcement.id, created=at, updated=at, action_ref="mine.greet", status="completed", config={"name": "Eve"}
    )
    api.activity.create_execution(msgspec.structs.replace(stranger))
    assert api.get(f"/api/v1/enforcements/{enforcement.id}").data["config"] is None
