"""Routes of triggers (contract: http-api 1.4, Triggers); their webhooks are in :mod:`chalicelib.api.webhooks`."""

from typing import Any, Final

import msgspec

from chalicelib.api.components import containing, pack_for_new, visible_pack
from chalicelib.api.routing import ROUTES, Call, grant, readable
from chalicelib.api.trigger_views import (
    CreateTriggerRequest,
    RefusedPayloads,
    TriggerQuery,
    TriggerResponse,
    TriggerSummary,
    UpdateTriggerRequest,
)
from chalicelib.api.views import Data, Page, Success, given, patched
from chalicelib.domain import refs
from chalicelib.domain.entities import Pack, Trigger
from chalicelib.domain.parameters import check_schema
from chalicelib.flow import timers
from chalicelib.store.registry import Delete, Put

_NULLABLE: Final = ("description", "param_schema", "out_schema")


@ROUTES.get(
    "/api/v1/triggers", needs=readable("triggers"), returns=Page[TriggerSummary], query=TriggerQuery, tag="triggers"
)
def list_triggers(call: Call) -> Page[TriggerSummary]:
    """The triggers that the caller may read, by ref."""
    return _page(call, call.registry.triggers.visible())


@ROUTES.get(
    "/api/v1/triggers/enabled",
    needs=readable("triggers"),
    returns=Page[TriggerSummary],
    query=TriggerQuery,
    tag="triggers",
)
def list_enabled_triggers(call: Call) -> Page[TriggerSummary]:
    """The enabled triggers that the caller may read, by ref."""
    return _page(call, [each for each in call.registry.triggers.visible() if each.enabled])


@ROUTES.get(
    "/api/v1/packs/{pack_ref}/triggers",
    needs=readable("triggers"),
    returns=Page[TriggerSummary],
    query=TriggerQuery,
    tag="triggers",
    errors=(404,),
)
def list_pack_triggers(call: Call, pack_ref: str) -> Page[TriggerSummary]:
    """The triggers of one pack."""
    visible_pack(call, pack_ref)
    return _page(call, [each for each in call.registry.triggers.visible() if each.pack_ref == pack_ref])


@ROUTES.post(
    "/api/v1/triggers",
    needs=grant("triggers", "create"),
    returns=Data[TriggerResponse],
    body=CreateTriggerRequest,
    status=201,
    tag="triggers",
    errors=(404, 409),
)
def create_trigger(call: Call) -> Data[TriggerResponse]:
    """Without ``pack_ref`` the trigger belongs to the pack that its ref begins with, if there is one."""
    body: CreateTriggerRequest = call.body
    pack = _pack_of_new(call, body)
    trigger = Trigger(
        id=call.services.new_id(),
        created=call.now,
        updated=call.now,
        ref=body.ref,
        pack=pack.id if pack else None,
        pack_ref=pack.ref if pack else None,
        label=body.label,
        enabled=body.enabled,
        is_adhoc=True,
        **given(body, *_NULLABLE),
    )
    call.require("triggers", "create", call.context_of(trigger))
    _check(trigger)
    call.registry.commit(Put(trigger, new=True))
    return Data(TriggerResponse.of(trigger), "Trigger created successfully")


@ROUTES.get(
    "/api/v1/triggers/{ref}", needs=readable("triggers"), returns=Data[TriggerResponse], tag="triggers", errors=(404,)
)
def get_trigger(call: Call, ref: str) -> Data[TriggerResponse]:
    """One trigger."""
    trigger = call.to_read("triggers", "Trigger", ref, call.registry.triggers.find(ref))
    refused = call.services.store.tenant(call.tenant).refusals.of(ref) if trigger.out_schema else None
    return Data(TriggerResponse.of(trigger, refused_payloads=msgspec.convert(refused, RefusedPayloads | None)))


@ROUTES.put(
    "/api/v1/triggers/{ref}",
    needs=grant("triggers", "update"),
    returns=Data[TriggerResponse],
    body=UpdateTriggerRequest,
    tag="triggers",
    errors=(404, 409),
)
def update_trigger(call: Call, ref: str) -> Data[TriggerResponse]:
    """Change a trigger."""
    body: UpdateTriggerRequest = call.body
    current = trigger_to_update(call, ref)
    changes = given(body, "label", "enabled")
    changes |= {name: patched(getattr(body, name), getattr(current, name)) for name in _NULLABLE}
    trigger = msgspec.structs.replace(current, **changes, updated=call.now)
    _check(trigger)
    call.registry.commit(Put(trigger))
    return Data(TriggerResponse.of(trigger), "Trigger updated successfully")


@ROUTES.delete(
    "/api/v1/triggers/{ref}", needs=grant("triggers", "delete"), returns=Success, tag="triggers", errors=(404, 409)
)
def delete_trigger(call: Call, ref: str) -> Success:
    """Rules that name the trigger keep its ref and lose its id (semantics §1); their timers stop."""
    call.to_write("triggers", "delete", "Trigger", ref, call.registry.triggers.find(ref))
    orphans: list[Any] = [
        Put(msgspec.structs.replace(rule, trigger=None))
        for rule in call.registry.rules_by_trigger(ref)
        if rule.trigger is not None
    ]
    timers.commit(call.services, call.tenant, Delete("trigger", ref), *orphans)
    return Success(f"Trigger '{ref}' deleted successfully")


@ROUTES.post(
    "/api/v1/triggers/{ref}/enable",
    needs=grant("triggers", "update"),
    returns=Data[TriggerResponse],
    tag="triggers",
    errors=(404, 409),
)
def enable_trigger(call: Call, ref: str) -> Data[TriggerResponse]:
    """Mark the trigger as enabled."""
    return _switch(call, ref, enabled=True)


@ROUTES.post(
    "/api/v1/triggers/{ref}/disable",
    needs=grant("triggers", "update"),
    returns=Data[TriggerResponse],
    tag="triggers",
    errors=(404, 409),
)
def disable_trigger(call: Call, ref: str) -> Data[TriggerResponse]:
    """Mark the trigger as disabled. Its rules are what decides (semantics §2.1)."""
    return _switch(call, ref, enabled=False)


def trigger_to_update(call: Call, ref: str) -> Trigger:
    """The trigger, if the caller may change it; NotFound or Forbidden otherwise."""
    return call.to_write("triggers", "update", "Trigger", ref, call.registry.triggers.find(ref))


def _page(call: Call, triggers: list[Trigger]) -> Page[TriggerSummary]:
    found = containing(call.readable("triggers", triggers), call.query.q)
    return Page.slice_of(found, call.query.paging, TriggerSummary.of)


def _pack_of_new(call: Call, body: CreateTriggerRequest) -> Pack | None:
    """The pack that the body names, or else the one that the ref begins with, if there is one."""
    if body.pack_ref is not None:
        return pack_for_new(call, body.ref, body.pack_ref)
    prefix, _ = refs.split(body.ref)
    return pack_for_new(call, body.ref, prefix) if call.registry.packs.find(prefix) is not None else None


def _check(trigger: Trigger) -> None:
    check_schema(trigger.param_schema)
    check_schema(trigger.out_schema)


def _switch(call: Call, ref: str, *, enabled: bool) -> Data[TriggerResponse]:
    current = trigger_to_update(call, ref)
    trigger = current
    if current.enabled != enabled:
        trigger = msgspec.structs.replace(current, enabled=enabled, updated=call.now)
        call.registry.commit(Put(trigger))
    return Data(TriggerResponse.of(trigger), f"Trigger {'enabled' if enabled else 'disabled'} successfully")
