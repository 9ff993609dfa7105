"""Trying a rule out: what an event with a given payload would make it do, without doing it."""

from chalicelib.api.routing import ROUTES, SIGNED_IN, Call
from chalicelib.api.rule_views import ClauseView, RuleTrialResponse, TryRuleRequest
from chalicelib.api.views import Data
from chalicelib.domain.entities import Event
from chalicelib.flow.rules import Consideration, consider


@ROUTES.post(
    "/api/v1/rules/{ref}/test",
    needs=SIGNED_IN,
    returns=Data[RuleTrialResponse],
    body=TryRuleRequest,
    tag="rules",
    errors=(404,),
)
def try_rule(call: Call, ref: str) -> Data[RuleTrialResponse]:
    """Whether an event with this payload would fire the rule, each condition with the value it found, and the
    parameters that its action would get. Secrets stay masked. Nothing is stored and nothing runs."""
    rule = call.to_read("rules", "Rule", ref, call.registry.rules.find(ref))
    event = Event(
        id=call.services.new_id(),
        trigger=rule.trigger,
        trigger_ref=rule.trigger_ref,
        created=call.now,
        payload=call.body.payload,
    )
    considered = consider(call.snapshot, event, rule, now=call.now)
    execution = considered.execution
    return Data(
        RuleTrialResponse(
            rule_ref=rule.ref,
            action_ref=rule.action_ref,
            enabled=rule.enabled,
            matched=considered.outcome.matched,
            would_fire=rule.enabled and execution is not None and execution.status == "requested",
            conditions=[ClauseView.of(clause) for clause in considered.outcome.clauses],
            parameters=execution.config or {} if execution is not None else None,
            error=_error(considered),
        )
    )


def _error(considered: Consideration) -> str | None:
    execution = considered.execution
    if execution is not None and execution.status == "failed":
        error: str = execution.result["error"]
        return error
    return considered.enforcement.error if considered.enforcement is not None else None
