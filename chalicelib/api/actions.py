"""Routes of actions (contract: http-api 1.4, Actions)."""

from typing import Final

import msgspec

from chalicelib.api.action_files import check_entrypoint, files_of
from chalicelib.api.action_views import (
    ActionQuery,
    ActionResponse,
    ActionSearchHit,
    ActionSearchQuery,
    ActionSummary,
    CreateActionRequest,
    UpdateActionRequest,
)
from chalicelib.api.components import containing, is_hidden, pack_for_new, require_delegable, visible_pack
from chalicelib.api.delegation import require_grants
from chalicelib.api.errors import NotFound, Unprocessable, ValidationFailed
from chalicelib.api.routing import ROUTES, Call, grant, readable
from chalicelib.api.views import Data, Page, Success, given, patched
from chalicelib.api.workflow_checks import checked, told
from chalicelib.domain import refs
from chalicelib.domain.admission import problem_of
from chalicelib.domain.entities import Action, Json, Runtime
from chalicelib.domain.parameters import check_schema
from chalicelib.domain.runtimes import CONTAINER, SHELL
from chalicelib.domain.workflow import companion
from chalicelib.flow import admission, garbage
from chalicelib.flow.permission_sets import lent_by_rules
from chalicelib.store.registry import Delete, Put

DEFAULT_RUNTIME: Final = SHELL  # as in a pack's action.yaml (semantics §2.9)

# Fields that a request sets as they are, and those that it sets or clears by {"op": ...}.
_PLAIN: Final = (
    "label",
    "description",
    "entrypoint",
    "required_worker_runtimes",
    "worker_selector",
    "worker_tolerations",
    "worker_affinity",
    "param_schema",
    "out_schema",
    "accesses_mcp",
    "default_execution_permission_set_refs",
    "secrets",
    "parameter_delivery",
    "parameter_format",
    "output_format",
    "container",
)
_NULLABLE: Final = (
    "runtime_version_constraint",
    "artifact_retention_policy",
    "artifact_retention_limit",
    "log_retention_policy",
    "log_retention_limit",
    "concurrency",
)
_OF_PROGRAMS: Final = ("entrypoint", "container")  # what a workflow has not
# Who changes one of these decides what runs.
_DECISIVE: Final = (
    "entrypoint",
    "runtime_ref",
    "container",
    "param_schema",
    "out_schema",
    "secrets",
    "default_execution_permission_set_refs",
    "concurrency",
)


@ROUTES.get("/api/v1/actions", needs=readable("actions"), returns=Page[ActionSummary], query=ActionQuery, tag="actions")
def list_actions(call: Call) -> Page[ActionSummary]:
    """The actions that the caller may read, by ref."""
    actions = containing(call.readable("actions", call.registry.actions.visible()), call.query.q)
    if call.query.executable_with_current_access:
        actions = [each for each in actions if call.allows("actions", "execute", call.context_of(each))]
    return Page.slice_of(actions, call.query.paging, ActionSummary.of)


@ROUTES.get(
    "/api/v1/actions/search",
    needs=readable("actions"),
    returns=Page[ActionSearchHit],
    query=ActionSearchQuery,
    tag="actions",
    errors=(404,),
)
def search_actions(call: Call) -> Page[ActionSearchHit]:
    """Actions by text, within some packs if they are named."""
    actions = containing(call.readable("actions", call.registry.actions.visible()), call.query.q)
    packs = [ref for each in (call.query.packs or "").split(",") if (ref := each.strip())]
    for ref in packs:
        visible_pack(call, ref)
    if packs:
        actions = [each for each in actions if each.pack_ref in packs]
    return Page.slice_of(actions, call.query.paging, ActionSearchHit.of)


@ROUTES.get(
    "/api/v1/packs/{pack_ref}/actions",
    needs=readable("actions"),
    returns=Page[ActionSummary],
    query=ActionQuery,
    tag="actions",
    errors=(404,),
)
def list_pack_actions(call: Call, pack_ref: str) -> Page[ActionSummary]:
    """The actions of one pack."""
    visible_pack(call, pack_ref)
    actions = [each for each in call.registry.actions.visible() if each.pack_ref == pack_ref]
    found = containing(call.readable("actions", actions), call.query.q)
    return Page.slice_of(found, call.query.paging, ActionSummary.of)


@ROUTES.post(
    "/api/v1/actions",
    needs=grant("actions", "create"),
    returns=Data[ActionResponse],
    body=CreateActionRequest,
    status=201,
    tag="actions",
    errors=(404, 409),
)
def create_action(call: Call) -> Data[ActionResponse]:
    """The action's code is its ``entrypoint``, run by ``runtime_ref`` (default: core.shell)."""
    body: CreateActionRequest = call.body
    pack = pack_for_new(call, body.ref, body.pack_ref)
    is_workflow = body.workflow_definition is not None
    if body.entrypoint is None and not is_workflow:
        problem = "Missing required field"
        raise ValidationFailed(f"'entrypoint': {problem}", {"path": "entrypoint", "problem": problem})
    runtime = None if is_workflow else _runtime(call, body) or call.registry.runtimes.find(DEFAULT_RUNTIME)
    action = Action(
        id=call.services.new_id(),
        created=call.now,
        updated=call.now,
        ref=body.ref,
        pack=pack.id,
        pack_ref=pack.ref,
        runtime=runtime.id if runtime else None,
        runtime_ref=runtime.ref if runtime else None,
        timeout=body.timeout or body.timeout_seconds,
        is_adhoc=True,
        **{"entrypoint": companion.ENTRYPOINT} | given(body, *_PLAIN, *_NULLABLE),
    )
    call.require("actions", "create", call.context_of(action))
    _check(call, action)
    action, beside, warnings = _with_workflow(call, action, body.workflow_definition)
    call.registry.commit(Put(action, new=True), *beside)
    return Data(ActionResponse.of(action, warnings=warnings), told("Action created successfully", warnings))


@ROUTES.get(
    "/api/v1/actions/{ref}", needs=readable("actions"), returns=Data[ActionResponse], tag="actions", errors=(404,)
)
def get_action(call: Call, ref: str) -> Data[ActionResponse]:
    """One action."""
    return Data(ActionResponse.of(call.to_read("actions", "Action", ref, call.registry.actions.find(ref))))


@ROUTES.put(
    "/api/v1/actions/{ref}",
    needs=grant("actions", "update"),
    returns=Data[ActionResponse],
    body=UpdateActionRequest,
    tag="actions",
    errors=(404, 409),
)
def update_action(call: Call, ref: str) -> Data[ActionResponse]:
    """Change an action. Whoever changes what it does must have the permissions that it runs with."""
    body: UpdateActionRequest = call.body
    current = call.to_write("actions", "update", "Action", ref, call.registry.actions.find(ref))
    is_workflow = body.workflow_definition is not None or current.workflow_def is not None
    changes = given(body, *(name for name in _PLAIN if not (is_workflow and name in _OF_PROGRAMS)))
    changes |= {name: patched(getattr(body, name), getattr(current, name)) for name in _NULLABLE}
    runtime = None if is_workflow else _runtime(call, body)
    if runtime is not None:
        changes |= {"runtime": runtime.id, "runtime_ref": runtime.ref}
    if "entrypoint" in changes and (files := files_of(call, current)):
        check_entrypoint(changes["entrypoint"], files)
    timeout = body.timeout or body.timeout_seconds or current.timeout
    action = msgspec.structs.replace(current, **changes, timeout=timeout, updated=call.now)
    if any(getattr(action, name) != getattr(current, name) for name in _DECISIVE):
        _check(call, action)
    action, beside, warnings = _with_workflow(call, action, body.workflow_definition)
    call.registry.commit(Put(action), *beside)
    admission.changed(call.services, call.tenant, current, action)
    return Data(ActionResponse.of(action, warnings=warnings), told("Action updated successfully", warnings))


@ROUTES.delete(
    "/api/v1/actions/{ref}", needs=grant("actions", "delete"), returns=Success, tag="actions", errors=(404, 409)
)
def delete_action(call: Call, ref: str) -> Success:
    """Rules that name the action keep its ref and lose its id (semantics §1); its workflow goes with it."""
    remove(call, call.to_write("actions", "delete", "Action", ref, call.registry.actions.find(ref)))
    return Success(f"Action '{ref}' deleted successfully")


def remove(call: Call, action: Action) -> None:
    """Delete an action, with the workflow that it runs if it runs one."""
    orphans = [
        Put(msgspec.structs.replace(rule, action=None))
        for rule in call.registry.rules.list()
        if rule.action_ref == action.ref and rule.action is not None
    ]
    call.registry.commit(Delete("action", action.ref), Delete("workflow", action.ref), *orphans)
    admission.changed(call.services, call.tenant, action, None)
    if action.is_adhoc and action.content is not None:
        garbage.leave(call.services, call.tenant, [action])


def _with_workflow(call: Call, action: Action, definition: Json) -> tuple[Action, list[Put], list[str]]:
    """``action`` with the workflow that it runs: the action as it then is, what to write besides, and what to tell.

    Nothing of it for an action that runs none and is given no ``definition``.
    """
    if definition is None and action.workflow_def is None:
        return action, [], []
    warnings = [] if definition is None else checked(call, action.ref, definition, "workflow_definition")
    current = call.registry.workflows.get(action.ref)
    if current is None:
        workflow = companion.workflow_of(action, call.services.new_id(), definition, call.now)
        return companion.running(action, workflow), [Put(workflow, new=True)], warnings
    workflow = companion.in_step(current, action, call.now)
    if definition is not None:
        workflow = msgspec.structs.replace(workflow, definition=definition)
    return companion.running(action, workflow), [Put(workflow)], warnings


def _check(call: Call, action: Action) -> None:
    check_schema(action.param_schema)
    check_schema(action.out_schema)
    if action.concurrency is not None and (problem := problem_of(action.concurrency, action.param_schema)):
        raise Unprocessable(f"Invalid concurrency: {problem}", details={"path": "concurrency.parameters"})
    for ref in action.secrets:
        refs.key_ref(ref)
    if action.runtime_ref == CONTAINER and action.container is None:
        raise Unprocessable('an action of core.container names its image: "container": {"image": ...}')
    require_delegable(call, action.default_execution_permission_set_refs)
    require_grants(call, lent_by_rules(call.registry, {action.ref}), f"A rule that runs '{action.ref}'")


def _runtime(call: Call, body: CreateActionRequest | UpdateActionRequest) -> Runtime | None:
    """The runtime that a request names by ref or id; NotFound for one that does not exist."""
    if body.runtime_ref is None and body.runtime is None:
        return None
    runtimes = call.registry.runtimes
    wanted = body.runtime if body.runtime_ref is None else body.runtime_ref
    found = runtimes.find(wanted) if isinstance(wanted, str) else runtimes.by_id(wanted or 0)
    if found is None or is_hidden(call, call.pack(found.pack_ref)):
        raise NotFound.of("Runtime", wanted)
    return found
