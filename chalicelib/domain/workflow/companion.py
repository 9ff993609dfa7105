"""The action that runs a workflow: it has the workflow's ref and says of itself what the workflow says
(workflow-language §1)."""

from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec

from chalicelib.domain.entities import Action, Json, WorkflowDefinition

ENTRYPOINT: Final = "workflow"  # workflow-language §1: of one made by API
DEFAULT_VERSION: Final = "1.0.0"

_SHARED: Final = ("label", "description", "param_schema", "out_schema")

T = TypeVar("T", Action, WorkflowDefinition)


def action_of(workflow: WorkflowDefinition, id_: int, entrypoint: str = ENTRYPOINT) -> Action:
    """The new action, of that id, that runs ``workflow``."""
    return Action(
        id=id_,
        ref=workflow.ref,
        created=workflow.created,
        updated=workflow.updated,
        pack=workflow.pack,
        pack_ref=workflow.pack_ref,
        entrypoint=entrypoint,
        workflow_def=workflow.id,
        is_adhoc=workflow.is_adhoc,
        **_shared_of(workflow),
    )


def workflow_of(action: Action, id_: int, definition: Json, now: datetime) -> WorkflowDefinition:
    """The new workflow, of that id, that ``action`` is to run from now on."""
    said = definition if isinstance(definition, dict) else {}
    version, tags = said.get("version"), said.get("tags")
    return WorkflowDefinition(
        id=id_,
        ref=action.ref,
        created=now,
        updated=now,
        pack=action.pack,
        pack_ref=action.pack_ref,
        version=DEFAULT_VERSION if version in (None, "") else str(version)[:50],
        definition=definition,
        tags=[str(tag) for tag in tags] if isinstance(tags, list) else [],
        is_adhoc=action.is_adhoc,
        **_shared_of(action),
    )


def running(action: Action, workflow: WorkflowDefinition) -> Action:
    """``action`` as the one that runs ``workflow``, whatever it ran before."""
    if action.workflow_def == workflow.id:
        return action
    return msgspec.structs.replace(
        action,
        workflow_def=workflow.id,
        entrypoint=ENTRYPOINT,
        runtime=None,
        runtime_ref=None,
        container=None,
        content=None,
        manifest=None,
    )


def in_step(follower: T, leader: Action | WorkflowDefinition, now: datetime) -> T:
    """``follower`` as it has to be beside ``leader``, the other of the two, which has changed."""
    return msgspec.structs.replace(follower, **_shared_of(leader), updated=now)


def _shared_of(row: Action | WorkflowDefinition) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _SHARED}
