"""Trying a rule out: what an event with a given payload would make it do, without doing it."""

from functools import partial

from chalicelib.api.routing import Call
from chalicelib.api.rule_views import ClauseView, RuleTrialResponse
from chalicelib.api.secret_values import parameters_of
from chalicelib.domain.entities import Event, Json, Rule
from chalicelib.flow.rules import Consideration, consider
from chalicelib.flow.secrets import read_key_for


def try_out(call: Call, rule: Rule, payload: Json) -> RuleTrialResponse:
    """What ``rule`` makes of an imagined event of its trigger. Nothing is stored and nothing runs."""
    event = Event(
        id=call.services.new_id(),
        trigger=rule.trigger,
        trigger_ref=rule.trigger_ref,
        created=call.now,
        payload=payload,
    )
    considered = consider(
        call.snapshot,
        event,
        rule,
        now=call.now,
        read_key=partial(read_key_for, call.services, call.snapshot, call.principal.identity_id),
    )
    execution = considered.execution
    return RuleTrialResponse(
        rule_ref=rule.ref,
        action_ref=rule.action_ref,
        enabled=rule.enabled,
        matched=considered.outcome.matched,
        would_fire=rule.enabled and execution is not None and execution.status == "requested",
        conditions=[ClauseView.of(clause) for clause in considered.outcome.clauses],
        parameters=parameters_of(call, execution) or {} if execution is not None else None,
        error=_error(considered),
    )


def _error(considered: Consideration) -> str | None:
    execution = considered.execution
    if execution is not None and execution.status == "failed":
        error: str = execution.result["error"]
        return error
    return considered.enforcement.error if considered.enforcement is not None else None
