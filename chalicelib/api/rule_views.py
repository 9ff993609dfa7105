"""Bodies, queries and answers of the rule routes (contract: http-api part 2, rule.rs)."""

from datetime import datetime
from typing import Annotated, Any, Self

from msgspec import UNSET, Meta

from chalicelib.api.views import Body, Json, Label, Omittable, PageQuery, Query, Ref, View
from chalicelib.domain.entities import MissedRuns
from chalicelib.domain.schedules import is_timer

Parameters = dict[str, Json]


class CreateRuleRequest(Body, kw_only=True, frozen=True):
    """``conditions``: see ``semantics.md`` §2.2 and README 4, 5."""

    ref: Ref
    pack_ref: Ref
    label: Label
    action_ref: Ref
    trigger_ref: Ref
    description: str | None = None
    conditions: Json = None
    action_params: Parameters | None = None
    trigger_params: Parameters | None = None
    permission_set_refs: list[str] | None = None
    enabled: bool = True
    missed_run_policy: MissedRuns | None = None


class UpdateRuleRequest(Body, kw_only=True, frozen=True):
    """What is absent or null stays as it is, except ``permission_set_refs``, which null clears."""

    label: Label | None = None
    description: str | None = None
    action_ref: Ref | None = None
    trigger_ref: Ref | None = None
    conditions: Json = None
    action_params: Parameters | None = None
    trigger_params: Parameters | None = None
    permission_set_refs: Omittable[list[str] | None] = UNSET
    enabled: bool | None = None
    missed_run_policy: MissedRuns | None = None


class TryRuleRequest(Body, kw_only=True, frozen=True):
    """The payload of the event to imagine."""

    payload: Json = None


class _RuleView(View, kw_only=True, frozen=True):
    """What summary and detail have in common. The ``sensor_worker_*`` fields are required by the published client,
    which is newer than the contract; sensors are not placed per rule here, so they are empty."""

    id: int
    ref: str
    pack_ref: str
    label: str
    description: str | None
    action_ref: str
    trigger_ref: str
    action_params: Json
    trigger_params: Json
    permission_set_refs: list[str] | None
    enabled: bool
    sensor_worker_selector: dict[str, str]
    sensor_worker_tolerations: list[Json]
    sensor_worker_affinity: dict[str, Json]
    created: datetime
    updated: datetime

    @classmethod
    def of(cls, entity: Any, **computed: Any) -> Self:
        return super().of(
            entity, sensor_worker_selector={}, sensor_worker_tolerations=[], sensor_worker_affinity={}, **computed
        )


class RuleSummary(_RuleView, kw_only=True, frozen=True):
    """A rule in a list."""


class RuleResponse(_RuleView, kw_only=True, frozen=True):
    """A rule in full. The last four are there for rules on timers only: ``missed_run_policy`` says what becomes of
    firings that were missed, ``timer_reason`` why an enabled rule will not fire (any more)."""

    pack: int
    action: int | None
    trigger: int | None
    conditions: Json
    is_adhoc: bool
    owner_identity: int | None
    missed_run_policy: Omittable[MissedRuns] = UNSET
    next_fire_at: Omittable[datetime] = UNSET
    last_fired_at: Omittable[datetime] = UNSET
    timer_reason: Omittable[str] = UNSET

    @classmethod
    def of(cls, entity: Any, **computed: Any) -> Self:
        silent = dict.fromkeys(("next_fire_at", "last_fired_at", "timer_reason"))
        policy = entity.missed_run_policy if is_timer(entity.trigger_ref) else None
        return super().of(entity, **silent | {"missed_run_policy": policy} | computed)


class ScheduleQuery(Query, kw_only=True, frozen=True):
    """How many moments to tell."""

    count: Annotated[int, Meta(ge=1, le=1000)] = 10


class ScheduleResponse(View, kw_only=True, frozen=True):
    """The next moments at which a rule's timer fires, earliest first; ``reason`` says why there are none."""

    rule_ref: str
    enabled: bool
    fires: list[datetime]
    reason: Omittable[str] = UNSET


class RuleQuery(PageQuery, kw_only=True, frozen=True):
    """``q``: text to find in ref, label or description."""

    q: str | None = None
    enabled: bool | None = None
    pack_ref: str | None = None
    action_ref: str | None = None
    trigger_ref: str | None = None


class ClauseView(View, kw_only=True, frozen=True):
    """One clause of the conditions: as written, whether it matched, what it compared, and why it failed if it did."""

    source: str
    matched: bool | None
    value: Json
    error: str | None


class RuleTrialResponse(View, kw_only=True, frozen=True):
    """What an event with that payload would do.

    ``would_fire``: an execution would be requested now; a disabled rule matches and does not fire. ``parameters`` is
    what the action would get, defaults filled and secrets masked; null where the conditions do not match. ``error``
    says why conditions, templates or parameters fail.
    """

    rule_ref: str
    action_ref: str
    enabled: bool
    matched: bool
    would_fire: bool
    conditions: list[ClauseView]
    parameters: Json
    error: str | None
