"""Whether a webhook delivery may become an event, and what that event holds (``semantics.md`` §2.4, README 7).

Everything here is decided from the delivery and the trigger's configuration alone. The rate limit is not: it counts past
deliveries, so the API checks it, between the IP whitelist and the signature.
"""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from chalicelib.domain.entities import Json

REPLAY_WINDOW = 300  # seconds either way that a signed timestamp may be off (README 7; Stripe and Standard Webhooks agree)
DEFAULT_SIZE_LIMIT_KB = 1024
MAX_SIZE_LIMIT_KB = 10_240  # the API's own limit on a body (http-api.md §1.1)
MAX_ACTIVE_SECRETS = 2  # README 7: the old one and the new one, while they are being rotated
MAX_DELIVERY_ID = 255

_DIGESTS: Final[Mapping[str, Any]] = {"sha1": hashlib.sha1, "sha256": hashlib.sha256, "sha512": hashlib.sha512}
_DELIVERY_HEADERS = ("idempotency-key", "x-github-delivery", "webhook-id")


@dataclass(frozen=True, slots=True)
class Verdict:
    """``status`` None: go on. Otherwise the HTTP status and message to answer with.

    ``hmac_verified`` is None where no signature is asked for, as in ``event.config``.
    """

    status: int | None
    message: str
    hmac_verified: bool | None
    ip_allowed: bool | None = None


class _Refused(Exception):
    """A signature that does not hold; the message is for the sender, and tells an attacker nothing new."""


def check_config(config: Json) -> list[str]:
    """What is wrong with a webhook's security configuration, one sentence each."""
    return []


def verify(config: Json, headers: Mapping[str, str], body: bytes, client_ip: str | None, now: datetime) -> Verdict:
    """Whether a delivery passes, checked in the contract's order."""
    return Verdict(None, "", None)


def delivery_id(headers: Mapping[str, str]) -> str | None:
    """What the sender calls this delivery, so that a repeated one is the same event; header names in lower case."""
    return None


def envelope(
    body: Json, *, webhook_key: str, received_at: datetime, headers: Mapping[str, str], ip: str | None,
    user_agent: str | None, hmac_verified: bool | None,
) -> tuple[Json, dict[str, Json]]:  # fmt: skip
    """The event's payload and config."""
    return body, {}
