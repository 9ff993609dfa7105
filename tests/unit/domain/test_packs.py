from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain import packs
from chalicelib.domain.entities import Action, PermissionSet, Rule, Runtime, Sensor, Trigger
from chalicelib.domain.flaws import Flaw
from chalicelib.domain.packs import Component, PackError, PackSource
from chalicelib.domain.runtimes import RUNNER_TYPES
from chalicelib.protocol import Container

MANIFEST = "ref: demo\nversion: 1.2.0\n"
CORE = Path(__file__).parents[3] / "packs" / "core"


def read(manifest: str = MANIFEST, **files: str) -> PackSource:
    """File names are written with ``__`` for the slash and without ``.yaml``."""
    named = {f"{name.replace('__', '/')}.yaml": text.encode() for name, text in files.items()}
    scripts = {"actions/run.py": b"print()", "actions/run.sh": b"echo", "sensors/watch.py": b"watch()"}
    return packs.read({"pack.yaml": manifest.encode(), **scripts, **named})


def only(source: PackSource) -> Component:
    assert source.warnings == []
    (component,) = source.components
    return component


def flaw(**files: str) -> Flaw:
    source = read(**files)
    assert source.components == []
    (warning,) = source.warnings
    return warning


# --- manifest


def test_the_contracts_manifest_keys() -> None:
    source = read(
        "ref: demo\nname: Demo pack\nversion: 1.2.0\ndescription: Shows.\nconfig_schema: {url: {type: string}}\n"
        "metadata: {author: me}\nkeywords: [a, b]\nruntime_deps: [python3]\ndependencies: [core]\n"
    )
    assert source.ref == "demo"
    assert source.fields == {
        "label": "Demo pack",
        "version": "1.2.0",
        "description": "Shows.",
        "conf_schema": {"url": {"type": "string"}},
        "meta": {"author": "me"},
        "tags": ["a", "b"],
        "runtime_deps": ["python3"],
        "dependencies": ["core"],
    }


def test_the_other_spellings_and_the_contracts_first() -> None:
    source = read(MANIFEST + "name: Right\nlabel: Wrong\nconf_schema: {}\nmeta: {x: 1}\ntags: [t]\nconfig: {url: u}\n")
    assert source.fields == {
        "label": "Right",
        "version": "1.2.0",
        "conf_schema": {},
        "meta": {"x": 1},
        "tags": ["t"],
        "config": {"url": "u"},
    }


def test_a_bare_manifest_is_labelled_by_its_ref() -> None:
    assert read().fields == {"label": "demo", "version": "1.2.0"}


def test_a_wrong_optional_key_is_ignored_and_told() -> None:
    source = read(MANIFEST + "keywords:\n- a\n- 2\n")
    assert "tags" not in source.fields
    assert source.warnings == [Flaw("pack.yaml", 5, "'keywords' is ignored: Expected `str`, got `int` at $[1]")]


@pytest.mark.parametrize(
    ("manifest", "line", "reason", "malformed"),
    [
        ("version: 1.0.0\n", 1, "'ref' is missing", False),
        ("ref: demo\n", 1, "'version' is missing", False),
        ("version: 1.0.0\nref: Demo\n", 2, "lower-case", False),
        ("ref: demo\nversion: 1.0\n", 2, "put 1.0 in quotes", False),
        ("ref: demo\nversion: one\n", 2, "semantic version", False),
        ("ref: demo\nversion: [\n", 3, "not YAML", True),
        ("- ref: demo\n", 1, "must be a map", True),
        ("", 1, "must be a map", True),
    ],
)
def test_without_ref_and_version_there_is_no_pack(manifest: str, line: int, reason: str, malformed: bool) -> None:
    with pytest.raises(PackError) as caught:
        read(manifest)
    assert reason in caught.value.flaw.reason
    assert (caught.value.flaw.file, caught.value.flaw.line) == ("pack.yaml", line)
    assert caught.value.malformed is malformed


# --- components


def test_an_action_with_all_its_keys() -> None:
    component = only(
        read(
            actions__run="""
ref: demo.run
label: Run
description: Runs.
runner_type: python
entry_point: run.py
parameters: {count: {type: integer, required: true}}
output: {total: {type: integer}}
parameter_delivery: file
parameter_format: yaml
output_format: json
runtime_version: ">=3.11"
required_worker_runtimes: {python: ">=3.11"}
worker_selector: {zone: a}
worker_tolerations: [{key: gpu}]
worker_affinity: {required: []}
secrets: [shared.token]
accesses_mcp: true
default_execution_permission_set_refs: [standard]
log_retention_policy: days
log_retention_limit: 3
timeout: 20
tags: [ignored]
"""
        )
    )
    assert (component.type, component.ref, component.file) == (Action, "demo.run", "actions/run.yaml")
    assert component.fields == {
        "label": "Run",
        "description": "Runs.",
        "entrypoint": "run.py",
        "runtime_ref": "core.python",
        "runtime_version_constraint": ">=3.11",
        "required_worker_runtimes": {"python": ">=3.11"},
        "param_schema": {"count": {"type": "integer", "required": True}},
        "out_schema": {"total": {"type": "integer"}},
        "secrets": ["shared.token"],
        "accesses_mcp": True,
        "default_execution_permission_set_refs": ["standard"],
        "parameter_delivery": "file",
        "parameter_format": "yaml",
        "output_format": "json",
        "timeout": 20,
        "container": None,
        "concurrency": None,
        "worker_selector": {"zone": "a"},
        "worker_tolerations": [{"key": "gpu"}],
        "worker_affinity": {"required": []},
        "log_retention_policy": "days",
        "log_retention_limit": 3,
        "artifact_retention_policy": None,
        "artifact_retention_limit": None,
    }


def test_an_action_is_a_shell_file_unless_it_says_otherwise() -> None:
    fields = only(read(actions__run="ref: run\nentry_point: run.sh\n")).fields
    assert (fields["label"], fields["runtime_ref"], fields["entrypoint"]) == ("run", "core.shell", "run.sh")
    assert (fields["parameter_delivery"], fields["parameter_format"], fields["output_format"]) == (
        "stdin",
        "json",
        "text",
    )


@pytest.mark.parametrize("entry_point", ["actions/run.py", "./actions/run.py", "run.py", "./run.py"])
def test_an_entry_point_is_relative_to_its_folder(entry_point: str) -> None:
    component = only(read(actions__run=f"ref: run\nrunner_type: python3\nentry_point: {entry_point}\n"))
    assert component.fields["entrypoint"] == "run.py"


@pytest.mark.parametrize(
    ("runner_type", "runtime_ref"),
    [
        ("native", "core.native"),
        ("builtin", "core.native"),
        ("http", "core.http"),
    ],
)
def test_what_runs_without_a_file_needs_none(runner_type: str, runtime_ref: str) -> None:
    fields = only(read(actions__x=f"ref: x\nrunner_type: {runner_type}\n")).fields
    assert (fields["runtime_ref"], fields["entrypoint"]) == (runtime_ref, "")


def test_a_container_action_names_its_image_and_brings_its_script() -> None:
    text = "ref: x\nrunner_type: container\nentry_point: run.py\ncontainer: {image: python:3.11-slim, memory: 64}\n"
    fields = only(read(actions__x=text)).fields
    assert fields["runtime_ref"] == "core.container"
    assert fields["entrypoint"] == "print()"
    assert fields["container"] == Container(image="python:3.11-slim", memory=64)
    inline = text.replace("run.py", "echo $0")
    assert only(read(actions__x=inline)).fields["entrypoint"] == "echo $0"


@pytest.mark.parametrize(
    ("container", "reason"),
    [
        ("", "'container' is missing: it names the image"),
        ("container: {memory: 64}\n", "missing required field `image`"),
        ("container: {image: 'a b'}\n", "regex"),
        ("container: {image: a, memory: 100000}\n", "<= 8192"),
    ],
)
def test_a_container_action_without_a_usable_container_is_told(container: str, reason: str) -> None:
    assert reason in flaw(actions__x=f"ref: x\nrunner_type: container\n{container}").reason


def test_a_runtime_of_the_pack_serves_its_actions() -> None:
    source = read(
        runtimes__r="ref: ruby\nname: Ruby\naliases: [rb]\nexecution_config: {env_vars: {A: b}}\n",
        actions__a="ref: a\nrunner_type: rb\nentry_point: run.sh\n",
        actions__b="ref: b\nrunner_type: demo.ruby\nentry_point: run.sh\n",
    )
    assert source.warnings == []
    runtime, *actions = source.components
    assert (runtime.type, runtime.ref) == (Runtime, "demo.ruby")
    assert runtime.fields["execution_config"] == {"env_vars": {"A": "b"}}
    assert [action.fields["runtime_ref"] for action in actions] == ["demo.ruby", "demo.ruby"]


def test_a_trigger() -> None:
    component = only(
        read(triggers__t="ref: t\nparameters: {a: {type: string}}\noutput: {b: {type: string}}\ntype: x\n")
    )
    assert (component.type, component.ref) == (Trigger, "demo.t")
    assert component.fields == {
        "label": "t",
        "description": None,
        "param_schema": {"a": {"type": "string"}},
        "out_schema": {"b": {"type": "string"}},
    }


def test_short_names_in_a_rule_get_the_packs_prefix() -> None:
    component = only(read(rules__r="ref: r\ntrigger_ref: t\naction_ref: core.echo\nenabled: false\n"))
    assert (component.type, component.ref) == (Rule, "demo.r")
    assert component.fields == {
        "label": "r",
        "description": None,
        "trigger_ref": "demo.t",
        "action_ref": "core.echo",
        "conditions": {},
        "action_params": {},
        "trigger_params": {},
        "permission_set_refs": None,
        "missed_run_policy": "skip",
        "enabled": False,
    }


@pytest.mark.parametrize("key", ["trigger_types: [t, core.alert]", "trigger_types: t", "trigger_type: t"])
def test_a_sensor_names_its_triggers(key: str) -> None:
    component = only(read(sensors__s=f"ref: s\nrunner_type: python\nentry_point: watch.py\n{key}\n"))
    assert (component.type, component.fields["entrypoint"]) == (Sensor, "watch.py")
    assert component.fields["trigger_refs"][0] == "demo.t"


def test_a_permission_set() -> None:
    component = only(
        read(permission_sets__p="ref: p\ngrants:\n- {resource: packs, actions: [read], constraints: {refs: [demo]}}\n")
    )
    assert component.type is PermissionSet
    (grant,) = component.fields["grants"]
    assert (grant.resource, grant.actions, grant.constraints) == ("packs", ["read"], {"refs": ["demo"]})


def test_components_come_in_the_order_in_which_they_refer_to_each_other() -> None:
    source = read(
        sensors__s="ref: s\n",
        rules__r="ref: r\ntrigger_ref: t\naction_ref: a\n",
        actions__a="ref: a\nrunner_type: native\n",
        triggers__t="ref: t\n",
        runtimes__x="ref: x\n",
        permission_sets__p="ref: p\n",
    )
    assert [component.type for component in source.components] == [
        PermissionSet,
        Runtime,
        Trigger,
        Action,
        Rule,
        Sensor,
    ]


# --- broken files


def test_one_broken_file_leaves_the_others_standing() -> None:
    source = read(triggers__a="ref: a\n", triggers__b="ref: [\n", triggers__c="ref: c\nenabled: maybe\n")
    assert [component.ref for component in source.components] == ["demo.a"]
    assert [(warning.file, warning.line) for warning in source.warnings] == [
        ("triggers/b.yaml", 2),
        ("triggers/c.yaml", 2),
    ]


def test_the_second_definition_of_a_ref_is_broken() -> None:
    source = read(triggers__a="ref: same\n", triggers__b="label: x\nref: same\n")
    assert source.warnings == [Flaw("triggers/b.yaml", 2, "demo.same is already defined in triggers/a.yaml")]


BY_B = "runner_type: http\nparameters: {a: {type: string}}\nconcurrency: {threshold: 1, parameters: [b]}\n"


@pytest.mark.parametrize(
    ("file", "text", "line", "reason"),
    [
        ("triggers__x", "label: x\n", 1, "missing required field `ref`"),
        ("triggers__x", "label: x\nref: Upper\n", 2, "lower-case"),
        ("triggers__x", "label: x\nref: other.x\n", 2, "begin with its pack's ref"),
        ("triggers__x", "ref: x\nlabel: ''\n", 2, "length >= 1"),
        ("triggers__x", "- ref: x\n", 1, "Expected `object`"),
        ("actions__x", "ref: x\nrunner_type: cobol\nentry_point: run.sh\n", 2, "runner_type 'cobol' is none of"),
        ("actions__x", "ref: x\nrunner_type: python\n", 1, "'entry_point' is missing"),
        ("actions__x", "ref: x\nentry_point: gone.sh\n", 2, "no file actions/gone.sh"),
        ("actions__x", "ref: x\nentry_point: ../sensors/watch.py\n", 2, "no file"),
        ("actions__x", "ref: x\nworkflow_file: x.yaml\n", 2, "no file 'x.yaml' in workflows or actions/workflows"),
        ("actions__x", "ref: x\nworkflow_definition:\n  tasks:\n  - name: a\n", 4, "action"),
        ("actions__x", "ref: x\nentry_point: run.sh\nconcurrency: {threshold: 0}\n", 3, ">= 1"),
        ("actions__x", f"ref: x\n{BY_B}", 4, "'b' is none of the action's parameters"),
        ("actions__x", "ref: x\nentry_point: run.sh\noutput_format: xml\n", 3, "Invalid enum value 'xml'"),
        ("actions__x", "ref: x\nentry_point: run.sh\nworker_selector:\n  a: 1\n", 3, "Expected `str`"),
        ("actions__x", "ref: x\nentry_point: run.sh\nparameters:\n  a: {type: text}\n", 3, "'parameters'"),
        ("rules__x", "ref: x\ntrigger_ref: t\naction_ref: A.b\n", 3, "lower-case"),
        ("rules__x", "ref: x\ntrigger_ref: t\naction_ref: a\nconditions: [{field: a, operator: like}]\n", 4, "like"),
        ("rules__x", "ref: x\naction_ref: a\n", 1, "missing required field `trigger_ref`"),
        ("permission_sets__x", "ref: x\ngrants:\n- {resource: packs, actions: []}\n- cats\n", 4, "grants[1]"),
        ("workflows__x", "ref: x\n", 1, "at least one task"),
        ("workflows__x", "version: 1.0.0\ntasks:\n- name: a\n  action: core.noop\n  next:\n  - do: b\n", 6, "b"),
        ("actions__workflows__X", "tasks: []\n", 1, "the file's name gives no ref"),
        ("queues__x", "ref: x\n", 1, "work queues are not installed"),
    ],
)  # fmt: skip
def test_broken_files_are_told_by_line_and_reason(file: str, text: str, line: int, reason: str) -> None:
    warning = flaw(**{file: text})
    assert warning.file == f"{file.replace('__', '/')}.yaml"
    assert reason in warning.reason
    assert warning.line == line


# --- the core pack


def core() -> PackSource:
    return packs.read({str(path.relative_to(CORE)): path.read_bytes() for path in CORE.rglob("*") if path.is_file()})


def test_the_core_pack_has_no_flaw() -> None:
    source = core()
    assert source.warnings == []
    assert {component.ref for component in source.components if component.type is Action} == {
        "core.ask", "core.echo", "core.noop", "core.sleep", "core.fail", "core.http_request",
    }  # fmt: skip
    assert {component.ref for component in source.components if component.type is Trigger} == {
        "core.alert", "core.intervaltimer", "core.crontimer", "core.datetimetimer", "core.rruletimer",
    }  # fmt: skip


def test_runner_types_are_the_aliases_of_the_core_packs_runtimes() -> None:
    aliases = {
        alias: component.ref for component in core().components if component.type is Runtime
        for alias in component.fields["aliases"]
    }  # fmt: skip
    assert aliases == RUNNER_TYPES


# --- anything

FOLDERS = ["permission_sets", "runtimes", "triggers", "actions", "rules", "sensors", "workflows", "queues"]
KEYS = [
    "ref", "label", "description", "version", "name", "grants", "aliases", "execution_config", "enabled", "parameters",
    "output", "runner_type", "entry_point", "workflow_file", "output_format", "worker_selector", "timeout", "config",
    "trigger_ref", "action_ref", "conditions", "action_params", "permission_set_refs", "trigger_types", "config_schema",
]  # fmt: skip
WORDS = st.sampled_from(
    ["demo", "demo.x", "x", "core.echo", "python", "run.py", "1.0.0", "string", "packs", "read", ""]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(FOLDERS), st.dictionaries(st.sampled_from(KEYS), VALUES) | VALUES), VALUES)
def test_any_yaml_is_a_component_or_a_flaw(given_files: dict[str, Any], options: Any) -> None:
    named = {f"{folder}/x.yaml": msgspec.json.encode(value) for folder, value in given_files.items()}
    manifest = {"ref": "demo", "version": "1.0.0"} | {key: options for key in KEYS if key not in ("ref", "version")}
    source = packs.read({"pack.yaml": msgspec.json.encode(manifest), "actions/run.py": b"", **named})
    told = {warning.file for warning in source.warnings} | {component.file for component in source.components}
    assert set(named) <= told
