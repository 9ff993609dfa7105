"""What a rule's answer says of its timer."""

from chalicelib.api.errors import Unprocessable
from chalicelib.api.routing import Call
from chalicelib.api.rule_views import RuleResponse, ScheduleResponse
from chalicelib.domain import schedules
from chalicelib.domain import timers as core
from chalicelib.domain.entities import Rule
from chalicelib.domain.schedules import ScheduleError
from chalicelib.flow import timers


def response_of(call: Call, rule: Rule) -> RuleResponse:
    """The rule in full, with when its timer fires next and fired last."""
    if not schedules.is_timer(rule.trigger_ref):
        return RuleResponse.of(rule)
    stored = call.services.store.tenant(call.tenant).timers.get(rule.ref)
    if stored is None or stored.timer.rule != rule.id:
        return RuleResponse.of(rule)
    if not stored.armed:
        return RuleResponse.of(rule, last_fired_at=stored.last_fired_at)
    coming = core.upcoming(stored.timer, call.now, 1)
    return RuleResponse.of(
        rule,
        next_fire_at=coming[0] if coming else None,
        last_fired_at=stored.last_fired_at,
        timer_reason=core.why_silent(stored.timer, call.now, stored.last_fired_at),
    )


def schedule_of(call: Call, rule: Rule, count: int) -> ScheduleResponse:
    """The next ``count`` firings. Raises Unprocessable for a rule that is no timer."""
    if not schedules.is_timer(rule.trigger_ref):
        raise Unprocessable(f"Rule '{rule.ref}' is on trigger '{rule.trigger_ref}', which is no timer")
    try:
        fires = timers.schedule_of(call.services, call.tenant, rule, count)
    except ScheduleError as error:
        return ScheduleResponse(rule_ref=rule.ref, enabled=rule.enabled, fires=[], reason=str(error))
    answer = response_of(call, rule)
    return ScheduleResponse(rule_ref=rule.ref, enabled=rule.enabled, fires=fires, reason=answer.timer_reason)
