"""Routes of sensors (contract: http-api 1.4, Sensors). Permissions have no resource of that name: a sensor is part of
its triggers, and who may change those may change it."""

from typing import Any, Final, get_args

import msgspec

from chalicelib.api.components import containing, is_hidden, pack_for_new, visible_pack
from chalicelib.api.errors import NotFound, Unprocessable
from chalicelib.api.routing import ROUTES, Call, grant, readable
from chalicelib.api.sensor_views import (
    CreateSensorRequest,
    SensorLog,
    SensorLogQuery,
    SensorLogsResponse,
    SensorQuery,
    SensorResponse,
    SensorStatusResponse,
    SensorSummary,
    UpdateSensorRequest,
)
from chalicelib.api.views import Data, Page, PageQuery, Raw, Success, given, patched
from chalicelib.domain.entities import Sensor, Trigger
from chalicelib.domain.parameters import check_schema
from chalicelib.domain.sensors import Process, interval_of, is_polled
from chalicelib.flow import sensors
from chalicelib.flow.logs import Stream
from chalicelib.store.polls import Stored
from chalicelib.store.registry import Delete, Put

_PLAIN: Final = (
    "label",
    "description",
    "entrypoint",
    "config",
    "poll_interval",
    "worker_selector",
    "worker_tolerations",
    "worker_affinity",
)
_RETENTION: Final = (
    "artifact_retention_policy",
    "artifact_retention_limit",
    "log_retention_policy",
    "log_retention_limit",
)


@ROUTES.get(
    "/api/v1/sensors", needs=readable("triggers"), returns=Page[SensorSummary], query=SensorQuery, tag="sensors"
)
def list_sensors(call: Call) -> Page[SensorSummary]:
    """The sensors that the caller may read, by ref."""
    return _page(call, containing(call.registry.sensors.visible(), call.query.q))


@ROUTES.get(
    "/api/v1/sensors/enabled", needs=readable("triggers"), returns=Page[SensorSummary], query=PageQuery, tag="sensors"
)
def list_enabled_sensors(call: Call) -> Page[SensorSummary]:
    """The enabled sensors that the caller may read, by ref."""
    return _page(call, [each for each in call.registry.sensors.visible() if each.enabled])


@ROUTES.get(
    "/api/v1/packs/{pack_ref}/sensors",
    needs=readable("triggers"),
    returns=Page[SensorSummary],
    query=PageQuery,
    tag="sensors",
    errors=(404,),
)
def list_pack_sensors(call: Call, pack_ref: str) -> Page[SensorSummary]:
    """The sensors of one pack."""
    visible_pack(call, pack_ref)
    return _page(call, [each for each in call.registry.sensors.visible() if each.pack_ref == pack_ref])


@ROUTES.get(
    "/api/v1/triggers/{trigger_ref}/sensors",
    needs=readable("triggers"),
    returns=Page[SensorSummary],
    query=PageQuery,
    tag="sensors",
    errors=(404,),
)
def list_trigger_sensors(call: Call, trigger_ref: str) -> Page[SensorSummary]:
    """The sensors that report events of one trigger."""
    _trigger(call, trigger_ref)
    return _page(call, [each for each in call.registry.sensors.visible() if trigger_ref in each.trigger_refs])


@ROUTES.post(
    "/api/v1/sensors",
    needs=grant("triggers", "create"),
    returns=Data[SensorResponse],
    body=CreateSensorRequest,
    status=201,
    tag="sensors",
    errors=(404, 409),
)
def create_sensor(call: Call) -> Data[SensorResponse]:
    """A sensor whose code is its ``entrypoint``; ``docs/sensors.md`` says what it is given and what it may print."""
    body: CreateSensorRequest = call.body
    pack = pack_for_new(call, body.ref, body.pack_ref)
    runtime = call.registry.runtimes.find(body.runtime_ref)
    if runtime is None or is_hidden(call, call.pack(runtime.pack_ref)):
        raise NotFound.of("Runtime", body.runtime_ref)
    trigger = _trigger(call, body.trigger_ref)
    sensor = Sensor(
        id=call.services.new_id(),
        created=call.now,
        updated=call.now,
        ref=body.ref,
        pack=pack.id,
        pack_ref=pack.ref,
        runtime=runtime.id,
        runtime_ref=runtime.ref,
        trigger_refs=[trigger.ref],
        param_schema=body.param_schema,
        enabled=body.enabled,
        is_adhoc=True,
        **given(body, *_PLAIN, *_RETENTION),
    )
    call.require("triggers", "create", call.context_of(sensor))
    check_schema(sensor.param_schema)
    _commit(call, sensor, new=True)
    return Data(SensorResponse.of(sensor), "Sensor created successfully")


@ROUTES.get(
    "/api/v1/sensors/{ref}", needs=readable("triggers"), returns=Data[SensorResponse], tag="sensors", errors=(404,)
)
def get_sensor(call: Call, ref: str) -> Data[SensorResponse]:
    """One sensor."""
    return Data(SensorResponse.of(_readable(call, ref)))


@ROUTES.put(
    "/api/v1/sensors/{ref}",
    needs=grant("triggers", "update"),
    returns=Data[SensorResponse],
    body=UpdateSensorRequest,
    tag="sensors",
    errors=(404, 409),
)
def update_sensor(call: Call, ref: str) -> Data[SensorResponse]:
    """Change a sensor. It looks at once, if somebody listens; its state stays."""
    body: UpdateSensorRequest = call.body
    current = _to_write(call, "update", ref)
    changes = given(body, *_PLAIN, "enabled")
    changes |= {name: patched(getattr(body, name), getattr(current, name)) for name in ("param_schema", *_RETENTION)}
    sensor = msgspec.structs.replace(current, **changes, updated=call.now)
    check_schema(sensor.param_schema)
    _commit(call, sensor)
    return Data(SensorResponse.of(sensor), "Sensor updated successfully")


@ROUTES.delete(
    "/api/v1/sensors/{ref}", needs=grant("triggers", "delete"), returns=Success, tag="sensors", errors=(404, 409)
)
def delete_sensor(call: Call, ref: str) -> Success:
    """Delete a sensor, its keys and its state. Its triggers stay."""
    sensor = _to_write(call, "delete", ref)
    registry = call.registry
    keys = [Delete("key", key.ref) for key in registry.keys_of("sensor", ref)]
    fed: list[Any] = [
        Put(msgspec.structs.replace(trigger, sensor=None, sensor_ref=None))
        for trigger in (registry.triggers.get(each) for each in sensor.trigger_refs)
        if trigger is not None and trigger.sensor == sensor.id
    ]
    registry.commit(Delete("sensor", ref), *keys, *fed)
    call.services.store.tenant(call.tenant).polls.delete(sensor.id)
    return Success(f"Sensor '{ref}' deleted successfully")


@ROUTES.post(
    "/api/v1/sensors/{ref}/enable",
    needs=grant("triggers", "update"),
    returns=Data[SensorResponse],
    tag="sensors",
    errors=(404, 409),
)
def enable_sensor(call: Call, ref: str) -> Data[SensorResponse]:
    """Let the sensor look, as long as an enabled rule listens."""
    return _switch(call, ref, enabled=True)


@ROUTES.post(
    "/api/v1/sensors/{ref}/disable",
    needs=grant("triggers", "update"),
    returns=Data[SensorResponse],
    tag="sensors",
    errors=(404, 409),
)
def disable_sensor(call: Call, ref: str) -> Data[SensorResponse]:
    """Keep the sensor from looking, and its tokens from reporting."""
    return _switch(call, ref, enabled=False)


@ROUTES.get(
    "/api/v1/sensors/{ref}/status",
    needs=readable("triggers"),
    returns=Data[SensorStatusResponse],
    tag="sensors",
    errors=(404,),
)
def get_sensor_status(call: Call, ref: str) -> Data[SensorStatusResponse]:
    """How the sensor is doing: its last and next poll, its events, its failures. (Ours.)"""
    sensor = _readable(call, ref)
    stored = call.services.store.tenant(call.tenant).polls.get(sensor.id)
    return Data(_status(sensor, stored))


@ROUTES.get(
    "/api/v1/sensors/{ref}/logs", needs=readable("triggers"), returns=SensorLogsResponse, tag="sensors", errors=(404,)
)
def list_sensor_logs(call: Call, ref: str) -> SensorLogsResponse:
    """Which logs there are of what the sensor printed."""
    sensor = _readable(call, ref)
    logs = [
        SensorLog(stream=stream, artifact_ref=f"sensor.{sensor.ref}.{stream}", artifact_id=None)
        for stream in get_args(Stream)
        if sensors.read_log(call.blobs, sensor.id, stream)
    ]
    return SensorLogsResponse(sensor_ref=sensor.ref, logs=logs)


@ROUTES.get(
    "/api/v1/sensors/{ref}/logs/{stream}",
    needs=readable("triggers"),
    returns=Raw,
    query=SensorLogQuery,
    tag="sensors",
    errors=(404, 422),
    media_type="text/plain; charset=utf-8",
)
def get_sensor_log(call: Call, ref: str, stream: str) -> Raw:
    """The end of what the sensor printed besides its reports, over all of its polls: at most 256 KB, as text."""
    if stream not in get_args(Stream):
        raise Unprocessable(f"There is no stream '{stream}': expected stdout or stderr", details={"path": "stream"})
    sensor = _readable(call, ref)
    text = sensors.read_log(call.blobs, sensor.id, stream)
    if call.query.tail is not None:
        text = "".join(text.splitlines(keepends=True)[-call.query.tail :])
    return Raw(text.encode(), headers={"Content-Type": "text/plain; charset=utf-8"})


def _page(call: Call, rows: list[Sensor]) -> Page[SensorSummary]:
    return Page.slice_of(call.readable("triggers", rows), call.query.paging, SensorSummary.of)


def _readable(call: Call, ref: str) -> Sensor:
    return call.to_read("triggers", "Sensor", ref, call.registry.sensors.find(ref))


def _to_write(call: Call, action: str, ref: str) -> Sensor:
    return call.to_write("triggers", action, "Sensor", ref, call.registry.sensors.find(ref))


def _trigger(call: Call, ref: str) -> Trigger:
    found = call.registry.triggers.find(ref)
    if found is None or is_hidden(call, call.pack(found.pack_ref)):
        raise NotFound.of("Trigger", ref)
    return found


def _commit(call: Call, sensor: Sensor, *, new: bool = False) -> None:
    call.registry.commit(Put(sensor, new=new))
    sensors.arm(call.services, call.tenant, [sensor], anew=True)


def _switch(call: Call, ref: str, *, enabled: bool) -> Data[SensorResponse]:
    sensor = _to_write(call, "update", ref)
    if sensor.enabled != enabled:
        sensor = msgspec.structs.replace(sensor, enabled=enabled, updated=call.now)
        _commit(call, sensor)
    return Data(SensorResponse.of(sensor), f"Sensor {'enabled' if enabled else 'disabled'} successfully")


def _status(sensor: Sensor, stored: Stored | None) -> SensorStatusResponse:
    process = stored.process if stored else Process(sensor=sensor.id, ref=sensor.ref, phase="stopped", turn=0)
    reason = None
    if not is_polled(sensor):
        reason = f"the platform does not run sensors of {sensor.runtime_ref}: they report by API"
    elif not sensor.enabled:
        reason = "the sensor is disabled"
    elif process.phase == "stopped":
        reason = "no enabled rule listens"
    stopped = reason is not None
    return SensorStatusResponse.of(
        process,
        sensor_ref=sensor.ref,
        status="stopped" if stopped else process.status,
        reason=reason,
        poll_interval=interval_of(sensor),
        active_rule_count=0 if stopped else process.active_rules,
        events=stored.events if stored else 0,
        events_refused=stored.refused if stored else 0,
        failures=process.failed,
        consecutive_failures=process.failures,
        next_poll_at=None if stopped else process.next_poll,
    )
