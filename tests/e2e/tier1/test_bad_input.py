"""Bad input: the contract's error body, nothing stored, and the platform goes on."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from helpers.client import AttuneClient, Json
from helpers.fixtures import create_echo_action, create_webhook_trigger, unique_ref
from helpers.polling import wait_for_enforcement_count, wait_for_execution_count

pytestmark = [pytest.mark.tier1, pytest.mark.validation]

CODES = {
    400: {"BAD_REQUEST"},
    401: {"UNAUTHORIZED"},
    403: {"FORBIDDEN"},
    404: {"NOT_FOUND"},
    409: {"CONFLICT"},
    422: {"UNPROCESSABLE_ENTITY", "VALIDATION_ERROR"},
}


def assert_error(answer: Json, status: int) -> None:
    """``answer`` has the status and the body of contract §1.2."""
    assert answer.status_code == status, answer.text[:500]
    body = answer.json()
    assert isinstance(body["error"], str)
    assert body["error"]
    if status in CODES:
        assert body["code"] in CODES[status]
    assert set(body) <= {"error", "code", "details"}


JSON_HEADER = {"Content-Type": "application/json"}


@pytest.mark.parametrize("body", ["{", "", "{'a': 1}", '{"ref": "x",}', "\xff\xfe", "nul"])
def test_malformed_json(client: AttuneClient, body: str) -> None:
    content = body.encode("latin-1")
    assert_error(client.request("POST", "packs", content=content, headers=JSON_HEADER), 400)


def test_malformed_webhook_body(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    trigger = create_webhook_trigger(client, test_pack["ref"])
    assert_error(client.request("POST", f"webhooks/{trigger.key}", content="{", headers=JSON_HEADER), 400)
    assert_error(client.request("POST", "webhooks/wh_" + "0" * 32, json={"payload": {}}), 404)
    assert client.list_events(trigger_ref=trigger.ref) == []


def test_wrong_content_type(client: AttuneClient) -> None:
    answer = client.request("POST", "packs", content="<pack/>", headers={"Content-Type": "application/xml"})
    assert_error(answer, 415)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("packs", {}),
        ("packs", {"ref": 5, "label": "x", "version": "1.0.0"}),
        ("packs", {"ref": "", "label": "x", "version": "1.0.0"}),
        ("packs", {"ref": "Upper_Case", "label": "x", "version": "1.0.0"}),
        ("packs", {"ref": "has space", "label": "x", "version": "1.0.0"}),
        ("packs", {"ref": "ok_ref", "label": "x", "version": "one"}),
        ("packs", {"ref": "ok_ref", "label": "x" * 256, "version": "1.0.0"}),
        ("packs", {"ref": "ok_ref", "label": "x", "version": "1.0.0", "tags": "not a list"}),
        ("actions", {"ref": "core.Echo", "pack_ref": "core", "label": "x", "entrypoint": "x"}),
        ("actions", {"ref": "no_dot", "pack_ref": "core", "label": "x", "entrypoint": "x"}),
        ("actions", {"ref": "core.two.dots", "pack_ref": "core", "label": "x", "entrypoint": "x"}),
        ("actions", {"ref": "core.x", "pack_ref": "core", "label": "x", "entrypoint": "y" * 1025}),
        ("triggers", {"ref": "core.x", "label": "x", "enabled": "yes"}),
        ("rules", {"ref": "core.x", "pack_ref": "core", "label": "x"}),
        ("rules", [1, 2]),
        ("keys", {"ref": "k.x", "owner_type": "galaxy", "name": "x", "value": 1}),
        ("keys", {"ref": "K.X", "owner_type": "system", "name": "x", "value": 1}),
        ("executions/execute", {"parameters": {}}),
        ("executions/execute", {"action_ref": "core.echo", "parameters": "text"}),
    ],
)
def test_wrong_fields(client: AttuneClient, path: str, body: Json) -> None:
    assert_error(client.request("POST", path, json=body), 422)


def test_unknown_things(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """What a route or body names and does not exist is 404, and what it would have made is not made."""
    pack = test_pack["ref"]
    trigger = create_webhook_trigger(client, pack)
    action = create_echo_action(client, pack)
    nowhere = unique_ref("nowhere")
    for kind in ("actions", "rules", "triggers", "keys", "runtimes"):
        assert_error(client.request("GET", f"{kind}/{nowhere}.x"), 404)
    for path in (f"packs/{nowhere}", "executions/1", "events/1", "enforcements/1"):
        assert_error(client.request("GET", path), 404)

    def post(path: str, **body: Json) -> Json:
        return client.request("POST", path, json={"label": "x", **body})

    assert_error(post("actions", ref=f"{nowhere}.x", pack_ref=nowhere, entrypoint="x"), 404)
    assert_error(post("actions", ref=f"{pack}.x", pack_ref=pack, entrypoint="x", runtime_ref="core.cobol"), 404)
    rule = {"ref": f"{pack}.rule", "pack_ref": pack, "trigger_ref": trigger.ref, "action_ref": action}
    assert_error(post("rules", **{**rule, "action_ref": f"{nowhere}.x"}), 404)
    assert_error(post("rules", **{**rule, "trigger_ref": f"{nowhere}.x"}), 404)
    assert_error(client.request("POST", "executions/execute", json={"action_ref": f"{nowhere}.x"}), 404)
    assert_error(client.request("GET", f"rules/{pack}.rule"), 404)


def test_duplicates(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    pack = test_pack["ref"]
    trigger = create_webhook_trigger(client, pack)
    action = create_echo_action(client, pack)
    client.create_rule(f"{pack}.rule", pack, trigger_ref=trigger.ref, action_ref=action)

    assert_error(client.request("POST", "packs", json={"ref": pack, "label": "x", "version": "1.0.0"}), 409)
    assert_error(client.request("POST", "triggers", json={"ref": trigger.ref, "label": "x"}), 409)
    twice = {"ref": action, "pack_ref": pack, "label": "x", "entrypoint": "x", "runtime_ref": "core.shell"}
    assert_error(client.request("POST", "actions", json=twice), 409)
    rule = {"ref": f"{pack}.rule", "pack_ref": pack, "label": "x", "trigger_ref": trigger.ref, "action_ref": action}
    assert_error(client.request("POST", "rules", json=rule), 409)
    assert client.get_trigger(trigger.ref)["label"] == trigger.ref, "as it was"


def test_unknown_fields_are_ignored(client: AttuneClient) -> None:
    pack = client.create_pack(unique_ref(), colour="red")
    assert "colour" not in pack
    client.delete_pack(pack["ref"])


def test_bad_query_and_path(client: AttuneClient) -> None:
    assert_error(client.request("GET", "packs", params={"page": "first"}), 400)
    assert_error(client.request("GET", "executions/not-a-number"), 400)
    assert_error(client.request("GET", "events", params={"trigger": "x"}), 400)


@pytest.mark.limits
def test_oversized_body(client: AttuneClient) -> None:
    """Beyond 10 MB the answer is an error and not an outage."""
    ref = unique_ref()
    body = json.dumps({"ref": ref, "label": "x", "version": "1.0.0", "description": "x" * 11_000_000})
    answer = client.request("POST", "packs", content=body, headers=JSON_HEADER)
    assert_error(answer, 413)
    assert_error(client.request("GET", f"packs/{ref}"), 404)


@pytest.mark.rules
@pytest.mark.parametrize(
    "conditions",
    [
        [{"field": "a", "operator": "resembles", "value": 1}],
        [{"operator": "equals", "value": 1}],
        {"expression": "event.payload.a =="},
        {"expression": "{% for x in range(3) %}{% endfor %}"},
        {"expression": 5},
        [{"any": "x"}],
    ],
)
def test_conditions_that_make_no_sense(client: AttuneClient, test_pack: dict[str, Json], conditions: Json) -> None:
    pack = test_pack["ref"]
    trigger = create_webhook_trigger(client, pack)
    action = create_echo_action(client, pack)
    rule = {"ref": f"{pack}.rule", "pack_ref": pack, "label": "x", "trigger_ref": trigger.ref, "action_ref": action}

    assert_error(client.request("POST", "rules", json={**rule, "conditions": conditions}), 422)
    assert_error(client.request("GET", f"rules/{pack}.rule"), 404)


@dataclass(frozen=True)
class Hostile:
    """Rules with hostile templates beside a harmless one, on one trigger."""

    name: str
    template: str


HOSTILE = [
    Hostile("grows", "{{ 'a' * 10**9 }}"),
    Hostile("power", "{{ 9 ** 9 ** 9 }}"),
    Hostile("loops", "{{ range(10 ** 12) | sum }}"),
    Hostile("attributes", "{{ ''.__class__.__mro__[1].__subclasses__() }}"),
    Hostile("function_globals", "{{ length.__globals__ }}"),
    Hostile("self", "{{ self.__init__.__globals__ }}"),
    Hostile("regex", "{{ match('(a+)+$', 'a' * 40 + 'b') }}"),
    Hostile("pads", "{{ '%999999999d' | format(1) }}"),
]


@pytest.mark.security
@pytest.mark.rules
def test_hostile_templates_harm_nothing(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """A template that loops, grows or reaches for attributes: an error on the enforcement, and the neighbours fire.

    Where a template can be seen to be bad when the rule is made, 422 then is as good. A dotted path that leads nowhere,
    whatever its names, is null (semantics 2.3): the parameter then has its default.
    """
    pack = test_pack["ref"]
    trigger = create_webhook_trigger(client, pack)
    action = create_echo_action(client, pack)
    witness = client.create_rule(f"{pack}.witness", pack, trigger_ref=trigger.ref, action_ref=action)["ref"]
    accepted = []
    for hostile in HOSTILE:
        body = {
            "ref": f"{pack}.{hostile.name}", "pack_ref": pack, "label": hostile.name, "trigger_ref": trigger.ref,
            "action_ref": action, "action_params": {"message": hostile.template},
        }  # fmt: skip
        answer = client.request("POST", "rules", json=body)
        assert answer.status_code in {201, 422}, f"{hostile.name}: {answer.text[:300]}"
        if answer.status_code == 201:
            accepted.append(body["ref"])

    client.post_webhook(trigger.key, {"a": 1})
    client.post_webhook(trigger.key, {"a": 2})

    wait_for_execution_count(client, 2, rule_ref=witness)
    for rule in accepted:
        met = [client.get_enforcement(row["id"]) for row in wait_for_enforcement_count(client, 2, rule_ref=rule)]
        assert len(json.dumps(met)) < 20_000, "an error does not carry the harm with it"
        processed = [enforcement for enforcement in met if enforcement["status"] == "processed"]
        assert all(enforcement["config"] == {"message": "hello"} for enforcement in processed), rule
        assert len(client.list_executions(rule_ref=rule)) == len(processed), rule


@pytest.mark.rules
@pytest.mark.parametrize(
    "look",
    [
        pytest.param(lambda c, rule: c.try_rule(rule, {"a": "x" * 100}), id="rule trial"),
        pytest.param(lambda c, rule: c.data("GET", f"rules/{rule}"), id="read"),
    ],
)
def test_payload_text_is_data(
    client: AttuneClient, test_pack: dict[str, Json], look: Callable[[AttuneClient, str], Json]
) -> None:
    """A payload that looks like a template is not evaluated, wherever it comes out again."""
    pack = test_pack["ref"]
    trigger = create_webhook_trigger(client, pack)
    action = create_echo_action(client, pack)
    rule = client.create_rule(
        f"{pack}.rule", pack, trigger_ref=trigger.ref, action_ref=action,
        action_params={"message": "{{ event.payload.a }}"},
    )["ref"]  # fmt: skip

    client.post_webhook(trigger.key, {"a": "{{ 7 * 7 }}"})

    (row,) = wait_for_execution_count(client, 1, rule_ref=rule)
    assert client.get_execution(row["id"])["result"]["stdout"] == "{{ 7 * 7 }}\n"
    assert "{{ 7 * 7 }}" not in json.dumps(look(client, rule))
