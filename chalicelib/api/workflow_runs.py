"""Routes of what can be done with a run: its history, pause and resume, and running it again (README 9)."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET

from chalicelib.api.errors import Conflict, NotFound, Unprocessable
from chalicelib.api.execution_views import ExecutionResponse
from chalicelib.api.executions import executable_action, readable_execution, view_of
from chalicelib.api.routing import ROUTES, Call, grant
from chalicelib.api.views import Body, Data, Json, Omittable, Page, Paging, Query, View
from chalicelib.domain.entities import Execution
from chalicelib.domain.executions import TERMINAL
from chalicelib.flow import endings, quotas, workflows
from chalicelib.flow.intake import run_again
from chalicelib.flow.workflows import Aftermath, NotAWorkflowError, RerunError
from chalicelib.services import Services


class HistoryQuery(Query, kw_only=True, frozen=True):
    """``operation``: only records of that kind."""

    operation: str | None = None
    page: Annotated[int, msgspec.Meta(ge=1)] = 1
    page_size: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1000

    @property
    def paging(self) -> Paging:
        return Paging(self.page, self.page_size)


class HistoryRecord(View, kw_only=True, frozen=True):
    """One thing that happened. ``entity_id`` is the execution that it happened to, ``entity_ref`` its action, or the
    task of a workflow; ``cause`` what it followed from."""

    time: datetime
    operation: str
    entity_id: int
    entity_ref: str | None
    changed_fields: list[str]
    old_values: Json
    new_values: Json
    task: Omittable[str] = UNSET
    task_index: Omittable[int] = UNSET
    cause: Omittable[str] = UNSET


class RerunRequest(Body, kw_only=True, frozen=True):
    """``tasks`` of a workflow are run again, with what follows them; without any, the whole from the start. ``reset``:
    a ``with_items`` among them with all its items, not only with those that failed."""

    tasks: Annotated[list[str], msgspec.Meta(max_length=1000)] | None = None
    reset: bool = False


@ROUTES.get(
    "/api/v1/executions/{execution_id}/history",
    needs=grant("executions", "read"),
    returns=Page[HistoryRecord],
    query=HistoryQuery,
    tag="executions",
    errors=(404,),
)
def get_execution_history(call: Call, execution_id: int) -> Page[HistoryRecord]:
    """The story of an execution from its beginning; of a workflow, with that of its tasks."""
    execution = readable_execution(call, execution_id)
    own = _own_records(execution)
    # In one step a run's last task and the run itself end: in this order.
    last = [own.pop()] if execution.status in TERMINAL else []
    records = sorted([*own, *_records_of_tasks(call, execution), *last], key=lambda record: record.time)
    query: HistoryQuery = call.query
    if query.operation is not None:
        records = [record for record in records if record.operation == query.operation]
    start = (query.page - 1) * query.page_size
    items = records[start : start + query.page_size]
    return Page.part(items, query.paging, total=len(records), has_next=start + query.page_size < len(records))


@ROUTES.post(
    "/api/v1/executions/{execution_id}/pause",
    needs=grant("executions", "cancel"),
    returns=Data[ExecutionResponse],
    tag="executions",
    errors=(404, 409),
)
def pause_execution(call: Call, execution_id: int) -> Data[ExecutionResponse]:
    """Start no further task of a workflow until it is resumed; tasks that run go on to their end."""
    return _told(call, execution_id, workflows.pause, "Workflow paused")


@ROUTES.post(
    "/api/v1/executions/{execution_id}/resume",
    needs=grant("executions", "cancel"),
    returns=Data[ExecutionResponse],
    tag="executions",
    errors=(404, 409),
)
def resume_execution(call: Call, execution_id: int) -> Data[ExecutionResponse]:
    """Let a paused workflow go on."""
    return _told(call, execution_id, workflows.resume, "Workflow resumed")


@ROUTES.post(
    "/api/v1/executions/{execution_id}/rerun",
    needs=grant("actions", "execute"),
    returns=Data[ExecutionResponse],
    body=RerunRequest,
    status=201,
    tag="executions",
    errors=(404, 409),
)
def rerun_execution(call: Call, execution_id: int) -> Data[ExecutionResponse]:
    """Run an ended execution again with the same parameters: a new one, whose ``original_execution`` it is. Of a
    workflow, from ``tasks`` on, keeping what succeeded before them."""
    body: RerunRequest = call.body
    before = readable_execution(call, execution_id)
    if before.status not in TERMINAL:
        raise Conflict(f"execution {execution_id} is {before.status}: it can be run again when it has ended")
    action = executable_action(call, before.action_ref)
    tasks = list(dict.fromkeys(body.tasks or []))
    quotas.admit(call.services, call.tenant)
    try:
        execution = run_again(
            call.services, call.tenant, action, before, tasks, reset=body.reset, executor=call.principal.identity_id
        )
    except RerunError as error:
        raise Unprocessable(str(error), details={"path": "tasks"}) from None
    return Data(view_of(call, execution), "Execution requested")


def _told(
    call: Call, execution_id: int, tell: Callable[[Services, str, int], Aftermath], message: str
) -> Data[ExecutionResponse]:
    execution = readable_execution(call, execution_id)
    call.require("executions", "cancel", call.context_of(execution))
    if execution.status in TERMINAL:
        raise Conflict(f"execution {execution_id} is {execution.status} already")
    try:
        aftermath = tell(call.services, call.tenant, execution_id)
    except NotAWorkflowError as error:
        raise Conflict(str(error)) from None
    endings.carry_out(call.services, call.tenant, aftermath)
    after = call.activity.get_execution(execution_id)
    if after is None:
        raise NotFound.of("Execution", execution_id)
    return Data(view_of(call, after), message)


def _own_records(execution: Execution) -> list[HistoryRecord]:
    """What the execution's own row tells: when it was requested, began and ended."""
    moments: list[tuple[datetime, str]] = [(execution.created, "requested")]
    if execution.started_at is not None:
        moments.append((execution.started_at, "running"))
    if execution.status in (*TERMINAL, "canceling"):
        moments.append((execution.updated, execution.status))
    told: list[HistoryRecord] = []
    before: str | None = None
    for time, status in moments:
        told.append(
            HistoryRecord(
                time=time,
                operation=status,
                entity_id=execution.id,
                entity_ref=execution.action_ref,
                changed_fields=["status"],
                old_values=None if before is None else {"status": before},
                new_values={"status": status},
            )
        )
        before = status
    return told


def _records_of_tasks(call: Call, execution: Execution) -> list[HistoryRecord]:
    told: list[HistoryRecord] = []
    for step in call.services.store.tenant(call.tenant).workflows.history(execution.id):
        for note in step.notes:
            task = note.get("task")
            if task is None and note["what"] in TERMINAL:
                continue  # the execution's own row tells that
            values = {"status": note["what"]} | (note.get("detail") or {})
            told.append(
                HistoryRecord(
                    time=step.time,
                    operation=note["what"],
                    entity_id=note.get("execution") or execution.id,
                    entity_ref=task or execution.action_ref,
                    changed_fields=list(values),
                    old_values=None,
                    new_values=values,
                    task=task or UNSET,
                    task_index=UNSET if note.get("index") is None else note["index"],
                    cause=note.get("cause") or UNSET,
                )
            )
    return told
