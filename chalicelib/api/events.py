"""Routes of events (contract: http-api 1.4, Events)."""

import time
from datetime import timedelta
from typing import Any, Final

from chalicelib.api.components import is_hidden
from chalicelib.api.errors import Forbidden, NotFound, ValidationFailed
from chalicelib.api.event_views import CreateEventRequest, EventQuery, EventResponse, EventSummary
from chalicelib.api.idempotency import key_of
from chalicelib.api.routing import ROUTES, Call, grant
from chalicelib.api.row_access import row_filter
from chalicelib.api.views import Data, Page
from chalicelib.domain.entities import Event, Rule, Sensor, Trigger
from chalicelib.domain.ids import MAX_ID, time_of
from chalicelib.domain.permissions import Context
from chalicelib.flow import quotas
from chalicelib.flow.intake import PayloadRefusedError, accept_event
from chalicelib.store import listing

# An event's id is told as soon as its message is durable; its row follows within a fraction of a second.
_SETTLED: Final = timedelta(seconds=3)
_PAUSE: Final = 0.05  # seconds between two looks


@ROUTES.get("/api/v1/events", needs=grant("events", "read"), returns=Page[EventSummary], query=EventQuery, tag="events")
def list_events(call: Call) -> Page[EventSummary]:
    """Events, newest first."""
    query: EventQuery = call.query
    wanted = listing.EventFilter(
        trigger=query.trigger,
        trigger_ref=query.trigger_ref,
        rule_ref=query.rule_ref,
        source=query.source,
        **row_filter(call, "events"),
    )
    paging = query.paging
    found = call.activity.events(wanted, listing.Page(paging.number, paging.size, query.include_total))
    items = [EventSummary.of(event) for event in found.items]
    return Page.part(items, paging, total=found.total, has_next=found.has_next)


@ROUTES.get(
    "/api/v1/events/{event_id}",
    needs=grant("events", "read"),
    returns=Data[EventResponse],
    tag="events",
    errors=(404,),
)
def get_event(call: Call, event_id: int) -> Data[EventResponse]:
    """One event with its payload."""
    event = _settled(call, event_id)
    if event is None:
        raise NotFound.of("Event", event_id)
    call.require("events", "read", call.context_of(event))
    return Data(EventResponse.of(event))


@ROUTES.post(
    "/api/v1/events",
    needs=grant("events", "create", unless="the token is a sensor's, an execution's or a worker's"),
    returns=Data[EventResponse],
    body=CreateEventRequest,
    status=201,
    tag="events",
    errors=(404,),
)
def create_event(call: Call) -> Data[EventResponse]:
    """Report that something happened: for sensors, executions and workers, and for whoever has events:create. An
    ``Idempotency-Key`` that was used within a day gives the first event again. A payload that breaks the trigger's
    ``out_schema`` is refused (422), and counted."""
    body: CreateEventRequest = call.body
    if call.principal.token_type == "access" and not call.allows("events", "create"):  # noqa: S105
        raise Forbidden("Events are created by sensors, executions and workers; this takes events:create")
    trigger = _trigger(call, body.trigger_ref or body.trigger_type)
    sensor = _sensor(call)
    quotas.admit(call.services, call.tenant)
    event = _counted(
        call,
        sensor,
        trigger,
        payload=body.payload,
        rule=_rule(call, trigger, body.trigger_instance_id),
        config=body.config,
        source=sensor.id if sensor else None,
        source_ref=call.principal.login if call.principal.token_type == "sensor" else None,  # noqa: S105
        idempotency_key=key_of(call),
    )
    return Data(EventResponse.of(event), "Event created successfully")


def _trigger(call: Call, ref: str | None) -> Trigger:
    """The trigger to report to. Raises ValidationFailed, NotFound, or Forbidden for a trigger that the sensor does not
    serve."""
    if ref is None:
        raise ValidationFailed("'trigger_ref': Missing required field", {"path": "trigger_ref"})
    trigger = call.registry.triggers.find(ref)
    served = ref in call.principal.served_triggers  # whoever gave out the token has seen to it
    if trigger is None or (not served and is_hidden(call, call.pack(trigger.pack_ref))):
        raise NotFound.of("Trigger", ref)
    if call.principal.token_type == "sensor" and not served:  # noqa: S105
        raise Forbidden(f"This sensor's token is not for trigger '{ref}'")
    if call.principal.token_type == "access":  # noqa: S105
        pack_ref = trigger.pack_ref
        call.require("events", "create", Context(pack_ref=pack_ref, ref=trigger.ref, id=trigger.id))
    return trigger


def _sensor(call: Call) -> Sensor | None:
    """The sensor that reports; None for one that the platform does not know, and for other callers. Raises Forbidden
    for one that is disabled."""
    if call.principal.token_type != "sensor":  # noqa: S105
        return None
    sensor = call.snapshot.sensor(call.principal.login)
    if sensor is not None and not sensor.enabled:
        raise Forbidden(f"Sensor '{sensor.ref}' is disabled")
    return sensor


def _counted(call: Call, sensor: Sensor | None, trigger: Trigger, **report: Any) -> Event:
    """The event, taken in; what a sensor of ours reports shows in its status."""
    polls = call.services.store.tenant(call.tenant).polls
    try:
        event = accept_event(call.services, call.tenant, trigger, **report)
    except PayloadRefusedError:
        if sensor is not None:
            polls.count(sensor.id, refused=1)
        raise
    if sensor is not None:
        polls.count(sensor.id, events=1)
    return event


def _rule(call: Call, trigger: Trigger, instance: str | None) -> Rule | None:
    """The rule that an event is bound to, by the trigger instance made for it. Other instances bind nothing."""
    prefix, _, id_ = (instance or "").partition("_")
    if prefix != "rule" or not id_.isdecimal():
        return None
    rule = call.registry.rules.by_id(int(id_)) if int(id_) <= MAX_ID else None
    if rule is None or rule.trigger_ref != trigger.ref:
        raise ValidationFailed(
            f"'trigger_instance_id': no rule {id_} is on trigger '{trigger.ref}'", {"path": "trigger_instance_id"}
        )
    return rule


def _settled(call: Call, event_id: int) -> Event | None:
    """The event; for an id given out a moment ago, as soon as it is stored."""
    event = call.activity.get_event(event_id)
    accepted = time_of(event_id)
    if event is not None or accepted > call.now:
        return event
    while event is None and call.services.clock() - accepted < _SETTLED:
        time.sleep(_PAUSE)
        event = call.activity.get_event(event_id)
    return event
