"""Bodies, queries and answers of the trigger and webhook routes (contract: http-api part 2, trigger.rs, webhook.rs)."""

from datetime import datetime
from typing import Any, Literal, Self

from msgspec import UNSET

from chalicelib.api.views import Body, Json, Label, Omittable, PageQuery, Patch, Ref, View

Schema = dict[str, Json]


class CreateTriggerRequest(Body, kw_only=True, frozen=True):
    ref: Ref
    label: Label
    pack_ref: Ref | None = None
    description: str | None = None
    param_schema: Schema | None = None
    out_schema: Schema | None = None
    enabled: bool = True


class UpdateTriggerRequest(Body, kw_only=True, frozen=True):
    """What is absent or null stays as it is."""

    label: Label | None = None
    description: Patch[str] = None
    param_schema: Patch[Schema] = None
    out_schema: Patch[Schema] = None
    enabled: bool | None = None


class _TriggerView(View, kw_only=True, frozen=True):
    """What summary and detail have in common. ``reference_visibility`` is required by the published client, which is
    newer than the contract; here any pack may refer to a trigger it sees."""

    id: int
    ref: str
    pack_ref: str | None
    label: str
    description: str | None
    enabled: bool
    webhook_enabled: bool
    reference_visibility: Literal["public"] = "public"
    created: datetime
    updated: datetime

    @classmethod
    def of(cls, entity: Any, **computed: Any) -> Self:
        return super().of(entity, reference_visibility="public", **computed)


class TriggerSummary(_TriggerView, kw_only=True, frozen=True):
    """A trigger in a list."""


class RefusedPayloads(View, kw_only=True, frozen=True):
    """Events of a trigger that broke its ``out_schema`` and were refused."""

    count: int
    last_at: datetime | None
    last_reason: str | None


class TriggerResponse(_TriggerView, kw_only=True, frozen=True):
    """A trigger in full. ``refused_payloads`` is ours, and there once something was refused."""

    pack: int | None
    param_schema: Json
    out_schema: Json
    webhook_key: Omittable[str] = UNSET
    is_adhoc: bool
    sensor: Omittable[int] = UNSET
    sensor_ref: Omittable[str] = UNSET
    refused_payloads: Omittable[RefusedPayloads] = UNSET

    @classmethod
    def of(cls, entity: Any, **computed: Any) -> Self:
        return super().of(entity, **{"refused_payloads": None, **computed})


class TriggerQuery(PageQuery, kw_only=True, frozen=True):
    """``q``: text to find in ref, label or description."""

    q: str | None = None


class WebhookReceiverResponse(View, kw_only=True, frozen=True):
    event_id: int
    trigger_ref: str
    received_at: datetime
    message: str
