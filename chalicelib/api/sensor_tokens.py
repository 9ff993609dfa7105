"""Tokens with which sensors, the platform's own and any others, report events (contract: http-api 1.3)."""

from datetime import timedelta
from typing import Final

from chalicelib.api.components import is_hidden
from chalicelib.api.errors import Forbidden, NotFound, ValidationFailed
from chalicelib.api.routing import ROUTES, Call, grant, tokens_of
from chalicelib.api.sensor_views import CreateSensorTokenRequest, InternalSensorTokenRequest, SensorTokenResponse
from chalicelib.api.views import Data
from chalicelib.domain import ids, refs
from chalicelib.domain.entities import Trigger
from chalicelib.domain.permissions import Context
from chalicelib.security.tokens import SENSOR_LIFE

_NOBODY: Final = "sensor"  # what the id of a sensor is derived from that the platform does not know


@ROUTES.post(
    "/auth/sensor-token",
    needs=grant("triggers", "update", unless="events:create is given", tokens=("access",)),
    body=CreateSensorTokenRequest,
    returns=Data[SensorTokenResponse],
    tag="auth",
    errors=(404,),
)
def create_sensor_token(call: Call) -> Data[SensorTokenResponse]:
    """A token that reports events of these triggers, for a sensor of a pack or one that runs anywhere else.

    Takes an access token, and triggers:update or events:create for each of the triggers."""
    body: CreateSensorTokenRequest = call.body
    for ref in body.trigger_types:
        trigger = _trigger(call, ref)
        context = Context(pack_ref=trigger.pack_ref, ref=trigger.ref, id=trigger.id)
        if not (call.allows("triggers", "update", context) or call.allows("events", "create", context)):
            raise Forbidden.lacking("events", "create")
    by = call.principal.identity_id
    return Data(_issued(call, body.sensor_ref, body.trigger_types, body.ttl_seconds, issued_by=by))


@ROUTES.post(
    "/auth/internal/sensor-token",
    needs=tokens_of("worker", "sensor"),
    body=InternalSensorTokenRequest,
    returns=Data[SensorTokenResponse],
    tag="auth",
    errors=(404,),
)
def create_sensor_token_internal(call: Call) -> Data[SensorTokenResponse]:
    """A token for a sensor that a worker runs, or a new one for a sensor whose own is about to expire."""
    body: InternalSensorTokenRequest = call.body
    principal = call.principal
    if principal.token_type == "sensor":  # noqa: S105
        served = principal.served_triggers
        if body.sensor_ref not in (None, principal.login) or not set(body.trigger_types or ()) <= set(served):
            raise Forbidden("A sensor may renew its own token only")
        sensor = call.snapshot.sensor(principal.login)
        if sensor is not None and not sensor.enabled:
            raise Forbidden(f"Sensor '{sensor.ref}' is disabled")
        triggers = body.trigger_types or served
        return Data(_issued(call, principal.login, triggers, body.ttl_seconds, issued_by=principal.issued_by))
    if body.sensor_ref is None or body.trigger_types is None:
        raise ValidationFailed("'sensor_ref' and 'trigger_types' are required", {"path": "sensor_ref"})
    for ref in body.trigger_types:
        _trigger(call, ref)
    return Data(_issued(call, body.sensor_ref, body.trigger_types, body.ttl_seconds))


def _trigger(call: Call, ref: str) -> Trigger:
    trigger = call.registry.triggers.find(ref)
    if trigger is None or is_hidden(call, call.pack(trigger.pack_ref)):
        raise NotFound.of("Trigger", ref)
    return trigger


def _issued(
    call: Call, sensor_ref: str, trigger_types: list[str], seconds: int | None, *, issued_by: int | None = None
) -> SensorTokenResponse:
    sensor = call.registry.sensors.find(refs.component_ref(sensor_ref))
    # Nobody signs in as a sensor: the id only has to be one.
    identity_id = sensor.id if sensor else ids.derive(ids.EPOCH_MS, f"{_NOBODY}/{sensor_ref}")
    life = SENSOR_LIFE if seconds is None else timedelta(seconds=seconds)
    token = call.services.tokens.issue_sensor(
        tenant=call.tenant,
        identity_id=identity_id,
        sensor_ref=sensor_ref,
        trigger_types=trigger_types,
        now=call.now,
        life=life,
        issued_by=issued_by,
    )
    return SensorTokenResponse(
        identity_id=identity_id,
        sensor_ref=sensor_ref,
        token=token,
        expires_at=call.now + life,
        trigger_types=trigger_types,
        permission_set_refs=[],
    )
