"""Routes of executions (contract: http-api 1.4, Executions)."""

from typing import Any, Final, get_args

import msgspec

from chalicelib.api.answers import Spread
from chalicelib.api.components import is_hidden, require_delegable
from chalicelib.api.enforcements import readable_enforcement
from chalicelib.api.errors import BadRequest, Conflict, Forbidden, NotFound, Unprocessable
from chalicelib.api.execution_views import (
    CreateExecutionRequest,
    ExecutionDetailQuery,
    ExecutionQuery,
    ExecutionResponse,
    ExecutionStats,
    ExecutionSummary,
    StatusPageQuery,
    WorkflowRun,
)
from chalicelib.api.idempotency import key_of
from chalicelib.api.routing import ROUTES, Call, grant
from chalicelib.api.row_access import row_filter
from chalicelib.api.secret_values import parameters_of
from chalicelib.api.views import Data, Page, Paging
from chalicelib.domain import variables
from chalicelib.domain.entities import Action, Execution, ExecutionStatus, Json, Key
from chalicelib.domain.variables import VariableError
from chalicelib.flow import quotas
from chalicelib.flow.cancel import NotCancellableError, cancel
from chalicelib.flow.gates import reason_to_wait
from chalicelib.flow.intake import request_execution
from chalicelib.store.listing import ExecutionFilter
from chalicelib.store.listing import Page as Span

_STATUSES: Final[tuple[str, ...]] = get_args(ExecutionStatus)
_ORIGIN: Final = (
    "permission_set_refs",
    "artifact_retention_policy",
    "artifact_retention_limit",
    "worker_selector",
    "worker_tolerations",
    "worker_affinity",
)


@ROUTES.get(
    "/api/v1/executions",
    needs=grant("executions", "read"),
    returns=Page[ExecutionSummary],
    query=ExecutionQuery,
    tag="executions",
)
def list_executions(call: Call) -> Page[ExecutionSummary]:
    """Executions, newest first."""
    query: ExecutionQuery = call.query
    wanted = msgspec.structs.asdict(query)
    for name in ("page", "per_page", "include_total"):
        del wanted[name]
    wanted["status"] = _status(query.status) if query.status else None
    return _page(call, wanted, query.paging, total=query.include_total)


@ROUTES.get(
    "/api/v1/executions/stats", needs=grant("executions", "read"), returns=Data[ExecutionStats], tag="executions"
)
def get_execution_stats(call: Call) -> Data[ExecutionStats]:
    """How many executions there are, by status."""
    counts = call.activity.execution_counts()
    return Data(
        ExecutionStats(
            total=sum(counts.values()),
            completed=counts["completed"],
            failed=counts["failed"],
            running=counts["running"] + counts["canceling"],
            pending=counts["requested"] + counts["scheduling"] + counts["scheduled"],
            cancelled=counts["cancelled"],
            timeout=counts["timeout"],
            abandoned=counts["abandoned"],
        )
    )


@ROUTES.get(
    "/api/v1/executions/status/{status}",
    needs=grant("executions", "read"),
    returns=Page[ExecutionSummary],
    query=StatusPageQuery,
    tag="executions",
    errors=(400,),
)
def list_executions_by_status(call: Call, status: str) -> Page[ExecutionSummary]:
    """Executions of one status, newest first, with totals."""
    return _page(call, {"status": _status(status)}, call.query.paging, total=True)


@ROUTES.get(
    "/api/v1/enforcements/{enforcement_id}/executions",
    needs=grant("enforcements", "read"),
    returns=Page[ExecutionSummary],
    query=StatusPageQuery,
    tag="executions",
    errors=(404,),
)
def list_executions_by_enforcement(call: Call, enforcement_id: int) -> Page[ExecutionSummary]:
    """What an enforcement started, with totals."""
    readable_enforcement(call, enforcement_id)
    return _page(call, {"enforcement": enforcement_id}, call.query.paging, total=True)


@ROUTES.post(
    "/api/v1/executions/execute",
    needs=grant("actions", "execute"),
    returns=Data[ExecutionResponse],
    body=CreateExecutionRequest,
    status=201,
    tag="executions",
    errors=(404,),
)
def execute(call: Call) -> Spread:
    """Run an action. Parameters that break its schema give an execution that is ``failed`` from the start and names
    every violation. An ``Idempotency-Key`` that was used within a day gives the first execution and starts nothing."""
    body: CreateExecutionRequest = call.body
    action = executable_action(call, body.action_ref)
    require_delegable(call, body.permission_set_refs)
    quotas.admit(call.services, call.tenant)
    execution = request_execution(
        call.services,
        call.tenant,
        action,
        parameters=body.parameters or {},
        keys=_keys(call, body.secrets or []),
        idempotency_key=key_of(call),
        executor=call.principal.identity_id,
        env_vars=_variables(body.env_vars),
        timeout=body.timeout or body.timeout_seconds,
        **{name: getattr(body, name) for name in _ORIGIN},
    )
    view = view_of(call, execution)
    # The published client expects objects here, never null.
    return Spread.of(view, config=view.config or {}, result=view.result or {})


@ROUTES.get(
    "/api/v1/executions/{execution_id}",
    needs=grant("executions", "read"),
    returns=Data[ExecutionResponse],
    query=ExecutionDetailQuery,
    tag="executions",
    errors=(404,),
)
def get_execution(call: Call, execution_id: int) -> Data[ExecutionResponse]:
    """One execution with its parameters and result."""
    execution = readable_execution(call, execution_id)
    return Data(view_of(call, execution, reveal=call.query.include_secret_values))


@ROUTES.post(
    "/api/v1/executions/{execution_id}/cancel",
    needs=grant("executions", "cancel"),
    returns=Data[ExecutionResponse],
    tag="executions",
    errors=(404, 409),
)
def cancel_execution(call: Call, execution_id: int) -> Data[ExecutionResponse]:
    """Stop an execution: at once while it waits, by way of ``canceling`` once it runs. 409 when it has ended."""
    call.require("executions", "cancel", call.context_of(_found(call, execution_id)))
    try:
        execution = cancel(call.services, call.tenant, execution_id)
    except NotCancellableError as error:
        raise Conflict(str(error)) from None
    if execution is None:
        raise NotFound.of("Execution", execution_id)
    return Data(view_of(call, execution), "Cancellation requested")


def _page(call: Call, wanted: dict[str, Any], paging: Paging, *, total: bool) -> Page[ExecutionSummary]:
    condition = ExecutionFilter(**wanted, **row_filter(call, "executions"))
    found = call.activity.executions(condition, Span(paging.number, paging.size, total))
    items = [ExecutionSummary.of(execution) for execution in found.items]
    return Page.part(items, paging, total=found.total, has_next=found.has_next)


def _status(text: str) -> str:
    """The status that ``text`` names; ``succeeded`` is ``completed`` (README 12). Raises BadRequest."""
    status = "completed" if text == "succeeded" else text
    if status not in _STATUSES:
        raise BadRequest(f"Invalid execution status '{text}': expected one of {', '.join(_STATUSES)}")
    return status


def readable_execution(call: Call, execution_id: int) -> Execution:
    """The execution, if the caller may read it; NotFound or Forbidden otherwise."""
    execution = _found(call, execution_id)
    call.require("executions", "read", call.context_of(execution))
    return execution


def _found(call: Call, execution_id: int) -> Execution:
    execution = call.activity.get_execution(execution_id)
    if execution is None:
        raise NotFound.of("Execution", execution_id)
    return execution


def view_of(call: Call, execution: Execution, *, reveal: bool = False) -> ExecutionResponse:
    """What the caller sees of an execution; of a workflow's, with how far it has come."""
    config = parameters_of(call, execution, reveal=reveal)
    waiting_for = execution.waiting_for or reason_to_wait(call.services, call.tenant, execution)
    return ExecutionResponse.of(execution, config=config, workflow=_run_of(call, execution), waiting_for=waiting_for)


def _run_of(call: Call, execution: Execution) -> WorkflowRun | None:
    action = call.snapshot.action(execution.action_ref)
    if action is None or action.workflow_def is None:
        return None
    run = call.services.store.tenant(call.tenant).workflows.get(execution.id)
    if run is None:
        return None
    state = run.state
    return WorkflowRun(
        workflow_def=run.origin.workflow_def,
        current_tasks=state.named("running"),
        completed_tasks=state.named("completed"),
        failed_tasks=state.named("failed"),
        skipped_tasks=state.named("skipped"),
        variables=state.variables,
        paused=state.paused,
    )


def executable_action(call: Call, action_ref: str) -> Action:
    """The action, if the caller may execute it; NotFound or Forbidden otherwise."""
    action = call.registry.actions.find(action_ref)
    if action is None or is_hidden(call, call.pack(action.pack_ref)):
        raise NotFound.of("Action", action_ref)
    call.require("actions", "execute", call.context_of(action))
    return action


def _keys(call: Call, refs: list[str]) -> list[Key]:
    """The keys that a request asks for by name. Unprocessable for an unknown one; Forbidden for one whose value the
    caller may not read: the action could tell it."""
    if not refs:
        return []
    keys = []
    for ref in refs:
        key = call.snapshot.key(ref) or call.registry.keys.get(ref)
        if key is None:
            raise Unprocessable(f"unknown key: {ref}", details={"path": "secrets"})
        to = "decrypt" if key.encrypted else "read"
        if not call.allows("keys", to, call.context_of(key)):
            raise Forbidden.lacking("keys", to)
        keys.append(key)
    return keys


def _variables(given: dict[str, Json] | None) -> dict[str, str] | None:
    """The environment variables that a request sets. Unprocessable for one that is not its to set."""
    try:
        return variables.checked(given)
    except VariableError as error:
        raise Unprocessable(f"Invalid env_vars: {error}", details={"path": "env_vars"}) from None
