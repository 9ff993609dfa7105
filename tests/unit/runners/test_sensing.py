"""Polls of sensors, from the message to the report."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chalicelib.protocol import Poll, Run, SensorPolled
from runners import handler, results, sensing
from runners.handler import Runner
from runners.sandbox import Job

Look = Callable[..., SensorPolled]

RULES = [{"id": 5, "ref": "p.r", "trigger_ref": "p.seen", "trigger_params": {"interval": 3}}]
DOCUMENT: dict[str, Any] = {"sensor": {"ref": "p.eye"}, "rules": RULES, "state": {"n": 1}, "keys": {}}


def order(kind: str, code: str, **fields: Any) -> Poll:
    given = {"tenant": "acme", "execution": 7, "attempt": 4, "token": "one-time-token", "action_ref": "p.eye"}
    run = Run(**given | {"runner": kind, "entrypoint": code, "timeout": 20.0, "parameters": DOCUMENT} | fields)
    return Poll(run=run)


@pytest.fixture
def look(runner: Runner) -> Look:
    return lambda kind, code, **fields: runner.poll(order(kind, textwrap.dedent(code), **fields))


def test_events_state_and_log(look: Look) -> None:
    code = """
        import json, sys
        given = json.load(sys.stdin)
        print("looking", json.dumps({"event": 1}))
        print(json.dumps({"event": {"payload": given["state"], "rule": given["rules"][0]["id"]}}))
        print('{"not": "a report"}')
        print('{"state": {"n": 2}}')
        print('{"next_poll": 2.5}', flush=True)
        print("complaint", file=sys.stderr)
    """
    report = look("python", code)
    assert (report.tenant, report.ref, report.id, report.turn, report.token) == (
        "acme",
        "p.eye",
        7,
        4,
        "one-time-token",
    )
    assert (report.error, report.exit_code) == (None, 0)
    assert report.events == [{"payload": {"n": 1}, "rule": 5}]
    assert (report.state, report.next_poll) == ({"n": 2}, 2.5)
    assert report.stdout == 'looking {"event": 1}\n{"not": "a report"}\n'
    assert report.stderr == "complaint\n"


def test_a_shell_sensor(look: Look) -> None:
    report = look("shell", """echo '{"event": {"payload": '"$state"'}}'""")
    assert report.events == [{"payload": {"n": 1}}]


def test_a_poll_that_fails_reports_nothing_else(look: Look) -> None:
    report = look("python", """print('{"event": {}}'); print('{"state": {}}'); raise SystemExit("no route")""")
    assert (report.error, report.exit_code, report.events, report.state) == ("no route", 1, [], None)


def test_a_poll_that_takes_too_long(look: Look) -> None:
    report = look("python", "import time; time.sleep(60)", timeout=0.3)
    assert report.error is not None
    assert "timed out after 0.3 seconds" in report.error


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        ("print('{\"state\": []}')", "must be a JSON object"),
        ('print(\'{"next_poll": "soon"}\')', "number of seconds"),
        ("print('{\"next_poll\": true}')", "number of seconds"),
        ("import json; print(json.dumps({'state': {'a': 'x' * 70000}}))", "may take 65536"),
        ("for _ in range(501): print('{\"event\": {}}')", "501 events"),
        ("for _ in range(10): print('{\"event\": \"%s\"}' % ('x' * 100000))", "may report 900000"),
    ],
)
def test_reports_beyond_what_is_taken(look: Look, printed: str, reason: str) -> None:
    report = look("python", printed)
    assert report.error is not None
    assert reason in report.error
    assert (report.events, report.state) == ([], None)


def test_secrets_are_masked_in_all_that_it_says(look: Look) -> None:
    code = """
        import json
        secret = "hunter2hunter2"
        print(json.dumps({"event": {"payload": {"a": secret}}}))
        print(json.dumps({"state": {"b": secret}}))
        print(secret)
    """
    report = look("python", code, secrets=["hunter2hunter2"])
    assert "hunter2" not in results.encoded(report)
    assert report.events == [{"payload": {"a": "********"}}]


def test_a_long_log_is_cut(look: Look) -> None:
    report = look("python", "print('x' * 100000)")
    assert len(report.stdout) < sensing.MAX_LOG + 100
    assert "left out" in report.stdout


def test_the_handler_takes_polls(monkeypatch: pytest.MonkeyPatch, runner: Runner) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(results, "send", sent.append)
    monkeypatch.setattr(handler, "_runner", runner)
    import msgspec

    handler.handle(msgspec.to_builtins(order("python", "print('{\"event\": {}}')")), None)
    assert [report.events for report in sent] == [[{}]]


# attune-sdk

SDK = """
import json, sys, time
from dataclasses import dataclass, field

@dataclass
class RuleState:
    rule_id: int
    rule_ref: str
    trigger_ref: str = ""
    trigger_params: dict = field(default_factory=dict)
    enabled: bool = True

class Sensor:
    interval = 5.0
    def __init__(self):
        import logging
        self.logger, self._http_client, self._async_http_client = logging.getLogger("s"), None, None
    def _get_rule_interval(self, rule):
        return float(rule.trigger_params.get("interval", self.interval))

class PollingSensor(Sensor):
    def setup(self): pass
    def cleanup(self): pass

class AsyncPollingSensor(Sensor):
    async def setup(self): pass
    async def cleanup(self): pass

def run_sensor(sensor_class):
    raise AssertionError("it would run for ever")
"""


@pytest.fixture
def sdk_look(runner: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Look:
    """Polls with a package ``attune`` that has the parts of attune-sdk's the driver stands on."""
    folder = tmp_path_factory.mktemp("libraries")
    folder.chmod(0o755)
    for parent in folder.parents[:3]:
        parent.chmod(0o755)
    (folder / "attune").mkdir()
    (folder / "attune" / "sensor.py").write_text(SDK)
    (folder / "attune" / "__init__.py").write_text("from .sensor import *\n")
    adapted = sensing.adapted

    def with_sdk(job: Job, pack: Path | None, _libraries: Path | None) -> Job:
        import msgspec

        job = adapted(job, pack, folder)
        return msgspec.structs.replace(job, packages=[str(folder)], visible=[*job.visible, str(folder)])

    monkeypatch.setattr(sensing, "adapted", with_sdk)
    return lambda code, **fields: runner.poll(order("python", textwrap.dedent(code), **fields))


POLLING = """
    import attune, json

    class Eye(attune.PollingSensor):
        def setup(self):
            print("set up")
        def poll(self, rule):
            self.state["seen"] = self.state.get("seen", 0) + 1
            print(json.dumps({"event": {"rule": rule.rule_ref, "payload": rule.trigger_params}}))
        def cleanup(self):
            print("cleaned up")

    if __name__ == "__main__":
        attune.run_sensor(Eye)
"""


def test_a_polling_sensor_looks_once(sdk_look: Look) -> None:
    report = sdk_look(POLLING)
    assert report.error is None, report
    assert report.events == [{"rule": "p.r", "payload": {"interval": 3}}]
    assert report.stdout == "set up\ncleaned up\n"
    assert report.state is not None
    assert report.state["state"] == {"seen": 1}
    assert report.next_poll == pytest.approx(3, abs=1)


def test_each_rule_has_its_own_interval(sdk_look: Look) -> None:
    first = sdk_look(POLLING)
    again = sdk_look(POLLING, parameters={**DOCUMENT, "state": first.state})
    assert (again.error, again.events) == (None, [])  # it is not due yet
    assert again.state == first.state
    gone = sdk_look(POLLING, parameters={**DOCUMENT, "state": first.state, "rules": []})
    assert gone.state == {"due": {}, "state": {"seen": 1}}


def test_an_async_sensor(sdk_look: Look) -> None:
    code = """
        import asyncio, json
        from attune import AsyncPollingSensor, run_sensor

        class Eye(AsyncPollingSensor):
            async def poll(self, rule):
                await asyncio.sleep(0)
                print(json.dumps({"event": {"rule": rule.rule_id}}))

        run_sensor(Eye)
    """
    assert sdk_look(code).events == [{"rule": 5}]


def test_one_rules_failure_is_not_the_others(sdk_look: Look) -> None:
    code = """
        import attune
        class Eye(attune.PollingSensor):
            def poll(self, rule):
                if rule.rule_id == 5:
                    raise ValueError("bad rule")
                print('{"event": {}}')
        attune.run_sensor(Eye)
    """
    alone = sdk_look(code)
    assert alone.error is not None
    assert "bad rule" in alone.stderr
    both = sdk_look(code, parameters={**DOCUMENT, "rules": [*RULES, {**RULES[0], "id": 6}]})
    assert (both.error, both.events) == (None, [{}])
    assert "bad rule" in both.stderr


def test_a_sensor_with_a_loop_of_its_own_says_so(sdk_look: Look) -> None:
    report = sdk_look("import attune\nclass Eye(attune.Sensor): pass\nattune.run_sensor(Eye)\n")
    assert report.error is not None
    assert "loop of its own" in report.error


def test_a_sensor_that_only_has_the_sdk_beside_it(sdk_look: Look) -> None:
    code = "import json, sys\nprint(json.dumps({'event': json.load(sys.stdin)['state']}))\n"
    assert sdk_look(code).events == [{"n": 1}]
