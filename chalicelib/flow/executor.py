"""The executor: claims what is requested, gathers what its run needs, hands it to the execution plane (design §3)."""

import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Final

import msgspec

from chalicelib.domain.entities import Action, Execution, ExecutionStatus, Json
from chalicelib.domain.executions import DEFAULT_TIMEOUT, RUNNING, WAITING, lease_until
from chalicelib.domain.inquiries import ASK
from chalicelib.domain.parameters import secret_names
from chalicelib.domain.runtimes import CONTAINER, HTTP, NATIVE, RUNNERS
from chalicelib.domain.templates import REDACTED
from chalicelib.flow import (
    admission,
    artifacts,
    containers,
    endings,
    environments,
    gates,
    inquiries,
    sensors,
    sweeper,
    workflows,
)
from chalicelib.flow.archives import archive_of
from chalicelib.flow.environments import EnvironmentFailedError, EnvironmentPendingError
from chalicelib.flow.invoker import RunTooLargeError
from chalicelib.flow.logs import upload_form
from chalicelib.flow.rules import seen_by_sender
from chalicelib.flow.secrets import UnknownKeyError, reveal
from chalicelib.flow.stopping import stop_url
from chalicelib.flow.tasks import START_GRACE, NotForTasksError
from chalicelib.flow.tokens import token_hash
from chalicelib.protocol import EnvironmentRequested, ExecutionRequested, Pack, PolicyChanged, Run, SensorDue, Wake
from chalicelib.services import Services
from chalicelib.store.snapshot import Snapshot

_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_]")


Message = ExecutionRequested | EnvironmentRequested | SensorDue | Wake | PolicyChanged


def handle(services: Services, messages: Sequence[Message]) -> list[int]:
    """Start a batch of what is requested. Returns the positions of the messages to deliver again."""
    return endings.work_off(services, messages, lambda message: _take(services, message))


def _take(services: Services, message: Message) -> tuple[str, Execution] | None:
    if isinstance(message, EnvironmentRequested):
        environments.start(services, message)
    elif isinstance(message, SensorDue):
        sensors.start(services, message)
    elif isinstance(message, Wake):
        sweeper.look_at(services, message.tenant, message.id, services.clock())
    elif isinstance(message, PolicyChanged):
        admission.take_in(services, message)
    elif (over := gates.through(services, message, partial(_start, services))) is not None:
        return message.tenant, over
    return None


def _start(services: Services, message: ExecutionRequested) -> Execution | None:
    """Start what is requested, and return it if it has ended as it began."""
    snapshot = seen_by_sender(services, message.tenant, message, services.clock())
    activity = services.store.tenant(message.tenant).activity
    action = snapshot.action(message.action_ref)
    if action is not None and not (admitted := admission.admit(services, message, action)).begins:
        return admitted.over
    now = services.clock()  # from here on: its turn may have come only just now
    end = partial(_end, services, message, now)
    if action is not None and action.workflow_def is not None:
        endings.carry_out(services, message.tenant, workflows.start(services, snapshot, message, action))
        return None
    if action is None or (action.runtime_ref != NATIVE and action.runtime_ref not in RUNNERS):
        return end("failed", _cannot_run(message.action_ref, action))
    if action.runtime_ref == NATIVE and action.ref == ASK:
        inquiries.ask(services, snapshot, message)
        return None
    if action.runtime_ref == NATIVE:
        return end("completed", {"succeeded": True, "exit_code": 0, "duration_ms": 0}, started_at=now)
    try:
        libraries = environments.libraries_for(services, snapshot, action)
    except EnvironmentPendingError as pending:
        services.queues.executions_requested([message], delay=pending.delay)
        return None
    except EnvironmentFailedError as error:
        return end("failed", _failure(error))
    token = secrets.token_urlsafe(24)
    deadline = lease_until(now, message.timeout)
    if action.runtime_ref == CONTAINER and services.tasks is not None:
        deadline += START_GRACE
    execution = activity.claim(message.id, token_hash=token_hash(token), deadline=deadline, now=now, seat=message.seat)
    if execution is None:
        return None  # taken by an earlier delivery of this message, cancelled, or over
    try:
        _dispatch(services, _run(services, snapshot, message.tenant, execution, action, token, libraries))
    except (UnknownKeyError, RunTooLargeError, containers.NoImageError, NotForTasksError) as error:
        return activity.transition(execution.id, from_=RUNNING, to="failed", result=_failure(error), now=now)
    except Exception:
        # Undo the claim, so that the redelivered message can make it again.
        activity.transition(execution.id, from_=RUNNING, to="requested", attempt=execution.attempt, now=now)
        raise
    return None


def _end(
    services: Services,
    message: ExecutionRequested,
    now: datetime,
    status: ExecutionStatus,
    result: Json,
    started_at: datetime | None = None,
) -> Execution | None:
    """End what need not run, or cannot."""
    activity = services.store.tenant(message.tenant).activity
    over = activity.transition(message.id, from_=WAITING, to=status, result=result, started_at=started_at, now=now)
    return over or endings.told_again(services, message.tenant, message.id)


def _dispatch(services: Services, run: Run) -> None:
    if run.runner == "container" and services.tasks is not None:
        services.tasks.start(run, services.store.tenant(run.tenant).blobs)
    else:
        services.invoker.start(run)


def _failure(error: Exception) -> Json:
    return {"succeeded": False, "error": str(error)}


def _cannot_run(action_ref: str, action: Action | None) -> Json:
    if action is None:
        error = f"action {action_ref} no longer exists"
    else:
        error = f"action {action_ref} names the runtime {action.runtime_ref}, which nothing here runs"
    return {"succeeded": False, "error": error}


def _run(
    services: Services,
    snapshot: Snapshot,
    tenant: str,
    execution: Execution,
    action: Action,
    token: str,
    libraries: Pack | None,
) -> Run:
    revealed = reveal(services, snapshot, tenant, execution, action)
    blobs = services.store.tenant(tenant).blobs
    run = Run(
        tenant=tenant,
        execution=execution.id,
        attempt=execution.attempt,
        token=token,
        action_ref=action.ref,
        runner=RUNNERS[action.runtime_ref or ""],
        entrypoint=action.entrypoint,
        parameters=revealed.parameters,
        secrets=revealed.hidden + _strings_under(revealed.parameters, secret_names(action.param_schema)),
        parameter_delivery=action.parameter_delivery,
        parameter_format=action.parameter_format,
        output_format=action.output_format,
        environment=_environment(services, snapshot, tenant, execution, action),
        timeout=execution.timeout or DEFAULT_TIMEOUT,
        pack=archive_of(services, snapshot, action),
        libraries=libraries,
        logs=None if action.runtime_ref == HTTP else upload_form(blobs, execution, action),
        stop_url=stop_url(blobs, execution),
        artifacts=None if action.runtime_ref in (HTTP, CONTAINER) else artifacts.shared(services, tenant, execution),
    )
    return containers.contained(run, action) if run.runner == "container" else run


def _environment(
    services: Services, snapshot: Snapshot, tenant: str, execution: Execution, action: Action
) -> dict[str, str]:
    """The variables of semantics §2.6; what concerns parameters is the runner's to add."""
    environment: dict[str, str] = {}
    runtime = snapshot.runtime(action.runtime_ref) if action.runtime_ref else None
    if runtime is not None:
        for name, value in (runtime.execution_config.get("env_vars") or {}).items():
            environment[name] = value if isinstance(value, str) else str(value.get("value", ""))
    environment |= execution.env_vars or {}
    environment |= _context(execution.config)
    environment |= {
        "ATTUNE_EXEC_ID": str(execution.id),
        "ATTUNE_ACTION": action.ref,
        "ATTUNE_PACK_REF": action.pack_ref,
        "ATTUNE_API_URL": services.settings.api_url,
    }
    if execution.rule_ref:
        environment["ATTUNE_RULE"] = execution.rule_ref
    if execution.trigger_ref:
        environment["ATTUNE_TRIGGER"] = execution.trigger_ref
    if execution.permission_set_refs:
        environment["ATTUNE_API_TOKEN"] = services.tokens.issue_execution(
            tenant=tenant,
            execution=execution,
            action_ref=action.ref,
            pack_ref=action.pack_ref,
            now=services.clock(),
        )
    return environment


def _context(config: Json) -> dict[str, str]:
    """``ATTUNE_CONTEXT_<KEY>`` for what the parameter ``context`` holds; no secret of it (README 11)."""
    context = config.get("context") if isinstance(config, dict) else None
    if not isinstance(context, dict) or context == REDACTED:
        return {}
    return {
        f"ATTUNE_CONTEXT_{_NOT_IN_NAMES.sub('_', name).upper()}": value
        if isinstance(value, str)
        else msgspec.json.encode(value).decode()
        for name, value in context.items()
        if value not in (None, REDACTED)
    }


def _strings_under(parameters: dict[str, Json], names: frozenset[str]) -> list[str]:
    return [value for name, value in parameters.items() if name in names and isinstance(value, str)]
