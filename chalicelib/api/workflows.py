"""Routes of workflows (contract: http-api 1.4, Workflows).

A workflow is two rows that come, change and go together: its definition, and the action of the same ref that runs it.
So whoever may read, create, update or delete actions may do the same to workflows; there is no resource of their own
(docs/decisions/025-workflow-rows.md).
"""

from typing import Final

import msgspec

from chalicelib.api.actions import remove
from chalicelib.api.components import containing, pack_for_new, visible_pack
from chalicelib.api.errors import Conflict, Unprocessable
from chalicelib.api.routing import ROUTES, Call, grant, readable
from chalicelib.api.views import Data, Page, PageQuery, Success, given
from chalicelib.api.workflow_checks import checked, told
from chalicelib.api.workflow_views import (
    CreateWorkflowRequest,
    SaveWorkflowFileRequest,
    UpdateWorkflowRequest,
    WorkflowQuery,
    WorkflowResponse,
    WorkflowSummary,
)
from chalicelib.domain.entities import WorkflowDefinition
from chalicelib.domain.parameters import check_schema
from chalicelib.domain.workflow import companion
from chalicelib.store.registry import Delete, Put

_FIELDS: Final = ("label", "description", "version", "param_schema", "out_schema", "tags")


@ROUTES.get(
    "/api/v1/workflows", needs=readable("actions"), returns=Page[WorkflowSummary], query=WorkflowQuery, tag="workflows"
)
def list_workflows(call: Call) -> Page[WorkflowSummary]:
    """The workflows that the caller may read, by ref."""
    query: WorkflowQuery = call.query
    tags = {tag for each in (query.tags or "").split(",") if (tag := each.strip())}
    found = [
        workflow
        for workflow in containing(call.readable("actions", call.registry.workflows.visible()), query.search)
        if query.pack_ref in (None, workflow.pack_ref) and (not tags or tags.intersection(workflow.tags))
    ]
    return Page.slice_of(found, query.paging, WorkflowSummary.of)


@ROUTES.get(
    "/api/v1/packs/{pack_ref}/workflows",
    needs=readable("actions"),
    returns=Page[WorkflowSummary],
    query=PageQuery,
    tag="workflows",
    errors=(404,),
)
def list_pack_workflows(call: Call, pack_ref: str) -> Page[WorkflowSummary]:
    """The workflows of one pack."""
    visible_pack(call, pack_ref)
    workflows = [each for each in call.registry.workflows.visible() if each.pack_ref == pack_ref]
    return Page.slice_of(call.readable("actions", workflows), call.query.paging, WorkflowSummary.of)


@ROUTES.get(
    "/api/v1/workflows/{ref}", needs=readable("actions"), returns=Data[WorkflowResponse], tag="workflows", errors=(404,)
)
def get_workflow(call: Call, ref: str) -> Data[WorkflowResponse]:
    """One workflow."""
    workflow = call.to_read("actions", "Workflow", ref, call.registry.workflows.find(ref))
    return Data(WorkflowResponse.of(workflow, warnings=None))


@ROUTES.post(
    "/api/v1/workflows",
    needs=grant("actions", "create"),
    returns=Data[WorkflowResponse],
    body=CreateWorkflowRequest,
    status=201,
    tag="workflows",
    errors=(404, 409),
)
def create_workflow(call: Call) -> Data[WorkflowResponse]:
    """The workflow, and the action of the same ref that runs it. A definition that cannot run is 422 and says where and
    why; an action that does not exist yet is a warning."""
    body: CreateWorkflowRequest = call.body
    return _create(call, body, body.ref, companion.ENTRYPOINT)


@ROUTES.post(
    "/api/v1/packs/{pack_ref}/workflow-files",
    needs=grant("actions", "create"),
    returns=Data[WorkflowResponse],
    body=SaveWorkflowFileRequest,
    status=201,
    tag="workflows",
    errors=(404, 409),
)
def create_workflow_file(call: Call, pack_ref: str) -> Data[WorkflowResponse]:
    """The workflow ``{pack_ref}.{name}``, kept as every workflow is."""
    body: SaveWorkflowFileRequest = call.body
    if body.pack_ref != pack_ref:
        raise Unprocessable(f"'pack_ref' must be '{pack_ref}', as in the path", details={"path": "pack_ref"})
    return _create(call, body, f"{pack_ref}.{body.name}", f"workflows/{body.name}.workflow.yaml")


@ROUTES.put(
    "/api/v1/workflows/{ref}",
    needs=grant("actions", "update"),
    returns=Data[WorkflowResponse],
    body=UpdateWorkflowRequest,
    tag="workflows",
    errors=(404, 409),
)
def update_workflow(call: Call, ref: str) -> Data[WorkflowResponse]:
    """Change a workflow, and with it the action that runs it."""
    return _update(call, ref, call.body)


@ROUTES.put(
    "/api/v1/workflows/{ref}/file",
    needs=grant("actions", "update"),
    returns=Data[WorkflowResponse],
    body=SaveWorkflowFileRequest,
    tag="workflows",
    errors=(404, 409),
)
def update_workflow_file(call: Call, ref: str) -> Data[WorkflowResponse]:
    """The same, for whoever sends the whole workflow. Its ref cannot change."""
    body: SaveWorkflowFileRequest = call.body
    if f"{body.pack_ref}.{body.name}" != ref:
        raise Unprocessable(f"'pack_ref' and 'name' must be those of '{ref}'", details={"path": "name"})
    return _update(call, ref, body)


@ROUTES.delete(
    "/api/v1/workflows/{ref}", needs=grant("actions", "delete"), returns=Success, tag="workflows", errors=(404, 409)
)
def delete_workflow(call: Call, ref: str) -> Success:
    """The workflow goes with its action. Rules that name the action keep its ref and lose its id (semantics §1)."""
    call.to_write("actions", "delete", "Workflow", ref, call.registry.workflows.find(ref))
    action = call.registry.actions.get(ref)
    if action is None:
        call.registry.commit(Delete("workflow", ref))
    else:
        remove(call, action)
    return Success(f"Workflow '{ref}' deleted successfully")


def _create(
    call: Call, body: CreateWorkflowRequest | SaveWorkflowFileRequest, ref: str, entrypoint: str
) -> Data[WorkflowResponse]:
    pack = pack_for_new(call, ref, body.pack_ref)
    workflow = WorkflowDefinition(
        id=call.services.new_id(),
        created=call.now,
        updated=call.now,
        ref=ref,
        pack=pack.id,
        pack_ref=pack.ref,
        definition=body.definition,
        is_adhoc=True,
        **given(body, *_FIELDS),
    )
    call.require("actions", "create", call.context_of(workflow))
    if call.registry.actions.get(ref) is not None:
        raise Conflict.exists("Action", ref)
    warnings = _checked(call, workflow)
    action = companion.action_of(workflow, call.services.new_id(), entrypoint)
    call.registry.commit(Put(workflow, new=True), Put(action, new=True))
    shown = WorkflowResponse.of(workflow, warnings=warnings)
    return Data(shown, told("Workflow created successfully", warnings))


def _update(call: Call, ref: str, body: UpdateWorkflowRequest | SaveWorkflowFileRequest) -> Data[WorkflowResponse]:
    current = call.to_write("actions", "update", "Workflow", ref, call.registry.workflows.find(ref))
    workflow = msgspec.structs.replace(current, **given(body, *_FIELDS, "definition"), updated=call.now)
    warnings = _checked(call, workflow)
    changes = [Put(workflow)]
    action = call.registry.actions.get(ref)
    if action is not None:
        changes.append(Put(companion.in_step(action, workflow, call.now)))
    call.registry.commit(*changes)
    shown = WorkflowResponse.of(workflow, warnings=warnings)
    return Data(shown, told("Workflow updated successfully", warnings))


def _checked(call: Call, workflow: WorkflowDefinition) -> list[str]:
    check_schema(workflow.param_schema)
    check_schema(workflow.out_schema)
    return checked(call, workflow.ref, workflow.definition)
