"""What a pack's files say: the manifest, and every component as the fields of its entity (contract: semantics §2.9).

Reading is lenient and never silent (README 16): whatever is broken is left out and told by file, line and reason. Only
a manifest without a usable ``ref`` or ``version`` refuses the whole.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Final, Literal, TypeAlias, TypeVar

import msgspec

from chalicelib.domain import criteria, documents, parameters, permissions, refs, schedules
from chalicelib.domain.admission import problem_of
from chalicelib.domain.archives import MANIFEST
from chalicelib.domain.components import Component, ComponentType
from chalicelib.domain.documents import Document, DocumentError
from chalicelib.domain.entities import (
    Action,
    Concurrency,
    Json,
    MissedRuns,
    OutputFormat,
    ParameterDelivery,
    ParameterFormat,
    PermissionSet,
    RetentionPolicy,
    Rule,
    Runtime,
    Sensor,
    Trigger,
)
from chalicelib.domain.flaws import Flaw
from chalicelib.domain.pack_workflows import Workflows
from chalicelib.domain.runtimes import CONTAINER, RUNNER_TYPES, WITHOUT_FILE
from chalicelib.domain.schemas import SchemaError
from chalicelib.domain.sensors import PollInterval
from chalicelib.domain.workflow.companion import ENTRYPOINT
from chalicelib.protocol import Container

MAX_SCRIPT: Final = 48 * 1024  # bytes; Fargate takes a task definition of 64 KB


class PackError(Exception):
    """The pack as a whole cannot be taken. ``malformed``: its manifest is not even YAML."""

    def __init__(self, flaw: Flaw, *, malformed: bool = False) -> None:
        super().__init__(f"{flaw.file}:{flaw.line}: {flaw.reason}")
        self.flaw = flaw
        self.malformed = malformed


@dataclass(frozen=True, slots=True)
class PackSource:
    """A pack as its files describe it. ``fields`` are those of :class:`~chalicelib.domain.entities.Pack`; components
    stand in the order in which they may refer to each other. ``broken`` are those that a file still names but that
    could not be read: an older version of theirs need not go."""

    ref: str
    fields: dict[str, Json]
    components: list[Component]
    warnings: list[Flaw]
    broken: frozenset[tuple[ComponentType, str]] = frozenset()


def read(files: Mapping[str, bytes]) -> PackSource:
    """The pack in ``files``, whose names are relative to its root. Raises :class:`PackError`."""
    warnings: list[Flaw] = []
    ref, fields = _manifest(files, warnings)
    reader = _Reader(ref, fields["version"], files, warnings)
    components = reader.components()
    broken = frozenset(reader.broken - {(component.type, component.ref) for component in components})
    return PackSource(ref=ref, fields=fields, components=components, warnings=warnings, broken=broken)


# --- the manifest


def _manifest(files: Mapping[str, bytes], warnings: list[Flaw]) -> tuple[str, dict[str, Json]]:
    if MANIFEST not in files:
        raise PackError(Flaw(MANIFEST, 1, "the pack has none"), malformed=True)
    try:
        document = documents.read(files[MANIFEST])
    except DocumentError as error:
        raise PackError(Flaw(MANIFEST, error.line, str(error)), malformed=True) from None
    given = document.value
    if not isinstance(given, dict):
        raise PackError(Flaw(MANIFEST, 1, "must be a map with at least 'ref' and 'version'"), malformed=True)
    ref = _required(document, "ref", refs.pack_ref)
    fields = {
        "label": ref,
        "version": _required(document, "version", refs.version),
        **dict(_manifest_options(document, warnings)),
    }
    return ref, fields


def _required(document: Document, key: str, check: Callable[[str], str]) -> str:
    text = document.value.get(key)
    if text is None:
        raise PackError(Flaw(MANIFEST, 1, f"'{key}' is missing"))
    line = document.line_of(f"$.{key}")
    if not isinstance(text, str):
        raise PackError(Flaw(MANIFEST, line, f"'{key}' must be text: put {text!r} in quotes"))
    try:
        return check(text)
    except refs.RefError as error:
        raise PackError(Flaw(MANIFEST, line, str(error))) from None


_Label = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]

# The contract's key first; what follows is what packs in the wild write instead.
_MANIFEST_OPTIONS: Final[tuple[tuple[str, tuple[str, ...], Json], ...]] = (
    ("label", ("name", "label"), _Label),
    ("description", ("description",), str),
    ("conf_schema", ("config_schema", "conf_schema"), dict[str, Json]),
    ("config", ("config",), dict[str, Json]),
    ("meta", ("metadata", "meta"), dict[str, Json]),
    ("tags", ("keywords", "tags"), list[str]),
    ("runtime_deps", ("runtime_deps",), list[str]),
    ("dependencies", ("dependencies",), list[str]),
)


def _manifest_options(document: Document, warnings: list[Flaw]) -> Iterator[tuple[str, Json]]:
    for field, keys, kind in _MANIFEST_OPTIONS:
        key = next((key for key in keys if document.value.get(key) is not None), None)
        if key is None:
            continue
        try:
            value = msgspec.convert(document.value[key], kind)
            if field == "conf_schema":
                parameters.check_schema(value)
            yield field, value
        except (msgspec.ValidationError, SchemaError) as error:
            reason, path = _explained(error)
            warnings.append(Flaw(MANIFEST, document.line_of(f"$.{key}{path[1:]}"), f"'{key}' is ignored: {reason}"))


# --- the components

_Schema = dict[str, Json] | None


class _File(msgspec.Struct, kw_only=True):
    ref: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    label: _Label | None = None
    description: str | None = None


class _PermissionSetFile(_File, kw_only=True):
    grants: list[Json] = []


class _RuntimeFile(_File, kw_only=True):
    name: _Label | None = None
    aliases: list[str] = []
    distributions: Json = None
    installation: Json = None
    execution_config: dict[str, Json] = {}


class _TriggerFile(_File, kw_only=True):
    enabled: bool | None = None
    parameters: _Schema = None
    output: _Schema = None


class _Placed(_File, kw_only=True):
    """What runs somewhere, and keeps logs and artifacts for some time."""

    entry_point: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    parameters: _Schema = None
    worker_selector: dict[str, str] | None = None
    worker_tolerations: list[Json] | None = None
    worker_affinity: dict[str, Json] | None = None
    log_retention_policy: RetentionPolicy | None = None
    log_retention_limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    artifact_retention_policy: RetentionPolicy | None = None
    artifact_retention_limit: Annotated[int, msgspec.Meta(ge=1)] | None = None


class _ActionFile(_Placed, kw_only=True):
    runner_type: str = "shell"
    workflow_file: str | None = None
    workflow_definition: Json = None
    output: _Schema = None
    secrets: list[str] = []
    parameter_delivery: ParameterDelivery = "stdin"
    parameter_format: ParameterFormat = "json"
    output_format: OutputFormat = "text"
    runtime_version: str | None = None
    required_worker_runtimes: dict[str, str] | None = None
    accesses_mcp: bool = False
    default_execution_permission_set_refs: list[str] = []
    timeout: Annotated[int, msgspec.Meta(ge=1)] | None = None
    container: Container | None = None
    concurrency: Concurrency | None = None


class _RuleFile(_File, kw_only=True):
    trigger_ref: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    action_ref: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    enabled: bool | None = None
    conditions: Json = None
    action_params: dict[str, Json] | None = None
    trigger_params: dict[str, Json] | None = None
    permission_set_refs: list[str] | None = None
    missed_run_policy: MissedRuns = "skip"


class _SensorFile(_Placed, kw_only=True):
    runner_type: str = "native"
    enabled: bool | None = None
    trigger_types: list[str] | str | None = None
    trigger_type: str | None = None
    config: Json = None
    poll_interval: PollInterval | None = None


F = TypeVar("F", bound=_File)
_Folder: TypeAlias = Literal["permission_sets", "runtimes", "triggers", "actions", "rules", "sensors"]

_NOT_TAKEN: Final[Mapping[str, str]] = {
    "queues": "work queues are not installed by this version",
}


class _BrokenError(Exception):
    """This file is not a component; ``path`` leads to why."""

    def __init__(self, reason: str, path: str = "$") -> None:
        super().__init__(reason)
        self.path = path


class _Reader:
    """Reads the component files of one pack, folder by folder in the order of semantics §2.9."""

    def __init__(self, pack: str, version: str, files: Mapping[str, bytes], warnings: list[Flaw]) -> None:
        self._pack = pack
        self._version = version
        self._files = files
        self._warnings = warnings
        self._runtimes = dict(RUNNER_TYPES)
        self.broken: set[tuple[ComponentType, str]] = set()

    def components(self) -> list[Component]:
        found = [
            *self._folder("permission_sets", PermissionSet, _PermissionSetFile, self._permission_set),
            *self._folder("runtimes", Runtime, _RuntimeFile, self._runtime),
            *self._folder("triggers", Trigger, _TriggerFile, self._trigger),
            *self._actions(),
            *self._folder("rules", Rule, _RuleFile, self._rule),
            *self._folder("sensors", Sensor, _SensorFile, self._sensor),
        ]
        for folder, reason in _NOT_TAKEN.items():
            self._warnings.extend(Flaw(file, 1, reason) for file in self._yaml_files(folder))
        return found

    def _actions(self) -> list[Component]:
        """The workflows, then the actions: theirs, and all others."""
        actions = self._folder("actions", Action, _ActionFile, self._action)
        taken = {*(action.ref for action in actions), *(ref for kind, ref in self.broken if kind is Action)}
        workflows = Workflows(self._pack, self._version, self._files, self._warnings)
        found = workflows.beside(actions, taken)
        self.broken |= workflows.broken
        return found

    def _yaml_files(self, folder: str) -> list[str]:
        return sorted(
            name
            for name in self._files
            if name.endswith((".yaml", ".yml")) and str(PurePosixPath(name).parent) == folder
        )

    def _folder(
        self, folder: _Folder, entity: ComponentType, shape: type[F], fields_of: Callable[[str, F], dict[str, Json]]
    ) -> list[Component]:
        found: dict[str, Component] = {}
        for file in self._yaml_files(folder):
            document = Document(None, None)
            try:
                document = documents.read(self._files[file])
                given = msgspec.convert(document.value, shape)
                ref = self._own_ref(given.ref, found)
                found[ref] = Component(entity, ref, fields_of(ref, given), file, document)
            except DocumentError as error:
                self._warnings.append(Flaw(file, error.line, str(error)))
            except (msgspec.ValidationError, _BrokenError) as error:
                reason, path = _explained(error)
                self._warnings.append(Flaw(file, document.line_of(path), reason))
                if isinstance(document.value, dict) and isinstance(document.value.get("ref"), str):
                    self.broken.add((entity, self._qualified(document.value["ref"])))
        return list(found.values())

    def _own_ref(self, given: str, found: Mapping[str, Component]) -> str:
        try:
            ref = refs.component_ref(self._qualified(given), self._pack)
        except refs.RefError as error:
            raise _BrokenError(str(error), "$.ref") from None
        if ref in found:
            raise _BrokenError(f"{ref} is already defined in {found[ref].file}", "$.ref")
        return ref

    def _any_ref(self, ref: str, key: str) -> str:
        try:
            return refs.component_ref(self._qualified(ref))
        except refs.RefError as error:
            raise _BrokenError(str(error), f"$.{key}") from None

    def _qualified(self, ref: str) -> str:
        return ref if "." in ref else f"{self._pack}.{ref}"

    def _permission_set(self, ref: str, given: _PermissionSetFile) -> dict[str, Json]:
        try:
            grants = permissions.check_grants(given.grants)
        except permissions.GrantError as error:
            raise _BrokenError(str(error), f"$.{str(error).partition(' ')[0]}") from None
        return {"label": given.label or _name(ref), "description": given.description, "grants": grants}

    def _runtime(self, ref: str, given: _RuntimeFile) -> dict[str, Json]:
        name = given.name or given.label or _name(ref)
        for alias in (ref, _name(ref), name.lower(), *given.aliases):
            self._runtimes.setdefault(alias, ref)
        return {
            "name": name,
            "description": given.description,
            "aliases": given.aliases,
            "distributions": {} if given.distributions is None else given.distributions,
            "installation": given.installation,
            "execution_config": given.execution_config,
        }

    def _trigger(self, ref: str, given: _TriggerFile) -> dict[str, Json]:
        return {
            "label": given.label or _name(ref),
            "description": given.description,
            "param_schema": _checked_schema("parameters", given.parameters),
            "out_schema": _checked_schema("output", given.output),
            **_switch(given.enabled),
        }

    def _action(self, ref: str, given: _ActionFile) -> dict[str, Json]:
        return {
            "label": given.label or _name(ref),
            "description": given.description,
            **self._program(given),
            "runtime_version_constraint": given.runtime_version,
            "required_worker_runtimes": given.required_worker_runtimes or {},
            "param_schema": _checked_schema("parameters", given.parameters),
            "out_schema": _checked_schema("output", given.output),
            "secrets": [_key_ref(each) for each in given.secrets],
            "accesses_mcp": given.accesses_mcp,
            "default_execution_permission_set_refs": given.default_execution_permission_set_refs,
            "parameter_delivery": given.parameter_delivery,
            "parameter_format": given.parameter_format,
            "output_format": given.output_format,
            "timeout": given.timeout,
            "container": given.container,
            "concurrency": _checked_policy(given),
            **_placement(given),
        }

    def _program(self, given: _ActionFile) -> dict[str, Json]:
        """What the action runs: a workflow has no runtime."""
        if given.workflow_file is not None or given.workflow_definition is not None:
            return {"entrypoint": ENTRYPOINT, "runtime_ref": None}
        runtime_ref = self._runtime_of(given.runner_type)
        if runtime_ref == CONTAINER:
            return {"entrypoint": self._script(given), "runtime_ref": runtime_ref}
        return {"entrypoint": self._entrypoint("actions", runtime_ref, given.entry_point), "runtime_ref": runtime_ref}

    def _rule(self, ref: str, given: _RuleFile) -> dict[str, Json]:
        try:
            criteria.compile_criteria(given.conditions)
        except criteria.CriteriaError as error:
            raise _BrokenError(str(error), "$.conditions") from None
        if schedules.is_timer(given.trigger_ref):
            try:
                schedules.validate(given.trigger_ref, given.trigger_params or {})
            except schedules.ScheduleError as error:
                raise _BrokenError(str(error), "$.trigger_params") from None
        return {
            "label": given.label or _name(ref),
            "description": given.description,
            "trigger_ref": self._any_ref(given.trigger_ref, "trigger_ref"),
            "action_ref": self._any_ref(given.action_ref, "action_ref"),
            "conditions": {} if given.conditions is None else given.conditions,
            "action_params": given.action_params or {},
            "trigger_params": given.trigger_params or {},
            "permission_set_refs": given.permission_set_refs,
            "missed_run_policy": given.missed_run_policy,
            **_switch(given.enabled),
        }

    def _sensor(self, ref: str, given: _SensorFile) -> dict[str, Json]:
        runtime_ref = self._runtime_of(given.runner_type)
        triggers = given.trigger_types if given.trigger_types is not None else given.trigger_type
        names = [triggers] if isinstance(triggers, str) else triggers or []
        return {
            "label": given.label or _name(ref),
            "description": given.description,
            "entrypoint": self._entrypoint("sensors", runtime_ref, given.entry_point),
            "runtime_ref": runtime_ref,
            "trigger_refs": [self._any_ref(name, "trigger_types") for name in names],
            "param_schema": _checked_schema("parameters", given.parameters),
            "config": given.config,
            "poll_interval": given.poll_interval,
            **_placement(given),
            **_switch(given.enabled),
        }

    def _runtime_of(self, runner_type: str) -> str:
        name = runner_type.strip().lower()
        if name in RUNNER_TYPES.values():
            return name
        if name not in self._runtimes:
            raise _BrokenError(f"runner_type '{runner_type}' is none of {', '.join(self._runtimes)}", "$.runner_type")
        return self._runtimes[name]

    def _script(self, given: _ActionFile) -> str:
        """What a container gets to run: the text of the file that the entry point names, or the entry point itself."""
        if given.container is None:
            raise _BrokenError("'container' is missing: it names the image")
        name = (given.entry_point or "").removeprefix("./").removeprefix("actions/")
        content = self._files.get(f"actions/{name}")
        if content is None:
            return given.entry_point or ""
        if len(content) > MAX_SCRIPT:
            raise _BrokenError(f"a container's script has at most {MAX_SCRIPT} bytes", "$.entry_point")
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise _BrokenError("a container's script is text in UTF-8", "$.entry_point") from None

    def _entrypoint(self, folder: str, runtime_ref: str, given: str | None) -> str:
        """The entry point as the runner wants it: a file's name relative to ``folder``."""
        if runtime_ref in WITHOUT_FILE:
            return given or ""
        if not given:
            raise _BrokenError("'entry_point' is missing")
        for name in (given, given.removeprefix("./").removeprefix(f"{folder}/")):
            if f"{folder}/{name}" in self._files:
                return name
        raise _BrokenError(f"the pack has no file {folder}/{given}", "$.entry_point")


def _name(ref: str) -> str:
    return ref.partition(".")[2]


def _key_ref(ref: str) -> str:
    try:
        return refs.key_ref(ref)
    except refs.RefError as error:
        raise _BrokenError(str(error), "$.secrets") from None


def _switch(enabled: bool | None) -> dict[str, Json]:  # noqa: FBT001  # a field's value, not a mode
    return {} if enabled is None else {"enabled": enabled}


def _placement(given: _Placed) -> dict[str, Json]:
    return {
        "worker_selector": given.worker_selector or {},
        "worker_tolerations": given.worker_tolerations or [],
        "worker_affinity": given.worker_affinity or {},
        "log_retention_policy": given.log_retention_policy,
        "log_retention_limit": given.log_retention_limit,
        "artifact_retention_policy": given.artifact_retention_policy,
        "artifact_retention_limit": given.artifact_retention_limit,
    }


def _checked_schema(key: str, schema: _Schema) -> _Schema:
    try:
        parameters.check_schema(schema)
    except SchemaError as error:
        raise _BrokenError(f"'{key}': {error}", f"$.{key}") from None
    return schema


def _checked_policy(given: _ActionFile) -> Concurrency | None:
    problem = given.concurrency and problem_of(given.concurrency, given.parameters)
    if problem:
        raise _BrokenError(f"'concurrency': {problem}", "$.concurrency.parameters")
    return given.concurrency


_AT: Final = re.compile(r" - at `(\$.*)`$")


def _explained(error: Exception) -> tuple[str, str]:
    """What is wrong and the path to it; msgspec puts the path at the end of its messages."""
    if isinstance(error, _BrokenError):
        return str(error), error.path
    text = str(error)
    at = _AT.search(text)
    if at is None:
        return text, "$"
    return f"{text[: at.start()]} at {at[1]}", at[1]
