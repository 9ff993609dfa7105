"""Whether a webhook delivery may become an event, and what that event holds (``semantics.md`` §2.4, README 7).

Everything here is decided from the delivery and the trigger's configuration alone. The rate limit is not: it counts
past deliveries, so the API checks it, between the IP whitelist and the signature.

A signature is looked for where GitHub (``X-Hub-Signature-256``), Stripe (``Stripe-Signature``), senders of the Standard
Webhooks specification (``webhook-signature``) or anybody else (``X-Webhook-Signature``) put it. Header names are lower
case throughout.
"""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from chalicelib.domain.entities import Json

REPLAY_WINDOW = 300  # seconds that a signed timestamp may be off, either way (README 7)
MAX_SIZE_LIMIT_KB = 10_240  # the API's own limit on a body (http-api.md §1.1)
MAX_ACTIVE_SECRETS = 2  # README 7: the old one and the new one, while they are being rotated
MAX_RATE_WINDOW = 86_400  # seconds
MAX_ADDRESSES = 100
MAX_DELIVERY_ID = 255  # characters; of a longer one, its hash is used
MAX_KEPT_HEADERS = 20
MAX_HEADER = 256  # characters of one header's value

_DIGESTS: Final[Mapping[str, Any]] = {"sha1": hashlib.sha1, "sha256": hashlib.sha256, "sha512": hashlib.sha512}
_DELIVERY_HEADERS: Final = ("idempotency-key", "x-github-delivery", "webhook-id")
_DROPPED_HEADERS: Final = re.compile(
    r"x-(?:forwarded|amz|amzn|real-ip|api-key|auth|request-id)|.*(?:signature|token|secret)"
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """``status`` None: go on. Otherwise the HTTP status and message to answer with.

    ``hmac_verified`` and ``ip_allowed`` are None where nothing asked for them, as in ``event.config`` and the log.
    """

    status: int | None
    message: str
    hmac_verified: bool | None
    ip_allowed: bool | None = None


class _RefusedError(Exception):
    """A signature that does not hold. The message is for the sender and says nothing that helps to forge one."""


def check_config(config: Json) -> list[str]:
    """What is wrong with a webhook's security configuration, one sentence each; unknown fields are ignored."""
    if not isinstance(config, dict):
        return ["the configuration must be an object"]
    problems: list[str] = []
    for name, check in (("hmac", _hmac_problems), ("rate_limit", _rate_problems), ("ip_whitelist", _ip_problems)):
        section = config.get(name)
        if section is None:
            continue
        if not isinstance(section, dict):
            problems.append(f"{name} must be an object")
        elif not isinstance(section.get("enabled", False), bool):
            problems.append(f"{name}.enabled must be true or false")
        else:
            problems += check(section)
    if (limit := config.get("payload_size_limit_kb")) is not None and not _is_between(limit, 1, MAX_SIZE_LIMIT_KB):
        problems.append(f"payload_size_limit_kb must be an integer from 1 to {MAX_SIZE_LIMIT_KB}")
    return problems


def verify(config: Json, headers: Mapping[str, str], body: bytes, client_ip: str | None, now: datetime) -> Verdict:
    """Whether a delivery passes, checked in the contract's order: size 400, IP whitelist 403, signature 401.

    ``body`` is the raw body, byte for byte as it came. A configuration that :func:`check_config` would refuse lets
    nothing through that it should have kept out.
    """
    config = config if isinstance(config, dict) else {}
    limit = config.get("payload_size_limit_kb")
    if limit is not None and len(body) > limit * 1024:
        return Verdict(400, f"Payload exceeds the limit of {limit} KB", None)
    ip_allowed = _is_allowed(config.get("ip_whitelist") or {}, client_ip)
    if ip_allowed is False and client_ip is not None:
        return Verdict(403, "IP address not allowed", None, ip_allowed)
    signing = config.get("hmac") or {}
    if not signing.get("enabled"):
        return Verdict(None, "", None, ip_allowed)
    try:
        _check_signature(signing, headers, body, now)
    except _RefusedError as refusal:
        return Verdict(401, str(refusal), hmac_verified=False, ip_allowed=ip_allowed)
    return Verdict(None, "", hmac_verified=True, ip_allowed=ip_allowed)


def delivery_id(headers: Mapping[str, str]) -> str | None:
    """What the sender calls this delivery, so that a repeated one is the same event; None if it does not say.

    The header's name is part of it: two senders' ids of the same text are different deliveries.
    """
    for name in _DELIVERY_HEADERS:
        if value := headers.get(name, "").strip():
            return f"{name}:{value if len(value) <= MAX_DELIVERY_ID else hashlib.sha256(value.encode()).hexdigest()}"
    return None


def envelope(
    body: Json,
    *,
    webhook_key: str,
    received_at: datetime,
    headers: Mapping[str, str],
    ip: str | None,
    user_agent: str | None,
    hmac_verified: bool | None,
) -> tuple[Json, dict[str, Json]]:
    """The event's payload and config: an object with a ``payload`` is the envelope of §2.4, all else is the payload.

    What an envelope says of its ``headers``, ``source_ip`` and ``user_agent`` stands; otherwise they are the request's,
    of its headers those with which services describe an event (``X-GitHub-Event``), not those that let somebody in.
    """
    is_envelope = isinstance(body, dict) and "payload" in body
    said: Mapping[str, Json] = body if is_envelope else {}
    kept = said.get("headers") if isinstance(said.get("headers"), dict) else _descriptive(headers)
    config: dict[str, Json] = {
        "source": "webhook",
        "webhook_key": webhook_key,
        "received_at": msgspec.to_builtins(received_at),
        "headers": kept or None,
        "source_ip": said.get("source_ip") or ip,
        "user_agent": said.get("user_agent") or user_agent,
        "hmac_verified": hmac_verified,
    }
    known = {name: value for name, value in config.items() if value is not None}
    return (said["payload"] if is_envelope else body), known


def _descriptive(headers: Mapping[str, str]) -> dict[str, str]:
    described = (
        (name, value)
        for name, value in sorted(headers.items())
        if name.startswith("x-") and not _DROPPED_HEADERS.match(name) and len(value) <= MAX_HEADER
    )
    return dict(list(described)[:MAX_KEPT_HEADERS])


def _is_allowed(whitelist: Mapping[str, Json], client_ip: str | None) -> bool | None:
    if not whitelist.get("enabled"):
        return None
    if client_ip is None:
        return False
    try:
        address = ipaddress.ip_address(client_ip.strip())
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in _networks(whitelist.get("ips")))


def _networks(ips: Json) -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    for entry in ips if isinstance(ips, list) else []:
        try:
            yield ipaddress.ip_network(entry, strict=False)
        except (ValueError, TypeError):
            continue


def _check_signature(signing: Mapping[str, Json], headers: Mapping[str, str], body: bytes, now: datetime) -> None:
    algorithm = signing.get("algorithm") or "sha256"
    if algorithm not in _DIGESTS:
        raise _RefusedError("Signature algorithm mismatch")
    if not (secrets := _secrets(signing)):
        raise _RefusedError("No signing secret is configured")
    if "stripe-signature" in headers:
        content, given = _stripe(headers["stripe-signature"], body, now)
        _check_is_sha256(algorithm)
    elif "webhook-signature" in headers:
        content, given = _standard(headers, body, now)
        _check_is_sha256(algorithm)
        secrets = [key for secret in secrets for key in (secret, _decoded(secret)) if key]
    else:
        content, given = body, [_plain(headers, algorithm)]
    expected = [hmac.digest(key, content, _DIGESTS[algorithm]) for key in secrets]
    # Every pair is compared, so that the time taken does not say which secret or signature came close.
    holds = [hmac.compare_digest(signature, digest) for signature in given for digest in expected]
    if not any(holds):
        raise _RefusedError("Invalid webhook signature")


def _secrets(signing: Mapping[str, Json]) -> list[bytes]:
    listed = signing.get("secrets") or []
    candidates = [signing.get("secret"), *(listed if isinstance(listed, list) else [])]
    texts = dict.fromkeys(text for text in candidates if isinstance(text, str) and text)
    return [text.encode() for text in list(texts)[:MAX_ACTIVE_SECRETS]]


def _check_is_sha256(algorithm: str) -> None:
    if algorithm != "sha256":
        raise _RefusedError("Signature algorithm mismatch")


def _plain(headers: Mapping[str, str], algorithm: str) -> bytes:
    """``algo=hex`` or bare hex over the raw body."""
    header = headers.get("x-webhook-signature") or headers.get("x-hub-signature-256")
    if not header:
        raise _RefusedError("Missing webhook signature")
    stated, separator, digits = header.strip().rpartition("=")
    if separator and stated.strip().lower() != algorithm:
        raise _RefusedError("Signature algorithm mismatch")
    return _unhexed(digits)


def _stripe(header: str, body: bytes, now: datetime) -> tuple[bytes, list[bytes]]:
    """``t=timestamp,v1=hex`` over ``timestamp.body``; several ``v1`` while the secret is rotated."""
    pairs = [part.strip().partition("=")[::2] for part in header.split(",")]
    timestamp = next((value for name, value in pairs if name == "t"), "")
    _check_timestamp(timestamp, now)
    return timestamp.encode() + b"." + body, [_unhexed(value) for name, value in pairs if name == "v1"]


def _standard(headers: Mapping[str, str], body: bytes, now: datetime) -> tuple[bytes, list[bytes]]:
    """``v1,base64`` pairs over ``id.timestamp.body`` (standardwebhooks.com)."""
    id_, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not id_:
        raise _RefusedError("Missing webhook-id")
    _check_timestamp(timestamp, now)
    given = [_unbased(value) for version, _, value in _versions(headers["webhook-signature"]) if version == "v1"]
    return f"{id_}.{timestamp}.".encode() + body, given


def _versions(header: str) -> Iterator[tuple[str, str, str]]:
    return (part.partition(",") for part in header.split())


def _check_timestamp(text: str, now: datetime) -> None:
    if not text.isascii() or not text.isdecimal() or len(text) > 12:
        raise _RefusedError("Missing or invalid signature timestamp")
    if abs(now.timestamp() - int(text)) > REPLAY_WINDOW:
        raise _RefusedError(f"Signature timestamp is not within {REPLAY_WINDOW} seconds of now")


def _unhexed(digits: str) -> bytes:
    try:
        return bytes.fromhex(digits.strip())
    except ValueError:
        raise _RefusedError("Invalid webhook signature") from None


def _unbased(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _RefusedError("Invalid webhook signature") from None


def _decoded(secret: bytes) -> bytes | None:
    # The specification writes secrets as base64, with or without this prefix; senders in the field also use them as is.
    try:
        return base64.b64decode(secret.removeprefix(b"whsec_"), validate=True)
    except (binascii.Error, ValueError):
        return None


def _hmac_problems(section: Mapping[str, Json]) -> list[str]:
    problems: list[str] = []
    if section.get("algorithm") not in (None, *_DIGESTS):
        problems.append(f"hmac.algorithm must be one of {', '.join(_DIGESTS)}")
    secret, listed = section.get("secret"), section.get("secrets")
    if secret is not None and (not isinstance(secret, str) or not secret):
        problems.append("hmac.secret must be a string that is not empty")
    if listed is not None and not (isinstance(listed, list) and all(isinstance(each, str) and each for each in listed)):
        problems.append("hmac.secrets must be a list of strings that are not empty")
    elif len({*(listed or []), *([secret] if isinstance(secret, str) else [])}) > MAX_ACTIVE_SECRETS:
        problems.append(f"hmac: at most {MAX_ACTIVE_SECRETS} secrets may be active at a time")
    if section.get("enabled") and not secret and not listed:
        problems.append("hmac.secret is required when hmac is enabled")
    return problems


def _rate_problems(section: Mapping[str, Json]) -> list[str]:
    problems: list[str] = []
    if not section.get("enabled") and section.get("requests") is None and section.get("window_seconds") is None:
        return problems
    if not _is_between(section.get("requests"), 1, 1_000_000):
        problems.append("rate_limit.requests must be an integer from 1 to 1000000")
    if not _is_between(section.get("window_seconds"), 1, MAX_RATE_WINDOW):
        problems.append(f"rate_limit.window_seconds must be an integer from 1 to {MAX_RATE_WINDOW}")
    return problems


def _ip_problems(section: Mapping[str, Json]) -> list[str]:
    ips = section.get("ips")
    if ips is None:
        return ["ip_whitelist.ips is required when ip_whitelist is enabled"] if section.get("enabled") else []
    if not isinstance(ips, list) or len(ips) > MAX_ADDRESSES:
        return [f"ip_whitelist.ips must be a list of at most {MAX_ADDRESSES} addresses"]
    return [
        f"ip_whitelist.ips: {entry!r} is not an IP address or CIDR block" for entry in ips if not _is_network(entry)
    ]


def _is_network(entry: Json) -> bool:
    try:
        return isinstance(entry, str) and bool(ipaddress.ip_network(entry, strict=False))
    except ValueError:
        return False


def _is_between(value: Json, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most
