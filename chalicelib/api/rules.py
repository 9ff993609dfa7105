"""Routes of rules (contract: http-api 1.4, Rules)."""

from typing import Final

import msgspec
from msgspec import UNSET

from chalicelib.api.components import containing, is_hidden, pack_for_new, require_delegable, visible_pack
from chalicelib.api.errors import NotFound, Unprocessable
from chalicelib.api.routing import ROUTES, Call, grant, readable
from chalicelib.api.rule_timers import response_of, schedule_of
from chalicelib.api.rule_trial import try_out
from chalicelib.api.rule_views import (
    CreateRuleRequest,
    RuleQuery,
    RuleResponse,
    RuleSummary,
    RuleTrialResponse,
    ScheduleQuery,
    ScheduleResponse,
    TryRuleRequest,
    UpdateRuleRequest,
)
from chalicelib.api.views import Data, Json, Page, PageQuery, Success, given
from chalicelib.domain import schedules
from chalicelib.domain.criteria import compile_criteria
from chalicelib.domain.entities import Action, Rule, Trigger
from chalicelib.domain.parameters import validate_templated
from chalicelib.domain.schedules import ScheduleError
from chalicelib.domain.templates import REDACTED
from chalicelib.flow import sensors, timers
from chalicelib.flow.secrets import open_rule, seal_rule
from chalicelib.store.registry import Delete, Put

_CHANGEABLE: Final = (
    "label",
    "description",
    "action_ref",
    "trigger_ref",
    "conditions",
    "action_params",
    "trigger_params",
    "missed_run_policy",
    "enabled",
)

# Who changes one of these decides what runs, and answers for it.
_DECISIVE: Final = (
    "action_ref",
    "trigger_ref",
    "conditions",
    "action_params",
    "trigger_params",
    "permission_set_refs",
)


@ROUTES.get("/api/v1/rules", needs=readable("rules"), returns=Page[RuleSummary], query=RuleQuery, tag="rules")
def list_rules(call: Call) -> Page[RuleSummary]:
    """The rules that the caller may read, by ref."""
    query: RuleQuery = call.query
    wanted = given(query, "enabled", "pack_ref", "action_ref", "trigger_ref")
    rules = [
        rule
        for rule in call.registry.rules.visible()
        if all(getattr(rule, name) == value for name, value in wanted.items())
    ]
    return _page(call, containing(rules, query.q))


@ROUTES.get("/api/v1/rules/enabled", needs=readable("rules"), returns=Page[RuleSummary], query=PageQuery, tag="rules")
def list_enabled_rules(call: Call) -> Page[RuleSummary]:
    """The enabled rules that the caller may read, by ref."""
    return _page(call, [rule for rule in call.registry.rules.visible() if rule.enabled])


@ROUTES.get(
    "/api/v1/packs/{pack_ref}/rules",
    needs=readable("rules"),
    returns=Page[RuleSummary],
    query=RuleQuery,
    tag="rules",
    errors=(404,),
)
def list_pack_rules(call: Call, pack_ref: str) -> Page[RuleSummary]:
    """The rules of one pack."""
    visible_pack(call, pack_ref)
    rules = [rule for rule in call.registry.rules.visible() if rule.pack_ref == pack_ref]
    return _page(call, containing(rules, call.query.q))


@ROUTES.get(
    "/api/v1/actions/{action_ref}/rules",
    needs=readable("rules"),
    returns=Page[RuleSummary],
    query=PageQuery,
    tag="rules",
    errors=(404,),
)
def list_action_rules(call: Call, action_ref: str) -> Page[RuleSummary]:
    """The rules that run an action."""
    _action(call, action_ref)
    return _page(call, [rule for rule in call.registry.rules.visible() if rule.action_ref == action_ref])


@ROUTES.get(
    "/api/v1/triggers/{trigger_ref}/rules",
    needs=readable("rules"),
    returns=Page[RuleSummary],
    query=PageQuery,
    tag="rules",
    errors=(404,),
)
def list_trigger_rules(call: Call, trigger_ref: str) -> Page[RuleSummary]:
    """The rules on a trigger; all of them for a sensor that serves it (semantics §2.13)."""
    if trigger_ref in call.principal.served_triggers:
        return Page.slice_of(call.registry.rules_by_trigger(trigger_ref), call.query.paging, RuleSummary.of)
    _trigger(call, trigger_ref)
    return _page(call, call.registry.rules_by_trigger(trigger_ref))


@ROUTES.post(
    "/api/v1/rules",
    needs=grant("rules", "create"),
    returns=Data[RuleResponse],
    body=CreateRuleRequest,
    status=201,
    tag="rules",
    errors=(404, 409),
)
def create_rule(call: Call) -> Data[RuleResponse]:
    """The rule is its creator's: its executions run in their name."""
    body: CreateRuleRequest = call.body
    pack = pack_for_new(call, body.ref, body.pack_ref)
    rule = Rule(
        id=call.services.new_id(),
        created=call.now,
        updated=call.now,
        ref=body.ref,
        pack=pack.id,
        pack_ref=pack.ref,
        label=body.label,
        description=body.description,
        action_ref=body.action_ref,
        trigger_ref=body.trigger_ref,
        conditions={} if body.conditions is None else body.conditions,
        action_params=body.action_params or {},
        trigger_params=body.trigger_params or {},
        permission_set_refs=body.permission_set_refs,
        enabled=body.enabled,
        missed_run_policy=body.missed_run_policy or "skip",
        is_adhoc=True,
        owner_identity=call.principal.identity_id,
    )
    call.require("rules", "create", call.context_of(rule))
    rule = _checked(call, rule)
    rule = seal_rule(call.services, call.tenant, rule, call.registry.actions.find(rule.action_ref))
    timers.commit(call.services, call.tenant, Put(rule, new=True))
    sensors.arm_for_rule(call.services, call.tenant, rule)
    return Data(response_of(call, rule), "Rule created successfully")


@ROUTES.get("/api/v1/rules/{ref}", needs=readable("rules"), returns=Data[RuleResponse], tag="rules", errors=(404,))
def get_rule(call: Call, ref: str) -> Data[RuleResponse]:
    """One rule."""
    return Data(response_of(call, call.to_read("rules", "Rule", ref, call.registry.rules.find(ref))))


@ROUTES.get(
    "/api/v1/rules/{ref}/schedule",
    needs=readable("rules"),
    returns=Data[ScheduleResponse],
    query=ScheduleQuery,
    tag="rules",
    errors=(404, 422),
)
def get_rule_schedule(call: Call, ref: str) -> Data[ScheduleResponse]:
    """When the rule's timer fires next. For a disabled rule, when it would fire if it were enabled now."""
    rule = call.to_read("rules", "Rule", ref, call.registry.rules.find(ref))
    return Data(schedule_of(call, rule, call.query.count))


@ROUTES.put(
    "/api/v1/rules/{ref}",
    needs=grant("rules", "update"),
    returns=Data[RuleResponse],
    body=UpdateRuleRequest,
    tag="rules",
    errors=(404, 409),
)
def update_rule(call: Call, ref: str) -> Data[RuleResponse]:
    """Whoever changes what a rule does becomes its owner: nobody may act through a rule in another's name."""
    body: UpdateRuleRequest = call.body
    stored = _to_update(call, ref)
    current = open_rule(call.services, call.tenant, stored)
    changes = given(body, *_CHANGEABLE)
    if body.action_params:  # a client that may not see a secret sends its marker back
        known = current.action_params
        changes["action_params"] = {
            name: known.get(name) if value == REDACTED else value for name, value in body.action_params.items()
        }
    if body.permission_set_refs is not UNSET:
        changes["permission_set_refs"] = body.permission_set_refs
    rule = msgspec.structs.replace(current, **changes, updated=call.now)
    if any(getattr(rule, name) != getattr(current, name) for name in _DECISIVE):
        rule = _checked(call, msgspec.structs.replace(rule, owner_identity=call.principal.identity_id))
    unchanged = [name for name in stored.secrets if rule.action_params.get(name) == current.action_params[name]]
    action = call.registry.actions.find(rule.action_ref)
    rule = seal_rule(call.services, call.tenant, rule, action, once_secret=unchanged)
    timers.commit(call.services, call.tenant, Put(rule))
    sensors.arm_for_rule(call.services, call.tenant, rule)
    return Data(response_of(call, rule), "Rule updated successfully")


@ROUTES.delete("/api/v1/rules/{ref}", needs=grant("rules", "delete"), returns=Success, tag="rules", errors=(404, 409))
def delete_rule(call: Call, ref: str) -> Success:
    """Delete a rule; what it started goes on."""
    call.to_write("rules", "delete", "Rule", ref, call.registry.rules.find(ref))
    timers.commit(call.services, call.tenant, Delete("rule", ref))
    return Success(f"Rule '{ref}' deleted successfully")


@ROUTES.post(
    "/api/v1/rules/{ref}/enable",
    needs=grant("rules", "update"),
    returns=Data[RuleResponse],
    tag="rules",
    errors=(404, 409),
)
def enable_rule(call: Call, ref: str) -> Data[RuleResponse]:
    """Let the rule fire again."""
    return _switch(call, ref, enabled=True)


@ROUTES.post(
    "/api/v1/rules/{ref}/disable",
    needs=grant("rules", "update"),
    returns=Data[RuleResponse],
    tag="rules",
    errors=(404, 409),
)
def disable_rule(call: Call, ref: str) -> Data[RuleResponse]:
    """Keep the rule from firing."""
    return _switch(call, ref, enabled=False)


@ROUTES.post(
    "/api/v1/rules/{ref}/test",
    needs=readable("rules"),
    returns=Data[RuleTrialResponse],
    body=TryRuleRequest,
    tag="rules",
    errors=(404,),
)
def try_rule(call: Call, ref: str) -> Data[RuleTrialResponse]:
    """Whether an event with this payload would fire the rule, each condition with the value it found, and the
    parameters that its action would get. Secrets stay masked. Nothing is stored and nothing runs."""
    rule = call.to_read("rules", "Rule", ref, call.registry.rules.find(ref))
    return Data(try_out(call, rule, call.body.payload))


def _page(call: Call, rules: list[Rule]) -> Page[RuleSummary]:
    return Page.slice_of(call.readable("rules", rules), call.query.paging, RuleSummary.of)


def _to_update(call: Call, ref: str) -> Rule:
    return call.to_write("rules", "update", "Rule", ref, call.registry.rules.find(ref))


def _action(call: Call, ref: str) -> Action:
    found = call.registry.actions.find(ref)
    if found is None or is_hidden(call, call.pack(found.pack_ref)):
        raise NotFound.of("Action", ref)
    return found


def _trigger(call: Call, ref: str) -> Trigger:
    found = call.registry.triggers.find(ref)
    if found is None or is_hidden(call, call.pack(found.pack_ref)):
        raise NotFound.of("Trigger", ref)
    return found


def _checked(call: Call, rule: Rule) -> Rule:
    """``rule`` with the ids of its action and trigger, if all that it refers to exists and fits.

    Raises NotFound for an action or trigger that does not exist for the caller, Unprocessable for parameters against
    their schemas, CriteriaError for conditions, Forbidden for permission sets beyond the caller's access.
    """
    action = _action(call, rule.action_ref)
    trigger = _trigger(call, rule.trigger_ref)
    compile_criteria(rule.conditions)
    _require_fit("trigger", trigger.ref, trigger.param_schema, rule.trigger_params)
    _require_schedule(rule)
    _require_fit("action", action.ref, action.param_schema, rule.action_params)
    require_delegable(call, rule.permission_set_refs)
    return msgspec.structs.replace(rule, action=action.id, trigger=trigger.id)


def _require_schedule(rule: Rule) -> None:
    if not schedules.is_timer(rule.trigger_ref):
        return
    try:
        schedules.validate(rule.trigger_ref, rule.trigger_params)
    except ScheduleError as error:
        raise Unprocessable(
            f"Invalid parameters for trigger '{rule.trigger_ref}': {error}",
            details={"path": "trigger_params", "violations": [str(error)]},
        ) from None


def _require_fit(what: str, ref: str, schema: Json, values: Json) -> None:
    violations = validate_templated(schema, values) if schema is not None else []
    if violations:
        raise Unprocessable(
            f"Invalid parameters for {what} '{ref}': {'; '.join(violations)}",
            details={"path": f"{what}_params", "violations": violations},
        )


def _switch(call: Call, ref: str, *, enabled: bool) -> Data[RuleResponse]:
    current = _to_update(call, ref)
    rule = current
    if current.enabled != enabled:
        rule = msgspec.structs.replace(current, enabled=enabled, updated=call.now)
        timers.commit(call.services, call.tenant, Put(rule))
        sensors.arm_for_rule(call.services, call.tenant, rule)
    return Data(response_of(call, rule), f"Rule {'enabled' if enabled else 'disabled'} successfully")
