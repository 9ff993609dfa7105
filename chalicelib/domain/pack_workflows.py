"""The workflows in a pack's files (workflow-language §1): named by an action's YAML, written inside one, or files of
their own in ``workflows/`` and ``actions/workflows/``. Each becomes two components, the workflow and its action.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Final

import msgspec

from chalicelib.domain import documents, parameters, refs
from chalicelib.domain.components import Component, ComponentType
from chalicelib.domain.documents import Document, DocumentError
from chalicelib.domain.entities import Action, Json, WorkflowDefinition
from chalicelib.domain.flaws import Flaw
from chalicelib.domain.schemas import SchemaError
from chalicelib.domain.workflow.parsing import parse

FOLDERS: Final = ("workflows", "actions/workflows")

_STEM: Final = re.compile(r"(?:\.workflow)?\.ya?ml$")
_Schema = dict[str, Json] | None


class _Header(msgspec.Struct, kw_only=True):
    """What a workflow says of itself besides what it does; an action's YAML has the last word on it."""

    ref: str | None = None
    label: Annotated[str, msgspec.Meta(min_length=1, max_length=255)] | None = None
    description: str | None = None
    version: str | int | float | None = None
    tags: list[str] = []
    parameters: _Schema = None
    output: _Schema = None


class Workflows:
    """Reads the workflows of one pack. ``broken`` are those that could not be read, and their actions."""

    def __init__(self, pack: str, version: str, files: Mapping[str, bytes], warnings: list[Flaw]) -> None:
        self._pack = pack
        self._version = version
        self._files = files
        self._warnings = warnings
        self.broken: set[tuple[ComponentType, str]] = set()

    def beside(self, actions: Iterable[Component], taken: Collection[str]) -> list[Component]:
        """All workflows, then all actions: ``actions`` from the files of actions, and those of the workflows that have
        none there. ``taken`` are the refs of actions that a file names, usable or not."""
        workflows: list[Component] = []
        kept: list[Component] = []
        used: set[str] = set()
        for action in actions:
            if not _runs_workflow(action.document.value):
                kept.append(action)
                continue
            file = self._file_of(action)
            used |= {file} if file else set()
            workflow = self._of_action(action, file)
            if workflow is None:
                self._break(action.ref)
            else:
                workflows.append(workflow)
                kept.append(_completed(action, workflow))
        for file in self._own_files():
            if file in used:
                continue
            found = self._of_file(file, {*taken, *(workflow.ref for workflow in workflows)})
            if found is not None:
                workflows.append(found)
                kept.append(_action_of(found))
        return [*workflows, *kept]

    def _of_action(self, action: Component, file: str | None) -> Component | None:
        said = action.document.value
        if said.get("workflow_file") is None:
            return self._read(action.ref, action.file, action.document, "$.workflow_definition")
        if said.get("workflow_definition") is not None:
            self._tell(action.flaw("give 'workflow_file' or 'workflow_definition', not both", "$.workflow_definition"))
            return None
        if file is None:
            reason = f"the pack has no file {said['workflow_file']!r} in {' or '.join(FOLDERS)}"
            self._tell(action.flaw(reason, "$.workflow_file"))
            return None
        document = self._document(file)
        return None if document is None else self._read(action.ref, file, document)

    def _of_file(self, file: str, taken: Collection[str]) -> Component | None:
        name = _STEM.sub("", PurePosixPath(file).name)
        try:
            ref = refs.component_ref(f"{self._pack}.{name}", self._pack)
        except refs.RefError as error:
            self._tell(Flaw(file, 1, f"the file's name gives no ref: {error}"))
            return None
        if ref in taken:
            self._tell(Flaw(file, 1, f"{ref} is already defined"))
            return None
        document = self._document(file)
        workflow = None if document is None else self._read(ref, file, document)
        if document is None or workflow is None:
            self._break(ref)
            return None
        given = document.value.get("ref")
        if given not in (None, ref, name):
            self._tell(workflow.flaw(f"'ref' is ignored: the file's name makes it {ref}", "$.ref"))
        return workflow

    def _read(self, ref: str, file: str, document: Document, at: str = "$") -> Component | None:
        definition = document.value if at == "$" else document.value["workflow_definition"]
        parsed = parse(definition)
        place = Component(WorkflowDefinition, ref, {}, file, document, at)
        for each in (*parsed.problems, *parsed.warnings):
            self._tell(place.flaw(f"{each.path.removeprefix('$.')}: {each.message}", each.path))
        if parsed.definition is None or parsed.problems:
            return None
        try:
            header = msgspec.convert(definition, _Header)
            parameters.check_schema(header.parameters)
            parameters.check_schema(header.output)
        except (msgspec.ValidationError, SchemaError) as error:
            self._tell(place.flaw(str(error)))
            return None
        fields = {
            "label": header.label or ref.partition(".")[2],
            "description": header.description,
            "version": self._version if header.version is None else str(header.version),
            "definition": definition,
            "param_schema": header.parameters,
            "out_schema": header.output,
            "tags": header.tags,
        }
        return Component(WorkflowDefinition, ref, fields, file, document, at)

    def _file_of(self, action: Component) -> str | None:
        given = action.document.value.get("workflow_file")
        if not isinstance(given, str):
            return None
        name = given.removeprefix("./")
        candidates = (name, *(f"{folder}/{name}" for folder in (*FOLDERS, "actions")))
        return next((file for file in candidates if file in self._files and file != action.file), None)

    def _own_files(self) -> Iterator[str]:
        for folder in FOLDERS:
            yield from sorted(
                name
                for name in self._files
                if name.endswith((".yaml", ".yml")) and str(PurePosixPath(name).parent) == folder
            )

    def _document(self, file: str) -> Document | None:
        try:
            return documents.read(self._files[file])
        except DocumentError as error:
            self._tell(Flaw(file, error.line, str(error)))
            return None

    def _break(self, ref: str) -> None:
        self.broken |= {(Action, ref), (WorkflowDefinition, ref)}

    def _tell(self, flaw: Flaw) -> None:
        self._warnings.append(flaw)


def is_workflow_file(file: str, content: Json = None) -> bool:
    """Whether the pack's file ``file``, in which ``content`` is, says what a workflow does."""
    return str(PurePosixPath(file).parent) in FOLDERS or (file.startswith("actions/") and _runs_workflow(content))


def _runs_workflow(action_file: Json) -> bool:
    """Whether an action's YAML makes it a workflow."""
    return isinstance(action_file, dict) and any(
        action_file.get(key) is not None for key in ("workflow_file", "workflow_definition")
    )


def _completed(action: Component, workflow: Component) -> Component:
    """The action with what only its workflow's file says, and the workflow with what the action's says."""
    shared = ("description", "param_schema", "out_schema")
    fields = {name: workflow.fields[name] for name in shared if action.fields[name] is None}
    if action.document.value.get("label") is None:
        fields["label"] = workflow.fields["label"]
    if workflow.file != action.file:
        fields["entrypoint"] = workflow.file
    action.fields.update(fields)
    workflow.fields.update({name: action.fields[name] for name in (*shared, "label")})
    return action


def _action_of(workflow: Component) -> Component:
    """The action of a workflow that has no YAML for it."""
    fields = {name: workflow.fields[name] for name in ("label", "description", "param_schema", "out_schema")}
    fields |= {"entrypoint": workflow.file, "runtime_ref": None}
    return Component(Action, workflow.ref, fields, workflow.file, workflow.document)
