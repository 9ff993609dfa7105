"""Routes of webhooks: switching a trigger's webhook on and off, securing it, and receiving what is posted to it
(contract: http-api 1.4, semantics §2.4, README 7)."""

import secrets
from typing import Final

import msgspec

from chalicelib.api.access import SUSPENDED, standing_of
from chalicelib.api.answers import Spread
from chalicelib.api.errors import ApiError, BadRequest, Forbidden, NotFound, TooMany, Unauthorized, Unprocessable
from chalicelib.api.routing import PUBLIC, ROUTES, Call, grant
from chalicelib.api.trigger_views import TriggerResponse, WebhookReceiverResponse
from chalicelib.api.triggers import trigger_to_update
from chalicelib.api.views import Data, Json
from chalicelib.api.webhook_secrets import masked, opened, sealed
from chalicelib.domain import webhooks
from chalicelib.domain.entities import Trigger
from chalicelib.flow import quotas
from chalicelib.flow.intake import accept_event
from chalicelib.log import logger
from chalicelib.store.registry import Put

SOURCE: Final = "webhook"

_REFUSALS: Final[dict[int, type[ApiError]]] = {400: BadRequest, 401: Unauthorized, 403: Forbidden}


@ROUTES.post(
    "/api/v1/triggers/{ref}/webhooks/enable",
    needs=grant("triggers", "update"),
    returns=Data[TriggerResponse],
    tag="webhooks",
    errors=(404, 409),
)
def enable_webhook(call: Call, ref: str) -> Spread:
    """Give the trigger a webhook. An existing key and the security configuration stay (README 7)."""
    current = trigger_to_update(call, ref)
    return _saved(call, current, "Webhook enabled", webhook_enabled=True, webhook_key=current.webhook_key or _new_key())


@ROUTES.post(
    "/api/v1/triggers/{ref}/webhooks/disable",
    needs=grant("triggers", "update"),
    returns=Data[TriggerResponse],
    tag="webhooks",
    errors=(404, 409),
)
def disable_webhook(call: Call, ref: str) -> Spread:
    """Take the trigger's webhook away; its key is gone for good, its security configuration stays."""
    return _saved(call, trigger_to_update(call, ref), "Webhook disabled", webhook_enabled=False, webhook_key=None)


@ROUTES.post(
    "/api/v1/triggers/{ref}/webhooks/regenerate",
    needs=grant("triggers", "update"),
    returns=Data[TriggerResponse],
    tag="webhooks",
    errors=(404, 409),
)
def regenerate_webhook_key(call: Call, ref: str) -> Spread:
    """Replace the webhook's key; the old one ends at once. 400 where the webhook is not enabled."""
    current = trigger_to_update(call, ref)
    if not current.webhook_enabled:
        raise BadRequest(f"Webhooks are not enabled for trigger '{ref}'")
    return _saved(call, current, "Webhook key regenerated", webhook_key=_new_key())


@ROUTES.get(
    "/api/v1/triggers/{ref}/webhooks/config",
    needs=grant("triggers", "update"),
    returns=Data[Json],
    tag="webhooks",
    errors=(404,),
)
def get_webhook_config(call: Call, ref: str) -> Data[Json]:
    """The webhook's security configuration, its secrets masked."""
    return Data(masked(trigger_to_update(call, ref).webhook_config))


@ROUTES.put(
    "/api/v1/triggers/{ref}/webhooks/config",
    needs=grant("triggers", "update"),
    returns=Data[TriggerResponse],
    body=dict[str, Json],
    tag="webhooks",
    errors=(404, 409),
)
def set_webhook_config(call: Call, ref: str) -> Data[TriggerResponse]:
    """Replace the security configuration: ``hmac`` (enabled, secret or secrets, algorithm), ``rate_limit`` (enabled,
    requests, window_seconds), ``ip_whitelist`` (enabled, ips), ``payload_size_limit_kb``. Secrets that are left out or
    masked stay as they are."""
    current = trigger_to_update(call, ref)
    config = opened(call.services.cipher, call.tenant, current, onto=call.body)
    problems = webhooks.check_config(config)
    if problems:
        raise Unprocessable("Invalid webhook configuration: " + "; ".join(problems), details=problems)
    config = sealed(call.services.cipher, call.tenant, current, config)
    trigger = msgspec.structs.replace(current, webhook_config=config, updated=call.now)
    call.registry.commit(Put(trigger))
    return Data(TriggerResponse.of(trigger), "Webhook configuration updated")


@ROUTES.post(
    "/api/v1/webhooks/{key}",
    needs=PUBLIC,
    returns=Data[WebhookReceiverResponse],
    raw=True,
    tag="webhooks",
    errors=(400, 403, 404, 429),
)
def receive_webhook(call: Call, key: str) -> Spread:
    """Any JSON object becomes an event: its ``payload`` if it has one, otherwise all of it. A repeated delivery id
    (``Idempotency-Key``, ``X-GitHub-Delivery``, ``webhook-id``) gives the first event again."""
    attempt: dict[str, Json] = {"size": len(call.raw_body), "client_ip": call.client_ip}
    try:
        response = _receive(call, key, attempt)
    except ApiError as refusal:
        logger.info("webhook refused", extra={**attempt, "status": refusal.status, "reason": refusal.message})
        raise
    logger.info("webhook accepted", extra=attempt)
    return Spread.of(response)


def _receive(call: Call, key: str, attempt: dict[str, Json]) -> WebhookReceiverResponse:
    """The checks of semantics §2.4, in its order. ``attempt`` collects what the log says of this delivery."""
    body = _decoded(call.raw_body)
    tenant, trigger = _addressed(call, key)
    attempt |= {"tenant": tenant, "trigger_ref": trigger.ref}
    if not trigger.webhook_enabled:
        raise BadRequest("Webhooks are not enabled for this trigger")
    config = call.services.snapshots.of(tenant).memo(
        f"webhook/{trigger.ref}/{trigger.revision}", lambda: opened(call.services.cipher, tenant, trigger)
    )
    verdict = webhooks.verify(config, call.headers, call.raw_body, call.client_ip or None, call.now)
    attempt |= {"hmac_verified": verdict.hmac_verified, "ip_allowed": verdict.ip_allowed}
    if verdict.status in (None, 401):
        _count(call, tenant, trigger, config)
    if verdict.status is not None:
        raise _REFUSALS.get(verdict.status, BadRequest)(verdict.message)
    quotas.admit(call.services, tenant)
    payload, event_config = webhooks.envelope(
        body,
        webhook_key=key,
        received_at=call.now,
        headers=call.headers,
        ip=call.client_ip or None,
        user_agent=call.user_agent,
        hmac_verified=verdict.hmac_verified,
    )
    event = accept_event(
        call.services,
        tenant,
        trigger,
        payload=payload,
        config=event_config,
        source_ref=SOURCE,
        idempotency_key=webhooks.delivery_id(call.headers),
    )
    attempt["event"] = event.id
    return WebhookReceiverResponse(
        event_id=event.id, trigger_ref=trigger.ref, received_at=call.now, message="Webhook received successfully"
    )


def _decoded(raw: bytes) -> dict[str, Json]:
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"Malformed JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadRequest("The body of a webhook must be a JSON object")
    return body


def _addressed(call: Call, key: str) -> tuple[str, Trigger]:
    """The tenant and trigger that ``key`` opens; NotFound for any other key."""
    services = call.services
    target = services.snapshots.webhook(key)
    if target is not None:
        trigger = services.snapshots.of(target[0]).trigger(target[1])
    else:
        # The cache may be a second behind a key that another process has just made.
        target = services.store.webhook_target(key)
        trigger = services.store.tenant(target[0]).registry.triggers.get(target[1]) if target else None
    if target is None or trigger is None or trigger.webhook_key != key:
        raise NotFound("Invalid webhook key")
    match standing_of(target[0], services):
        case "gone":
            raise NotFound("Invalid webhook key")
        case "suspended":
            raise Forbidden(SUSPENDED)
    return target[0], trigger


def _count(call: Call, tenant: str, trigger: Trigger, config: Json) -> None:
    """Hold the delivery against the trigger's rate limit, if it has one; TooMany beyond it."""
    limit = (config or {}).get("rate_limit") or {}
    if not limit.get("enabled"):
        return
    window = limit["window_seconds"]
    hits = call.services.store.tenant(tenant).hits
    if hits.hit(trigger.webhook_key or "", call.client_ip or "unknown", window, now=call.now) > limit["requests"]:
        raise TooMany("Rate limit exceeded", retry_after=window)


def _new_key() -> str:
    return f"wh_{secrets.token_hex(16)}"


def _saved(call: Call, current: Trigger, message: str, **changes: Json) -> Spread:
    trigger = msgspec.structs.replace(current, **changes, updated=call.now)
    call.registry.commit(Put(trigger))
    return Spread.of(TriggerResponse.of(trigger), message)
