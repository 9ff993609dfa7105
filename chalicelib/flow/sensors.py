"""Polling sensors: short runs in the execution plane, one after the other (docs/decisions/009).

    rule on ──► row `waiting` ──► executions queue, delayed ──► claim ──► runner: looks once, reports
                     ▲                                                        │ results queue
                     └──── next turn ◄── events ◄── conductor ◄───────────────┘

The row of a sensor moves by conditional writes, and messages carry its turn: a message of another turn finds that there
is nothing to do, so that no poll runs twice. The tick looks after rows whose message was lost, and sends out what is
due farther away than SQS can delay.
"""

import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

import msgspec

from chalicelib.domain import sensors
from chalicelib.domain.entities import Json, Rule, Sensor
from chalicelib.domain.runtimes import RUNNERS
from chalicelib.domain.sensors import Process, ReportError
from chalicelib.flow import environments
from chalicelib.flow.archives import archive_of
from chalicelib.flow.environments import EnvironmentFailedError, EnvironmentPendingError
from chalicelib.flow.intake import PayloadRefusedError, accept_event
from chalicelib.flow.invoker import RunTooLargeError
from chalicelib.flow.secrets import strings_in
from chalicelib.flow.tokens import token_hash
from chalicelib.log import logger
from chalicelib.protocol import Poll, Run, SensorDue, SensorPolled
from chalicelib.services import Services
from chalicelib.store.blobs import Blobs, MissingBlobError
from chalicelib.store.polls import Stored
from chalicelib.store.snapshot import Snapshot

LOST: Final = "the poll was lost: its runner died or went silent"
KEPT_LOG: Final = 256 * 1024  # bytes of a stream that are kept
LOG_STREAMS: Final = ("stdout", "stderr")

_TOKEN_LIFE: Final = timedelta(seconds=sensors.POLL_SECONDS + 60)
_TRIES: Final = 10  # writers that meet at one row: an API call, the executor, the conductor
_LONGEST_TRIGGERS: Final = 100_000  # bytes of ATTUNE_SENSOR_TRIGGERS; Linux takes 128 KB per variable


class ContentionError(Exception):
    """The row of a sensor changes faster than we can write it. The message is delivered again."""


# --- who wakes a sensor


def arm_for_rule(services: Services, tenant: str, rule: Rule) -> None:
    """See to it that the sensors behind an enabled rule's trigger look. Call it once the rule is committed."""
    if rule.enabled:
        arm_for_triggers(services, tenant, [rule.trigger_ref])


def arm_for_triggers(services: Services, tenant: str, trigger_refs: Iterable[str]) -> None:
    """The same for the rules of these triggers."""
    wanted = set(trigger_refs)
    if wanted:
        served = services.snapshots.of(tenant).sensors()
        arm(services, tenant, [sensor for sensor in served if wanted & set(sensor.trigger_refs)])


def arm(services: Services, tenant: str, some: Iterable[Sensor], *, anew: bool = False) -> None:
    """Let these sensors look, as far as an enabled rule listens; with ``anew``, because they have changed, at once."""
    polls = services.store.tenant(tenant).polls
    snapshot = services.snapshots.of(tenant)
    for sensor in some:
        if not sensor.enabled or not sensors.is_polled(sensor) or not _listening(snapshot, sensor):
            continue
        for _ in range(_TRIES):
            before = polls.get(sensor.id)
            process = before.process if before else None
            after = sensors.armed(process, sensor, snapshot.version, services.clock(), anew=anew)
            if not polls.put(after, before):
                continue
            if process is None or after.turn != process.turn:
                _send(services, tenant, after)
            break
        else:
            raise ContentionError(sensor.ref)


# --- the executor's part


def start(services: Services, message: SensorDue) -> None:
    """Begin the poll, unless it was begun, is not due, or nobody listens any more."""
    for _ in range(_TRIES):
        if _try_start(services, message):
            return
    raise ContentionError(message.ref)


def _try_start(services: Services, message: SensorDue) -> bool:
    """False: somebody else wrote the row meanwhile."""
    tenant, now = message.tenant, services.clock()
    polls = services.store.tenant(tenant).polls
    stored = polls.get(message.id)
    process = stored.process if stored else None
    if stored is None or process is None or process.turn != message.turn or process.phase != "waiting":
        return True
    if process.next_poll is not None and process.next_poll - now > sensors.EARLY:
        delay = max(1, sensors.delay_until(process.next_poll, now))
        services.queues.sensor_due(message, delay=min(delay, sensors.MAX_DELAY))
        return True
    snapshot = services.snapshots.of(tenant, at_least=process.armed)
    if not services.tenants.is_open(tenant, default=services.settings.default_tenant):
        return True  # the tick sends it again
    sensor = snapshot.sensor(message.ref)
    if sensor is None or sensor.id != message.id:
        polls.delete(message.id)
        return True
    rules = _listening(snapshot, sensor)
    if not rules or not sensor.enabled or not sensors.is_polled(sensor):
        return polls.put(sensors.stopped(process, now), stored)
    try:
        libraries = environments.libraries_for(services, snapshot, sensor)
    except EnvironmentPendingError as pending:
        services.queues.sensor_due(message, delay=pending.delay)
        return True
    except EnvironmentFailedError as error:
        return _failed(services, tenant, stored, sensor, str(error))
    token = secrets.token_urlsafe(24)
    claimed = sensors.claimed(process, token=token_hash(token), rules=len(rules), now=now)
    if not polls.put(claimed, stored):
        return False
    mine = Stored(claimed, stored.version + 1)
    try:
        poll = _poll(services, snapshot, sensor, claimed, rules, token)
        services.invoker.poll(msgspec.structs.replace(poll, run=msgspec.structs.replace(poll.run, libraries=libraries)))
    except RunTooLargeError as error:
        return _failed(services, tenant, mine, sensor, str(error))
    except Exception:
        # Undo the claim, so that the redelivered message can make it again.
        polls.put(sensors.waiting(claimed, process.next_poll or now, now), mine)
        raise
    return True


def _listening(snapshot: Snapshot, sensor: Sensor) -> list[Rule]:
    return [rule for ref in sensor.trigger_refs for rule in snapshot.rules_for(ref)]


def _poll(
    services: Services, snapshot: Snapshot, sensor: Sensor, process: Process, rules: list[Rule], token: str
) -> Poll:
    tenant, now = snapshot.tenant, services.clock()
    keys: dict[str, Json] = {}
    hidden: list[str] = []
    for key in snapshot.keys_of_sensor(sensor.ref, sensor.pack_ref or ""):
        keys[key.name] = services.cipher.open(tenant, key.ref, key.sealed)
        if key.encrypted:
            hidden += strings_in(keys[key.name])
    document = sensors.document(sensor, process, rules, keys, now)
    run = Run(
        tenant=tenant,
        execution=sensor.id,
        attempt=process.turn,
        token=token,
        action_ref=sensor.ref,
        runner=RUNNERS[sensor.runtime_ref],
        entrypoint=sensor.entrypoint if sensor.content is None else f"sensors/{sensor.entrypoint}",
        parameters=document,
        secrets=hidden,
        environment=_environment(services, snapshot, sensor, document, now),
        timeout=sensors.POLL_SECONDS,
        pack=archive_of(services, snapshot, sensor),
    )
    return Poll(run=run)


def _environment(
    services: Services, snapshot: Snapshot, sensor: Sensor, document: dict[str, Json], now: datetime
) -> dict[str, str]:
    """The variables of semantics §2.13, but for those of the message broker that is not here."""
    token = services.tokens.issue_sensor(
        tenant=snapshot.tenant,
        identity_id=sensor.id,
        sensor_ref=sensor.ref,
        trigger_types=sensor.trigger_refs,
        now=now,
        life=_TOKEN_LIFE,
    )
    environment = {
        "ATTUNE_API_URL": services.settings.api_url,
        "ATTUNE_API_TOKEN": token,
        "ATTUNE_SENSOR_ID": str(sensor.id),
        "ATTUNE_SENSOR_REF": sensor.ref,
        "ATTUNE_PACK_REF": sensor.pack_ref or "",
        "ATTUNE_SENSOR_TRIGGER_TYPES": msgspec.json.encode(sensor.trigger_refs).decode(),
        "ATTUNE_LOG_LEVEL": "info",
    }
    triggers = msgspec.json.encode(document["rules"])
    if len(triggers) <= _LONGEST_TRIGGERS:
        environment["ATTUNE_SENSOR_TRIGGERS"] = triggers.decode()
    return environment


# --- the conductor's part


def take_in(services: Services, report: SensorPolled) -> None:
    """Bring a poll to its end: its events, its state, its next turn. May be repeated: the events of a turn have ids of
    their own, and the row is written once."""
    tenant, now = report.tenant, services.clock()
    stored = services.store.tenant(tenant).polls.get(report.id)
    if stored is None:
        return
    process = stored.process
    if process.turn == report.turn + 1 and process.phase == "waiting":
        _send(services, tenant, process)  # an earlier delivery may have died before it sent this
        return
    if not _is_current(process, report.turn, report.token):
        logger.warning("report of a poll dropped", sensor=report.ref, turn=report.turn, tenant=tenant)
        return
    snapshot = services.snapshots.of(tenant, at_least=process.armed)
    sensor = snapshot.sensor(report.ref)
    if sensor is None or sensor.id != report.id:
        services.store.tenant(tenant).polls.delete(report.id)
        return
    events = 0
    complaints: list[str] = []
    if report.error is None and sensor.enabled:
        events, complaints = _take_in_events(services, snapshot, sensor, report, process.last_poll_at or now)
    for _ in range(_TRIES):
        after = sensors.polled(
            process,
            interval=sensors.interval_of(sensor),
            now=now,
            error=report.error,
            state=report.state,
            wanted=report.next_poll,
            duration_ms=report.duration_ms,
            exit_code=report.exit_code,
        )
        if services.store.tenant(tenant).polls.put(after, stored, events=events, refused=len(complaints)):
            _send(services, tenant, after)
            _log(services, report, complaints, now)
            return
        # A rule was switched on meanwhile: the row is still ours, but has another version.
        again = services.store.tenant(tenant).polls.get(report.id)
        if again is None or not _is_current(again.process, report.turn, report.token):
            return
        stored, process = again, again.process
    raise ContentionError(report.ref)


def take_back(services: Services, poll: Poll, *, throttled: bool) -> None:
    """A poll whose runner died has failed; one that Lambda had no room for is due again in a moment."""
    run, now = poll.run, services.clock()
    stored = services.store.tenant(run.tenant).polls.get(run.execution)
    if stored is None or not _is_current(stored.process, run.attempt, run.token):
        return
    if throttled:
        again = sensors.waiting(stored.process, now + timedelta(seconds=1), now)
        if services.store.tenant(run.tenant).polls.put(again, stored):
            _send(services, run.tenant, again)
        return
    sensor = services.snapshots.of(run.tenant).sensor(run.action_ref)
    if sensor is not None and not _failed(services, run.tenant, stored, sensor, LOST):
        raise ContentionError(run.action_ref)


def _is_current(process: Process, turn: int, token: str) -> bool:
    return (process.phase, process.turn, process.token) == ("running", turn, token_hash(token))


def _take_in_events(
    services: Services, snapshot: Snapshot, sensor: Sensor, report: SensorPolled, began: datetime
) -> tuple[int, list[str]]:
    """How many of a poll's events were taken in, and what is wrong with the others."""
    rules = _listening(snapshot, sensor)
    began_ms = int(began.timestamp() * 1000)
    taken, complaints = 0, []
    for number, printed in enumerate(report.events):
        try:
            event = sensors.report_of(printed, sensor.trigger_refs, rules)
            trigger = snapshot.trigger(event.trigger_ref)
            if trigger is None:
                complaints.append(f"event {number} refused: trigger {event.trigger_ref} does not exist")
                continue
            key = f"{sensor.ref}/{event.key}" if event.key is not None else None
            accept_event(
                services,
                snapshot.tenant,
                trigger,
                payload=event.payload,
                rule=event.rule,
                source=sensor.id,
                source_ref=sensor.ref,
                idempotency_key=key,
                derived=(began_ms, f"sensor/{sensor.id}/{report.turn}/{number}") if key is None else None,
            )
            taken += 1
        except (ReportError, PayloadRefusedError) as error:
            complaints.append(f"event {number} refused: {error}")
    return taken, complaints


def _failed(services: Services, tenant: str, stored: Stored, sensor: Sensor, error: str) -> bool:
    """End a poll that could not run, or never came back. False: somebody else wrote the row meanwhile."""
    now = services.clock()
    after = sensors.polled(stored.process, interval=sensors.interval_of(sensor), now=now, error=error)
    if not services.store.tenant(tenant).polls.put(after, stored):
        return False
    _send(services, tenant, after)
    _append(services.store.tenant(tenant).blobs, sensor.id, "stderr", f"{_stamp(now)} {error}\n")
    return True


def _send(services: Services, tenant: str, process: Process) -> None:
    """Send out the poll that ``process`` waits for, unless it is so far away that the tick does."""
    delay = sensors.delay_until(process.next_poll, services.clock())
    if process.phase == "waiting" and delay <= sensors.MAX_DELAY:
        message = SensorDue(tenant=tenant, ref=process.ref, id=process.sensor, turn=process.turn)
        services.queues.sensor_due(message, delay=delay)


# --- the tick's part


def watch(services: Services, now: datetime) -> int:
    """See to the sensors whose message was lost or is to be sent now, and to polls that went silent. Returns how many
    there were."""
    found = services.store.polls_due(now)
    for tenant, id_ in found:
        polls = services.store.tenant(tenant).polls
        stored = polls.get(id_)
        if stored is None:
            continue
        process = stored.process
        if process.phase == "running":
            if process.deadline is not None and process.deadline <= now:
                logger.warning("poll silent past its deadline", tenant=tenant, sensor=process.ref, turn=process.turn)
                _end_silent(services, tenant, stored)
        elif process.next_poll is not None:
            # Written before it is sent, so that it stays in the index.
            look = max(process.next_poll, now) + sensors.SAFETY
            if polls.put(msgspec.structs.replace(process, look=look), stored):
                _send(services, tenant, process)
    return len(found)


def _end_silent(services: Services, tenant: str, stored: Stored) -> None:
    sensor = services.snapshots.of(tenant).sensor(stored.process.ref)
    if sensor is None or sensor.id != stored.process.sensor:
        services.store.tenant(tenant).polls.delete(stored.process.sensor)
    else:
        _failed(services, tenant, stored, sensor, LOST)


# --- logs: what a sensor printed besides its reports


def log_name(sensor_id: int, stream: str) -> str:
    """The blob that holds the end of a stream."""
    return f"sensors/{sensor_id}/{stream}"


def read_log(blobs: Blobs, sensor_id: int, stream: str) -> str:
    """What the sensor printed there, the last :data:`KEPT_LOG` bytes of it."""
    try:
        return blobs.get(log_name(sensor_id, stream)).decode("utf-8", "replace")
    except MissingBlobError:
        return ""


def _log(services: Services, report: SensorPolled, complaints: list[str], now: datetime) -> None:
    blobs = services.store.tenant(report.tenant).blobs
    said = [*complaints, *([report.error] if report.error is not None else [])]
    errors = report.stderr + "".join(f"{_stamp(now)} {line}\n" for line in said)
    for stream, text in (("stdout", report.stdout), ("stderr", errors)):
        if text:
            _append(blobs, report.id, stream, text)


def _append(blobs: Blobs, sensor_id: int, stream: str, text: str) -> None:
    """A sensor's polls follow each other, so that nobody else appends meanwhile."""
    whole = (read_log(blobs, sensor_id, stream) + text).encode()
    if len(whole) > KEPT_LOG:
        whole = whole[-KEPT_LOG:].partition(b"\n")[2]
    blobs.put(log_name(sensor_id, stream), whole, "text/plain; charset=utf-8")


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
