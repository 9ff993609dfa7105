"""A canary secret goes every way that a secret can go; afterwards everything that the deployment keeps and all that its
API tells is read, and the canary must not be in it (issue 3, "How it is judged")."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from helpers import engine
from helpers.client import AttuneClient, Json
from helpers.fixtures import create_python_action, create_webhook_trigger, pack_archive, unique_ref
from helpers.footprint import Footprint, places_of
from helpers.polling import (
    wait_for,
    wait_for_execution_completion,
    wait_for_execution_count,
    wait_for_execution_status,
)
from helpers.stack import Stack

pytestmark = [pytest.mark.tier3, pytest.mark.security, pytest.mark.secrets]

# What careless code does with a secret, and how that ends.
WAYS = {
    "success": ("print(token, token.encode().hex(), base64.b64encode(token.encode()).decode())", "completed"),
    "failure": ("print(token, file=sys.stderr); print(token); sys.exit(3)", "failed"),
    "traceback": ("raise RuntimeError(token)", "failed"),
    "timeout": ("print(token, flush=True); time.sleep(60)", "failed"),
    "a lot": ("[print(token, i) for i in range(5000)]", "completed"),
}
HEAD = "import base64, json, sys, time\ntoken = json.load(sys.stdin)['token']\n"
SENSOR = """import json, sys
given = json.load(sys.stdin)
token, polls = given['keys']['token'], given['state'].get('polls', 0) + 1
print(token, file=sys.stderr)
print(json.dumps({'state': {'polls': polls, 'last': token}}))
print(json.dumps({'event': {'payload': {'token': token}}}))
if polls == 2:
    raise RuntimeError(token)
"""
SENSOR_FILE = """ref: eye
label: Eye
runner_type: python
entry_point: eye.py
trigger_types: [seen]
poll_interval: 1
"""


@dataclass
class Flight:
    """The canary, and where it flew: ids of executions and refs of what was made for it.

    ``core`` is a part of it that looks the same in every kind of text.
    """

    core: str
    pack: str
    key: str
    executions: list[int] = field(default_factory=list)
    rules: list[str] = field(default_factory=list)
    packs: list[str] = field(default_factory=list)  # besides its own
    told: list[str] = field(default_factory=list)  # further paths of the API that speak of it

    @property
    def canary(self) -> str:
        return f'p+"{self.core}"/ü&'


@pytest.fixture
def flight(client: AttuneClient, stack: Stack) -> Iterator[Flight]:
    if not stack.is_local or stack.state is None:
        pytest.skip("reads all that there is, which is for stacks on this machine")
    pack = client.create_pack(
        unique_ref("canary"),
        conf_schema={"token": {"type": "string", "secret": True}, "region": {"type": "string"}},
    )["ref"]
    flight = Flight(core=unique_ref("CaNaRy"), pack=pack, key=f"{unique_ref('sys')}.token")
    client.create_secret(flight.key, flight.canary)
    yield flight
    client.delete_secret(flight.key)
    for ref in (pack, *flight.packs):
        client.delete_pack(ref)


def test_no_trace_of_a_secret(client: AttuneClient, stack: Stack, flight: Flight) -> None:
    """By a key of the request, of the pack, of a rule's template, by a secret parameter and a pack's configuration;
    through success, failure, traceback, timeout, much output, and all that :data:`FLIGHTS` names."""
    footprint = Footprint(stack)
    for fly in FLIGHTS:
        fly(client, flight)

    found = places_of(flight.core, footprint.places())
    told = places_of(flight.core, answers(client, flight))

    assert places_of(flight.pack, footprint.items()), "the search finds what is there"
    assert (found, told) == ([], [])


def test_no_secret_in_messages(client: AttuneClient, stack: Stack, flight: Flight) -> None:
    """What waits between the boxes: a request for an execution, an event's rules, a result."""
    footprint = Footprint(stack)
    action = create_python_action(
        client, flight.pack, "tell", HEAD + "print(token)", {"token": {"type": "string", "secret": True}}
    )
    with footprint.held("ExecutionsQueue") as queue:
        started = client.execute(action, {"token": flight.canary})
        requested = footprint.wait_for_message(queue, str(started["id"]))
    with footprint.held("ResultsQueue") as queue:
        again = client.execute(action, {"token": flight.canary})
        reported = footprint.wait_for_message(queue, str(again["id"]))
    for execution in (started, again):
        wait_for_execution_status(client, execution["id"], "succeeded", timeout=60)

    assert "********" in reported, "the report holds the output, masked"
    assert places_of(flight.core, iter([("request", requested), ("result", reported)])) == []


def test_no_secret_in_the_record_of_a_lost_run(client: AttuneClient, stack: Stack, flight: Flight) -> None:
    """A runner dies in the middle of a run: what Lambda records of the invocation waits in no queue in clear."""
    footprint = Footprint(stack)
    code = HEAD + "import os\nprint(token, flush=True)\ntime.sleep(8)\n"
    action = create_python_action(client, flight.pack, "linger", code)
    with footprint.held("ResultsQueue") as queue:
        started = client.create_execution({"action": action, "secrets": [flight.key]})
        log = f"executions/{started['id']}/logs/stdout"
        wait_for(lambda: "***" in client.request("GET", log).text, timeout=20, what="the action to print")
        before = client.get_execution(started["id"])
        for runner in runners_of(stack):
            os.kill(runner, signal.SIGKILL)

        def noticed() -> bool:
            moved = client.get_execution(started["id"])["updated"] != before["updated"]
            return moved or bool(list(footprint.messages(queue)))

        wait_for(noticed, timeout=30, what="the loss to be noticed")
        found = places_of(flight.core, footprint.places())
    wait_for_execution_completion(client, started["id"], timeout=60)

    assert found == []


def fly_through_programs(client: AttuneClient, flight: Flight) -> None:
    schema = {"token": {"type": "string", "secret": True}}
    started = []
    for number, (way, (code, end)) in enumerate(WAYS.items()):
        named = create_python_action(client, flight.pack, f"named{number}", HEAD + code)
        given = create_python_action(client, flight.pack, f"given{number}", HEAD + code, schema)
        timeout = {"timeout": 2} if way == "timeout" else {}
        started.append((client.execute(named, secrets=[flight.key], **timeout)["id"], end))
        started.append((client.execute(given, {"token": flight.canary}, **timeout)["id"], end))
    shell = f"{flight.pack}.shell"
    client.create_action(shell, flight.pack, entrypoint='set -x; echo "$token"; no-such-command "$token"')
    started.append((client.execute(shell, secrets=[flight.key])["id"], "failed"))
    for id_, end in started:
        wait_for_execution_status(client, id_, end, timeout=60)
        flight.executions.append(id_)


def fly_over_http(client: AttuneClient, flight: Flight) -> None:
    """To the API, which answers with an error that repeats what was sent, or not at all."""
    url = client.base_url
    by_query = {"type": "api_key", "in": "query", "name": "key", "value": flight.canary}
    calls: list[dict[str, Json]] = [
        {"url": f"{url}/auth/me", "auth": {"type": "bearer", "token": flight.canary}},
        {"url": f"{url}/auth/me", "auth": {"type": "basic", "username": "me", "password": flight.canary}},
        {
            "url": f"{url}/api/v1/packs",
            "auth": by_query,
        },
        {"url": "http://no-such-host.invalid/", "auth": {"type": "bearer", "token": flight.canary}},
    ]
    for call in calls:
        id_ = client.execute("core.http_request", call)["id"]
        wait_for_execution_completion(client, id_)
        flight.executions.append(id_)


def fly_by_rule(client: AttuneClient, flight: Flight) -> None:
    """By the keystore and by the pack's configuration, which is set by hand."""
    client.data("PUT", f"packs/{flight.pack}", json={"config": {"token": flight.canary, "region": "eu"}})
    trigger = create_webhook_trigger(client, flight.pack)
    schema = {"token": {"type": "string", "secret": True}, "region": {"type": "string"}}
    echo = create_python_action(client, flight.pack, "echo", HEAD + "print('got', token)", schema)
    templates = {
        "key": f"{{{{ keystore.{flight.key} }}}}",
        "config": "{{ pack.config.token }}",
        "literal": flight.canary,
    }
    for name, template in templates.items():
        params = {"token": template, "region": "{{ pack.config.region }}"}
        rule = client.create_rule(
            f"{flight.pack}.{name}", flight.pack, trigger_ref=trigger.ref, action_ref=echo, action_params=params
        )
        flight.rules.append(rule["ref"])
    compared = client.create_rule(
        f"{flight.pack}.compared",
        flight.pack,
        trigger_ref=trigger.ref,
        action_ref=echo,
        conditions={"expression": f"keystore.{flight.key} == event.payload.x"},
        action_params={"token": "{{ event.payload.x }}"},
    )
    flight.rules.append(compared["ref"])
    client.post_webhook(trigger.key, {"x": "something else"})
    rows = wait_for_execution_count(client, 3, trigger_ref=trigger.ref)
    for row in rows:
        execution = client.get_execution(row["id"])
        assert "got ********" in execution["result"]["stdout"]
        assert execution["config"]["region"] == "eu"
        flight.executions.append(row["id"])


def fly_in_a_pack(client: AttuneClient, flight: Flight) -> None:
    """The pack is installed again with the same configuration, which stays; its own key goes by name."""
    ref = flight.pack
    files = {
        "pack.yaml": f"ref: {ref}\nlabel: Canary\nversion: 1.0.1\nconf_schema:\n"
        "  token: {type: string, secret: true}\n  region: {type: string}\n",
        "actions/show.yaml": f"ref: {ref}.show\nlabel: Show\nrunner_type: python\nentry_point: show.py\n",
        "actions/show.py": HEAD + "print(token)\n",
    }
    client.upload_pack(pack_archive(files), force=True, strict=True)
    client.create_secret(f"{ref}.token", flight.canary, owner_type="pack", owner_pack_ref=ref)
    id_ = client.execute(f"{ref}.show")["id"]
    assert "********" in wait_for_execution_status(client, id_, "succeeded")["result"]["stdout"]
    flight.executions.append(id_)


def fly_off_early(client: AttuneClient, flight: Flight) -> None:
    """Out of a run that is cancelled when the secret has been printed."""
    code = HEAD + "print('begun', token, flush=True)\nprint(token, file=sys.stderr, flush=True)\ntime.sleep(60)\n"
    id_ = client.execute(create_python_action(client, flight.pack, "early", code), secrets=[flight.key])["id"]
    log = f"executions/{id_}/logs/stdout"
    wait_for(lambda: "begun" in client.request("GET", log).text, timeout=60, what="the action to print")
    client.cancel_execution(id_)
    assert wait_for_execution_status(client, id_, "cancelled", timeout=60)["result"]["cancelled"] is True
    flight.executions.append(id_)


def fly_in_bulk(client: AttuneClient, flight: Flight) -> None:
    """In a result that no queue could hold."""
    ref = f"{flight.pack}.bulk"
    code = HEAD + "print(json.dumps({'all': [[token, 'x' * 10_000]] * 150}))\n"
    client.create_action(ref, flight.pack, entrypoint=code, runtime_ref="core.python", output_format="json")
    id_ = client.execute(ref, secrets=[flight.key])["id"]
    result = wait_for_execution_status(client, id_, "succeeded", timeout=60)["result"]
    assert (len(result["data"]["all"]), result["data"]["all"][-1][0]) == (150, "********")
    flight.executions.append(id_)


def fly_by_sensor(client: AttuneClient, flight: Flight) -> None:
    """By a key of the sensor's pack, into its log, its state, its events, and out of a poll that fails."""
    ref = unique_ref("eyes")
    files = {
        "pack.yaml": f"ref: {ref}\nlabel: Eyes\nversion: 1.0.0\n",
        "triggers/seen.yaml": f"ref: {ref}.seen\nlabel: Seen\n",
        "sensors/eye.yaml": SENSOR_FILE,
        "sensors/eye.py": SENSOR,
    }
    client.upload_pack(pack_archive(files), strict=True)
    flight.packs.append(ref)
    client.create_secret(f"{ref}.token", flight.canary, owner_type="pack", owner_pack_ref=ref)
    rule = client.create_rule(f"{ref}.on", ref, trigger_ref=f"{ref}.seen", action_ref="core.noop")["ref"]
    sensor = f"sensors/{ref}.eye"
    wait_for(lambda: client.data("GET", f"{sensor}/status")["failures"] > 0, timeout=60, what="the sensor to fail")
    rows = wait_for_execution_count(client, 1, trigger_ref=f"{ref}.seen")
    client.call("POST", f"{sensor}/disable")
    flight.rules.append(rule)
    flight.executions += [row["id"] for row in rows]
    flight.told += [sensor, f"triggers/{ref}.seen"]
    flight.told += [f"{sensor}/{what}" for what in ("status", "logs/stdout", "logs/stderr")]
    assert "********" in client.request("GET", f"{sensor}/logs/stderr").text


def fly_in_a_container(client: AttuneClient, flight: Flight) -> None:
    """Through a container that succeeds and one that fails, where there is an engine for them."""
    if engine.missing_engine() is not None:
        return
    for name, last in {"sails": "", "sinks": "raise RuntimeError(token)\n"}.items():
        ref = f"{flight.pack}.{name}"
        client.create_action(
            ref,
            flight.pack,
            entrypoint=HEAD + "print(token, file=sys.stderr)\nprint(token)\n" + last,
            runtime_ref="core.container",
            container={"image": engine.IMAGE, "interpreter": ["python3", "-c"]},
        )
        id_ = client.execute(ref, secrets=[flight.key])["id"]
        wait_for_execution_status(client, id_, "failed" if last else "succeeded", timeout=90)
        flight.executions.append(id_)


def fly_through_a_workflow(client: AttuneClient, flight: Flight) -> None:
    """As a secret parameter of a nested run and by the keystore, into variables, items, a retry and the result."""
    schema = {"token": {"type": "string", "secret": True}, "n": {"type": "integer"}}
    tell = create_python_action(client, flight.pack, "tell", HEAD + "print(token)", schema)
    fail = create_python_action(client, flight.pack, "fail", HEAD + "raise RuntimeError(token)", schema)
    given = {"token": "{{ parameters.token }}"}
    inner = client.create_workflow(
        f"{flight.pack}.inner",
        {
            "tasks": [
                {
                    "name": "tell",
                    "action": tell,
                    "input": given,
                    "next": [{"publish": [{"said": "{{ result().stdout }}"}], "do": ["each", "fail"]}],
                },
                {
                    "name": "each",
                    "action": tell,
                    "with_items": [1, 2],
                    "input": {"token": f"{{{{ keystore.{flight.key} }}}}", "n": "{{ item }}"},
                },
                {
                    "name": "fail",
                    "action": fail,
                    "input": given,
                    "retry": {"count": 1},
                    "next": [{"when": "{{ failed() }}", "publish": [{"why": "{{ result().error }}"}], "do": "end"}],
                },
                {"name": "end", "action": "core.noop"},
            ],
            "output_map": {"said": "{{ said }}", "why": "{{ why }}"},
        },
        param_schema=schema,
    )["ref"]
    outer_tasks = [{"name": "in", "action": inner, "input": given}]
    outer = client.create_workflow(
        f"{flight.pack}.outer",
        {"tasks": outer_tasks, "output_map": {"inner": "{{ task.in }}"}},
        param_schema=schema,
    )["ref"]
    run = client.execute(outer, {"token": flight.canary})["id"]
    ended = wait_for_execution_status(client, run, "completed", timeout=90)
    assert ended["result"]["inner"]["said"].strip() == "********"
    nested = client.children_of(run)["in"][0]["id"]
    tasks = client.children_of(nested)
    assert {name: len(runs) for name, runs in tasks.items()} == {"tell": 1, "each": 2, "fail": 2, "end": 1}
    flight.executions += [run, nested, *(each["id"] for runs in tasks.values() for each in runs)]
    flight.told += [f"executions/{run}/history", f"executions/{nested}/history", f"workflows/{inner}"]


# Whoever gives secrets a new way to go adds a flight, and puts into `Flight` what the API then has to say about it.
FLIGHTS = (
    fly_through_programs,
    fly_over_http,
    fly_by_rule,
    fly_in_a_pack,
    fly_off_early,
    fly_in_bulk,
    fly_by_sensor,
    fly_in_a_container,
    fly_through_a_workflow,
)


def answers(client: AttuneClient, flight: Flight) -> Iterator[tuple[str, str]]:
    """All that the API says about what was made and what ran, to an administrator who does not ask to decrypt. The two
    routes that show a secret to who may see it, of the key and of the pack that was configured, are not among it."""
    paths = [
        "packs",
        f"packs/{flight.pack}/actions",
        "keys",
        "executions",
        "enforcements",
        "events",
        *flight.told,
        *(f"rules/{rule}" for rule in flight.rules),
        *(f"executions/{id_}" for id_ in flight.executions),
        *(f"executions/{id_}/logs/{stream}" for id_ in flight.executions for stream in ("stdout", "stderr")),
    ]
    for path in paths:
        yield f"GET {path}", client.request("GET", path).text
    for id_ in flight.executions:
        enforcement = client.get_execution(id_)["enforcement"]
        if enforcement is not None:
            yield f"enforcement {enforcement}", json.dumps(client.get_enforcement(enforcement), ensure_ascii=False)
            event = client.get_enforcement(enforcement)["event"]
            yield f"event {event}", json.dumps(client.get_event(event), ensure_ascii=False)
    for rule in flight.rules:
        tried = client.request("POST", f"rules/{rule}/test", json={"payload": {"x": "y"}})
        yield f"test of {rule}", tried.text


def runners_of(stack: Stack) -> list[int]:
    """The processes of ``stack``'s runner function, which live in its workspace."""
    assert stack.state is not None
    workspace = (stack.state / "workspace").read_text().strip()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"{workspace}/ministack-lambda-attune-Runner-" in path.read_text():
                found.append(int(path.parent.name))
    return found
