from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain import installation, packs
from chalicelib.domain.entities import Action, Pack, Rule, Runtime, Sensor, Trigger, WorkflowDefinition
from chalicelib.domain.installation import Outcome, Owned, Present

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
RUNTIMES = {
    (Runtime, ref): Runtime(id=number, ref=ref, name=ref, created=NOW, updated=NOW, revision=1, pack_ref="core")
    for number, ref in enumerate(["core.shell", "core.python", "core.native"], start=900)
}
ECHO = Action(
    id=800,
    ref="core.echo",
    pack=1,
    pack_ref="core",
    label="Echo",
    entrypoint="echo.py",
    created=NOW,
    updated=NOW,
    revision=1,
    param_schema={"message": {"type": "string", "required": True}},
)

ids = count(1000)


def pack(content: str = "c1") -> Pack:
    return Pack(id=5, ref="demo", label="Demo", version="1.0.0", created=NOW, updated=NOW, content=content)


def install(
    *present: Owned, now: datetime = NOW, content: str = "c1", rules: Iterable[Rule] = (), **files: str
) -> Outcome:
    """File names are written with ``__`` for the slash and no ``.yaml``; ``present`` is what the registry holds."""
    named = {f"{name.replace('__', '/')}.yaml": text.encode() for name, text in files.items()}
    source = packs.read({"pack.yaml": b"ref: demo\nversion: 1.0.0\n", "actions/run.sh": b"echo", **named})
    assert source.warnings == [] or source.broken
    system: dict[Any, Owned] = {**RUNTIMES, (Action, "core.echo"): ECHO}
    owned = {(type(entity), entity.ref): entity for entity in present}
    return installation.plan(
        source,
        pack(content),
        Present(owned, [*rules], lambda kind, ref: owned.get((kind, ref)) or system.get((kind, ref))),
        new_id=lambda: next(ids),
        owner=77,
        now=now,
    )


def stored(outcome: Outcome) -> list[Any]:
    """What the registry holds once ``outcome`` is written."""
    return [msgspec.structs.replace(entity, revision=entity.revision + 1) for entity in outcome.installed]


def refs(entities: Iterable[Owned]) -> list[str]:
    return [entity.ref for entity in entities]


EVERYTHING = {
    "runtimes__x": "ref: x\n",
    "triggers__t": "ref: t\n",
    "actions__a": "ref: a\nentry_point: run.sh\n",
    "rules__r": "ref: r\ntrigger_ref: t\naction_ref: a\n",
    "sensors__s": "ref: s\ntrigger_type: t\n",
}


def test_a_first_installation_links_everything() -> None:
    outcome = install(**EVERYTHING)
    runtime, trigger, action, rule, sensor = outcome.installed
    assert outcome.written == outcome.installed
    assert outcome.deleted == []
    assert isinstance(action, Action)
    assert (action.pack, action.pack_ref, action.runtime, action.content) == (5, "demo", 900, "c1")
    assert isinstance(rule, Rule)
    assert (rule.action, rule.trigger, rule.owner_identity, rule.enabled) == (action.id, trigger.id, 77, True)
    assert isinstance(trigger, Trigger)
    assert (trigger.sensor, trigger.sensor_ref) == (sensor.id, "demo.s")
    assert runtime.revision == 0


def test_what_needs_no_file_has_no_archive() -> None:
    (action,) = install(actions__n="ref: n\nrunner_type: native\n").installed
    assert isinstance(action, Action)
    assert (action.runtime, action.content) == (902, None)


def test_the_same_again_writes_nothing() -> None:
    before = stored(install(**EVERYTHING))
    outcome = install(*before, now=LATER, **EVERYTHING)
    assert (outcome.written, outcome.deleted) == ([], [])


def test_ids_and_birthdays_stay_when_the_rest_changes() -> None:
    (before,) = stored(install(triggers__t="ref: t\nlabel: Old\n"))
    (after,) = install(before, now=LATER, triggers__t="ref: t\nlabel: New\n").written
    assert isinstance(after, Trigger)
    assert (after.id, after.created, after.updated, after.revision) == (before.id, NOW, LATER, before.revision)
    assert after.label == "New"


def test_what_is_gone_goes_but_not_what_the_api_made() -> None:
    first = stored(install(triggers__t="ref: t\n", actions__a="ref: a\nentry_point: run.sh\n"))
    adhoc = msgspec.structs.replace(first[1], id=4, ref="demo.adhoc", is_adhoc=True)
    outcome = install(*first, adhoc, triggers__t="ref: t\n")
    assert refs(outcome.deleted) == ["demo.a"]


def test_a_file_takes_over_what_the_api_made_under_its_ref() -> None:
    (action,) = stored(install(actions__a="ref: a\nentry_point: run.sh\n"))
    adhoc = msgspec.structs.replace(action, is_adhoc=True, content=None, entrypoint="echo by hand")
    (after,) = install(adhoc, actions__a="ref: a\nentry_point: run.sh\n").written
    assert isinstance(after, Action)
    assert (after.id, after.is_adhoc, after.content) == (action.id, False, "c1")


def test_a_webhook_survives() -> None:
    (trigger,) = stored(install(triggers__t="ref: t\n"))
    hooked = msgspec.structs.replace(
        trigger, webhook_enabled=True, webhook_key="wh_1", webhook_config={"hmac": {"enabled": True}}
    )
    (after,) = install(hooked, triggers__t="ref: t\nlabel: New\n").written
    assert isinstance(after, Trigger)
    assert (after.webhook_enabled, after.webhook_key, after.webhook_config) == (
        True,
        "wh_1",
        {"hmac": {"enabled": True}},
    )


def test_a_switch_stays_where_the_operator_left_it_unless_the_file_says() -> None:
    (trigger,) = stored(install(triggers__t="ref: t\n"))
    off = msgspec.structs.replace(trigger, enabled=False)
    assert install(off, triggers__t="ref: t\n").written == []
    (after,) = install(off, triggers__t="ref: t\nenabled: true\n").written
    assert isinstance(after, Trigger)
    assert after.enabled


def test_a_new_archive_is_what_its_actions_run() -> None:
    before = stored(install(actions__a="ref: a\nentry_point: run.sh\n", triggers__t="ref: t\n"))
    outcome = install(*before, content="c2", actions__a="ref: a\nentry_point: run.sh\n", triggers__t="ref: t\n")
    (action,) = outcome.written
    assert isinstance(action, Action)
    assert action.content == "c2"


def test_an_older_version_of_a_broken_file_stays() -> None:
    before = stored(install(actions__a="ref: a\nentry_point: run.sh\n", triggers__t="ref: t\n"))
    outcome = install(*before, actions__a="ref: a\nentry_point: gone.sh\n", triggers__t="ref: t\n")
    assert outcome.deleted == []
    assert refs(outcome.installed) == ["demo.t"]


def test_a_rule_may_come_before_its_action_and_says_so() -> None:
    outcome = install(rules__r="ref: r\ntrigger_ref: other.t\naction_ref: other.a\n")
    (rule,) = outcome.installed
    assert isinstance(rule, Rule)
    assert (rule.action, rule.trigger) == (None, None)
    assert [(flaw.line, flaw.reason) for flaw in outcome.warnings] == [
        (3, "action 'other.a' does not exist yet"),
        (2, "trigger 'other.t' does not exist yet"),
    ]


def test_a_rule_with_parameters_that_its_action_refuses_is_left_out() -> None:
    rule = "ref: r\ntrigger_ref: t\naction_ref: core.echo\naction_params:\n  message: [1]\n"
    outcome = install(triggers__t="ref: t\n", rules__r=rule)
    assert refs(outcome.installed) == ["demo.t"]
    (flaw,) = outcome.warnings
    assert (flaw.file, flaw.line) == ("rules/r.yaml", 4)
    assert "message" in flaw.reason


def test_templates_stand_in_for_any_type() -> None:
    rule = "ref: r\ntrigger_ref: t\naction_ref: core.echo\naction_params: {message: '{{ event.payload.x }}'}\n"
    assert install(triggers__t="ref: t\n", rules__r=rule).warnings == []


def test_rules_elsewhere_lose_and_find_the_ids_of_what_they_name() -> None:
    (action,) = stored(install(actions__a="ref: a\nentry_point: run.sh\n"))
    elsewhere = Rule(
        id=3, ref="other.r", pack=2, pack_ref="other", label="r", action_ref="demo.a", trigger_ref="other.t",
        action=action.id, trigger=6, created=NOW, updated=NOW, revision=4,
    )  # fmt: skip
    (orphan,) = install(action, rules=[elsewhere]).written
    assert isinstance(orphan, Rule)
    assert (orphan.ref, orphan.action_ref, orphan.action, orphan.trigger) == ("other.r", "demo.a", None, 6)
    *_, found = install(rules=[orphan], actions__a="ref: a\nentry_point: run.sh\n").written
    assert isinstance(found, Rule)
    assert found.action is not None


def test_a_sensor_without_its_runtime_is_left_out() -> None:
    outcome = install(sensors__s="ref: s\nrunner_type: http\n")
    assert outcome.installed == []
    assert [(flaw.line, flaw.reason) for flaw in outcome.warnings] == [(2, "runtime 'core.http' does not exist")]


KINDS = {"triggers": Trigger, "sensors": Sensor}


@given(
    st.sets(st.tuples(st.sampled_from(sorted(KINDS)), st.sampled_from("abcde"))),
    st.sets(st.tuples(st.sampled_from(sorted(KINDS)), st.sampled_from("abcde"))),
)
def test_whatever_was_there_the_registry_ends_up_with_the_files(
    first: set[tuple[str, str]], second: set[tuple[str, str]]
) -> None:
    before = stored(install(**{f"{folder}__{name}": f"ref: {name}\n" for folder, name in first}))
    outcome = install(*before, **{f"{folder}__{name}": f"ref: {name}\n" for folder, name in second})
    left = {(type(entity), entity.ref) for entity in before} - {(type(each), each.ref) for each in outcome.deleted}
    after = left | {(type(entity), entity.ref) for entity in outcome.written}
    assert after == {(KINDS[folder], f"demo.{name}") for folder, name in second}


# --- workflows

FLOW = "tasks:\n- name: greet\n  action: core.echo\n"


def test_a_workflow_and_its_action_know_each_other() -> None:
    outcome = install(workflows__flow=FLOW)
    workflow, action = stored(outcome)
    assert isinstance(workflow, WorkflowDefinition)
    assert (action.workflow_def, action.runtime, action.content) == (workflow.id, None, None)
    assert outcome.warnings == []
    again = install(workflow, action, now=LATER, workflows__flow=FLOW)
    assert again.written == []
    changed = install(workflow, action, now=LATER, workflows__flow=FLOW.replace("greet", "meet"))
    assert [(type(each), each.id) for each in changed.written] == [(WorkflowDefinition, workflow.id)]


def test_they_go_together_and_stay_together() -> None:
    workflow, action = stored(install(workflows__flow=FLOW))
    assert {type(each) for each in install(workflow, action).deleted} == {WorkflowDefinition, Action}
    assert install(workflow, action, workflows__flow="tasks: []\n").deleted == []
    program = install(workflow, action, actions__flow="ref: flow\nentry_point: run.sh\n")
    assert [type(each) for each in program.deleted] == [WorkflowDefinition]
    assert [each.workflow_def for each in program.written if isinstance(each, Action)] == [None]


def test_a_program_that_does_not_fit_leaves_the_workflow_as_it_was() -> None:
    workflow, action = stored(install(workflows__flow=FLOW))
    outcome = install(workflow, action, actions__flow="ref: flow\nrunner_type: http\n")
    assert (outcome.written, outcome.deleted) == ([], [])


def test_an_action_that_does_not_exist_yet_is_told_by_line() -> None:
    outcome = install(
        workflows__flow=FLOW + "- name: other\n  action: demo.later\n",
        actions__later="ref: later\nrunner_type: native\n",
    )
    assert outcome.warnings == []
    (flaw,) = install(workflows__flow=FLOW + "- name: other\n  action: demo.never\n").warnings
    assert (flaw.file, "demo.never" in flaw.reason) == ("workflows/flow.yaml", True)
