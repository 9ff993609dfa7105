"""Tokens that outlive what they were given for: they open nothing."""

from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from chalicelib.domain.entities import Grant
from chalicelib.store.liveness import TTL, Liveness
from chalicelib.store.registry import Delete, Put


def change(api, login, **fields):
    identity = api.registry.identities.get(login)
    api.registry.commit(Put(msgspec.structs.replace(identity, **fields)))


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "abandoned", "timeout"])
def test_an_executions_token_dies_with_the_execution(api, status):
    running = api.as_execution("core.viewer")
    assert running.get("/api/v1/packs").status == 200
    running.end(status)
    later = replace(api.services, liveness=Liveness(api.services.store, lambda: 0.0))
    running.services = later
    answer = running.get("/api/v1/packs")
    assert (answer.status, answer.json["error"]["message"]) == (401, "Authentication token expired")


def test_an_execution_is_looked_at_once_a_second(api):
    clock = [0.0]
    liveness = Liveness(api.services.store, lambda: clock[0])
    running = api.as_execution()
    assert liveness.is_live(api.tenant, running.execution_id)
    running.end()
    assert liveness.is_live(api.tenant, running.execution_id)
    clock[0] = TTL
    assert not liveness.is_live(api.tenant, running.execution_id)
    assert not liveness.is_live(api.tenant, 1)


def test_an_execution_that_never_was_has_no_token(api):
    running = api.as_execution("core.viewer")
    other = api.services.tokens.issue_execution(
        tenant=api.tenant,
        execution=msgspec.structs.replace(api.activity.get_execution(running.execution_id), id=1),
        action_ref="acme.do",
        pack_ref="acme",
        now=api.services.clock(),
    )
    assert api.with_token(other).get("/api/v1/packs").status == 401


def test_an_execution_stops_with_its_executor(api):
    someone = api.as_role("core.viewer")
    running = someone.as_execution("core.viewer")
    change(api, someone.login, frozen=True)
    assert running.get("/api/v1/packs").status == 403
    change(api, someone.login, frozen=False)
    assert running.get("/api/v1/packs").status == 200
    api.registry.commit(Delete("identity", someone.login))
    assert running.get("/api/v1/packs").status == 401


def test_what_nobody_owns_runs_for_nobody(api):
    assert api.as_execution("core.viewer", executor=None).get("/api/v1/packs").status == 200


def test_an_execution_may_do_what_its_sets_say_and_no_more(api):
    """Its executor is an administrator, which is of no use to it."""
    viewer, nobody = api.as_execution("core.viewer"), api.as_execution()
    assert viewer.get("/api/v1/keys").status == 200
    assert nobody.get("/api/v1/keys").status == 403
    assert viewer.post("/api/v1/packs", json={"ref": "p1", "label": "P", "version": "1.0.0"}).status == 403
    assert viewer.get("/api/v1/identities").status == 403


def test_the_scope_of_an_execution(api):
    """Itself, what it started at any depth, and everything."""

    def may_read(scope):
        constraints = {"execution_scope": scope}
        granted = api.with_grants(Grant(resource="executions", actions=["read"], constraints=constraints))
        (sets,) = [each.permission_set_ref for each in granted.identity.assignments]
        running = api.as_execution(sets)
        child = api.as_execution(parent=running.execution_id, root=running.execution_id)
        grandchild = api.as_execution(parent=child.execution_id, root=running.execution_id)
        other = api.as_execution()
        return [
            running.get(f"/api/v1/executions/{each.execution_id}").status == 200
            for each in (running, child, grandchild, other)
        ]

    assert may_read("self") == [True, False, False, False]
    assert may_read("descendants") == [True, True, True, False]
    assert may_read("any") == [True, True, True, True]


def test_a_sensors_token_stops_with_whoever_asked_for_it(api):
    api.post("/api/v1/packs", json={"ref": "acme", "label": "Acme", "version": "1.0.0"})
    api.post("/api/v1/triggers", json={"ref": "acme.t", "pack_ref": "acme", "label": "T"})
    clerk = api.as_role("core.admin")
    clerk.post("/api/v1/packs", json={"ref": "other", "label": "Other", "version": "1.0.0"})
    clerk.post("/api/v1/triggers", json={"ref": "other.t", "pack_ref": "other", "label": "T"})
    body = {"sensor_ref": "other.s", "trigger_types": ["other.t"]}
    sensor = api.with_token(clerk.post("/auth/sensor-token", json=body).data["token"])
    event = {"trigger_ref": "other.t", "payload": {}}
    assert sensor.post("/api/v1/events", json=event).status == 201
    renewed = api.with_token(sensor.post("/auth/internal/sensor-token", json={}).data["token"])
    assert renewed.post("/api/v1/events", json=event).status == 201
    change(api, clerk.login, frozen=True)
    assert sensor.post("/api/v1/events", json=event).status == 403
    assert renewed.post("/api/v1/events", json=event).status == 403


def test_a_sensor_may_report_its_triggers_and_no_more(api):
    token = api.services.tokens.issue_sensor(
        tenant=api.tenant, identity_id=5, sensor_ref="a.s", trigger_types=["a.t"], now=api.services.clock()
    )
    sensor = api.with_token(token)
    assert sensor.get("/api/v1/keys").status == 403
    assert sensor.get("/api/v1/executions").status == 403
    old = api.services.tokens.issue_sensor(
        tenant=api.tenant,
        identity_id=5,
        sensor_ref="a.s",
        trigger_types=["a.t"],
        now=api.services.clock() - timedelta(hours=25),
    )
    assert api.with_token(old).get("/api/v1/packs").status == 401
