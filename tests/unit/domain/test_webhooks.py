"""Deliveries: the checks in their order, the signatures of four kinds of sender, and what becomes of the body."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.webhooks import check_config, delivery_id, envelope, verify

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TIME = str(int(NOW.timestamp()))
BODY = b'{"payload": {"a": 1}}'
SECRET = "it's a secret to everybody"
SIGNED = {"hmac": {"enabled": True, "secret": SECRET}}


def hexadecimal(content: bytes = BODY, secret: str = SECRET, algorithm: str = "sha256") -> str:
    return hmac.new(secret.encode(), content, algorithm).hexdigest()


def standard(content: bytes, key: bytes) -> str:
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


def status(
    config: Any,
    headers: dict[str, str] | None = None,
    body: bytes = BODY,
    ip: str | None = "10.1.2.3",
    now: datetime = NOW,
) -> int | None:
    verdict = verify(config, headers or {}, body, ip, now)
    assert (verdict.status is None) == (verdict.message == "")
    return verdict.status


def test_nothing_configured_lets_everything_in() -> None:
    for config in (
        {},
        None,
        {"hmac": {"enabled": False, "secret": "x"}},
        {"ip_whitelist": {"enabled": False, "ips": []}},
    ):
        verdict = verify(config, {}, BODY, None, NOW)
        assert (verdict.status, verdict.hmac_verified, verdict.ip_allowed) == (None, None, None)


def test_checks_size_then_address_then_signature() -> None:
    config = {"payload_size_limit_kb": 1, "ip_whitelist": {"enabled": True, "ips": ["10.0.0.0/8"]}, **SIGNED}
    assert status(config, body=b"x" * 1025, ip="1.1.1.1") == 400
    assert status(config, body=b"x" * 1024, ip="1.1.1.1") == 403
    assert status(config) == 401
    assert status(config, {"x-webhook-signature": hexadecimal()}) is None


@pytest.mark.parametrize(
    ("ip", "allowed"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        (" 10.0.0.1 ", True),
        ("11.0.0.1", False),
        ("2001:db8::5", True),
        ("2001:db9::5", False),
        ("192.168.1.7", True),
        ("192.168.1.8", False),
        ("nonsense", False),
        ("10.0.0.1, 1.1.1.1", False),
    ],
)
def test_the_whitelist_takes_addresses_and_blocks(ip: str, allowed: bool) -> None:
    config = {"ip_whitelist": {"enabled": True, "ips": ["10.0.0.0/8", "192.168.1.7", "2001:db8::/32"]}}
    verdict = verify(config, {}, BODY, ip, NOW)
    assert (verdict.status, verdict.ip_allowed) == (None if allowed else 403, allowed)


def test_an_unknown_address_is_let_in_and_noted() -> None:
    verdict = verify({"ip_whitelist": {"enabled": True, "ips": ["10.0.0.0/8"]}}, {}, BODY, None, NOW)
    assert (verdict.status, verdict.ip_allowed) == (None, False)


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("header", ["x-webhook-signature", "x-hub-signature-256"])
def test_a_plain_signature_is_hexadecimal_with_or_without_its_algorithm(header: str, algorithm: str) -> None:
    config = {"hmac": {"enabled": True, "secret": SECRET, "algorithm": algorithm}}
    digits = hexadecimal(algorithm=algorithm)
    for value in (digits, digits.upper(), f"{algorithm}={digits}", f" {algorithm.upper()}={digits} "):
        verdict = verify(config, {header: value}, BODY, None, NOW)
        assert (verdict.status, verdict.hmac_verified) == (None, True)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "Missing webhook signature"),
        ({"x-webhook-signature": ""}, "Missing webhook signature"),
        ({"x-webhook-signature": "zz"}, "Invalid webhook signature"),
        ({"x-webhook-signature": hexadecimal()[:-2]}, "Invalid webhook signature"),
        ({"x-webhook-signature": hexadecimal(b"other")}, "Invalid webhook signature"),
        ({"x-webhook-signature": hexadecimal(secret="other")}, "Invalid webhook signature"),
        ({"x-hub-signature-256": "sha1=" + hexadecimal(algorithm="sha1")}, "algorithm mismatch"),
        ({"x-webhook-signature": "é" * 64}, "Invalid webhook signature"),
        ({"stripe-signature": "nonsense"}, "timestamp"),
        ({"stripe-signature": f"t={TIME}"}, "Invalid webhook signature"),
        ({"stripe-signature": f"t={TIME},v0={hexadecimal(TIME.encode() + b'.' + BODY)}"}, "Invalid webhook signature"),
        ({"webhook-signature": "v1,x"}, "Missing webhook-id"),
        ({"webhook-signature": "v1,x", "webhook-id": "m", "webhook-timestamp": TIME}, "Invalid webhook signature"),
        ({"webhook-signature": "v1,x", "webhook-id": "m", "webhook-timestamp": "١٢٣"}, "timestamp"),
        ({"webhook-signature": "v1,x", "webhook-id": "m", "webhook-timestamp": "9" * 400}, "timestamp"),
    ],
)
def test_a_signature_that_does_not_hold_is_refused(headers: dict[str, str], message: str) -> None:
    verdict = verify(SIGNED, headers, BODY, None, NOW)
    assert (verdict.status, verdict.hmac_verified) == (401, False)
    assert message in verdict.message


def test_stripe_signs_its_timestamp() -> None:
    good = f"t={TIME},v1={hexadecimal(TIME.encode() + b'.' + BODY)}"
    assert status(SIGNED, {"stripe-signature": good}) is None
    assert status(SIGNED, {"stripe-signature": f"t={TIME}, v1={'0' * 64}, v1={good[-64:]}, v0=x"}) is None
    assert status(SIGNED, {"stripe-signature": good.replace(TIME, str(int(TIME) + 1))}) == 401


@pytest.mark.parametrize("prefix", ["whsec_", ""])
def test_standard_webhooks_sign_id_and_timestamp(prefix: str) -> None:
    key = b"0123456789abcdef01234567"
    config = {"hmac": {"enabled": True, "secret": prefix + base64.b64encode(key).decode()}}
    headers = {"webhook-id": "msg_1", "webhook-timestamp": TIME}
    good = standard(f"msg_1.{TIME}.".encode() + BODY, key)
    assert status(config, headers | {"webhook-signature": good}) is None
    assert (
        status(config, headers | {"webhook-signature": f"v1,{base64.b64encode(b'x' * 32).decode()} v1a,zz {good}"})
        is None
    )
    assert status(config, headers | {"webhook-signature": good, "webhook-id": "msg_2"}) == 401
    assert status(config, headers | {"webhook-signature": good}, body=BODY + b" ") == 401


def test_the_published_example_of_standard_webhooks_holds() -> None:
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    config = {"hmac": {"enabled": True, "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}}
    assert status(config, headers, body=b'{"test": 2432232314}', now=datetime.fromtimestamp(1614265330, UTC)) is None


@pytest.mark.parametrize(("seconds", "expected"), [(0, None), (300, None), (-300, None), (301, 401), (-301, 401)])
def test_a_signed_timestamp_holds_for_five_minutes(seconds: int, expected: int | None) -> None:
    now = NOW + timedelta(seconds=seconds)
    assert (
        status(SIGNED, {"stripe-signature": f"t={TIME},v1={hexadecimal(TIME.encode() + b'.' + BODY)}"}, now=now)
        == expected
    )
    headers = {
        "webhook-id": "m",
        "webhook-timestamp": TIME,
        "webhook-signature": standard(f"m.{TIME}.".encode() + BODY, SECRET.encode()),
    }
    assert status(SIGNED, headers, now=now) == expected


def test_two_secrets_are_active_while_one_is_rotated() -> None:
    config = {"hmac": {"enabled": True, "secret": "new", "secrets": ["new", "old", "third"]}}
    for secret, expected in (("new", None), ("old", None), ("third", 401)):
        assert status(config, {"x-webhook-signature": hexadecimal(secret=secret)}) == expected


@pytest.mark.parametrize(
    "config",
    [
        {"hmac": {"enabled": True}},
        {"hmac": {"enabled": True, "secret": ""}},
        {"hmac": {"enabled": True, "secret": "x", "algorithm": "md5"}},
    ],
)
def test_a_broken_configuration_keeps_everybody_out(config: Any) -> None:
    assert status(config, {"x-webhook-signature": hexadecimal(secret="")}) == 401


@given(
    st.binary(max_size=40),
    st.text(max_size=20),
    st.sampled_from(["x-webhook-signature", "x-hub-signature-256", "stripe-signature", "webhook-signature"]),
)
def test_nobody_guesses_a_signature(body: bytes, value: str, header: str) -> None:
    assert status(SIGNED, {header: value, "webhook-id": "m", "webhook-timestamp": TIME}, body=body) == 401


@pytest.mark.parametrize(
    "config",
    [
        {},
        SIGNED,
        {"hmac": {"enabled": True, "secrets": ["a", "b"], "algorithm": "sha512"}},
        {"rate_limit": {"enabled": True, "requests": 5, "window_seconds": 60}},
        {"rate_limit": {"enabled": False}},
        {"ip_whitelist": {"enabled": True, "ips": ["10.0.0.0/8", "::1", "10.0.0.5/8"]}},
        {"payload_size_limit_kb": 64, "unknown": 1},
        {"hmac": None},
    ],
)
def test_a_right_configuration_has_no_problems(config: Any) -> None:
    assert check_config(config) == []


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ([], 1),
        ({"hmac": []}, 1),
        ({"hmac": {"enabled": "yes"}}, 1),
        ({"hmac": {"enabled": True}}, 1),
        ({"hmac": {"enabled": True, "secret": ""}}, 2),
        ({"hmac": {"enabled": True, "secret": "a", "secrets": ["b", "c"]}}, 1),
        ({"hmac": {"algorithm": "md5"}}, 1),
        ({"hmac": {"secrets": "ab"}}, 1),
        ({"rate_limit": {"enabled": True}}, 2),
        ({"rate_limit": {"enabled": True, "requests": 0, "window_seconds": True}}, 2),
        ({"ip_whitelist": {"enabled": True}}, 1),
        ({"ip_whitelist": {"ips": "10.0.0.1"}}, 1),
        ({"ip_whitelist": {"ips": ["x", 5, "10.0.0.1"]}}, 2),
        ({"payload_size_limit_kb": 0}, 1),
        ({"payload_size_limit_kb": "1"}, 1),
        ({"payload_size_limit_kb": 99999, "hmac": {"enabled": 1}}, 2),
    ],
)
def test_every_problem_of_a_configuration_is_named(config: Any, count: int) -> None:
    assert len(check_config(config)) == count


def test_a_delivery_is_known_by_what_its_sender_calls_it() -> None:
    assert delivery_id({"idempotency-key": "a", "webhook-id": "b"}) == "idempotency-key:a"
    assert delivery_id({"x-github-delivery": "a"}) == "x-github-delivery:a"
    assert delivery_id({"webhook-id": " a "}) == "webhook-id:a"
    assert delivery_id({"idempotency-key": " "}) is None
    long = delivery_id({"webhook-id": "a" * 300})
    assert long is not None
    assert long != delivery_id({"webhook-id": "a" * 301})
    assert len(long) < 100


def opened(body: Any, headers: dict[str, str] | None = None, **more: Any) -> Any:
    given = {"ip": "10.0.0.1", "user_agent": "curl/8", "hmac_verified": None} | more
    return envelope(body, webhook_key="wh_1", received_at=NOW, headers=headers or {}, **given)


def test_an_object_with_a_payload_is_the_envelope() -> None:
    payload, config = opened(
        {"payload": [1], "headers": {"X-A": "b"}, "source_ip": "1.2.3.4", "user_agent": "me"}, hmac_verified=True
    )
    assert payload == [1]
    assert config == {
        "source": "webhook",
        "webhook_key": "wh_1",
        "received_at": "2026-03-01T12:00:00Z",
        "headers": {"X-A": "b"},
        "source_ip": "1.2.3.4",
        "user_agent": "me",
        "hmac_verified": True,
    }


def test_anything_else_is_the_payload() -> None:
    for body in ({"a": 1, "headers": 5, "source_ip": "x"}, {}, [1], None):
        payload, config = opened(body)
        assert payload == body
        assert config == {
            "source": "webhook",
            "webhook_key": "wh_1",
            "received_at": "2026-03-01T12:00:00Z",
            "source_ip": "10.0.0.1",
            "user_agent": "curl/8",
        }
    assert opened({"payload": None})[0] is None


def test_headers_that_describe_are_kept_and_those_that_let_in_are_not() -> None:
    headers = {
        "x-github-event": "push",
        "x-webhook-signature": "s",
        "x-hub-signature-256": "s",
        "x-gitlab-token": "t",
        "x-api-key": "k",
        "x-forwarded-for": "1",
        "x-amzn-trace-id": "t",
        "authorization": "Bearer x",
        "cookie": "c",
        "content-type": "application/json",
        "x-long": "x" * 300,
    }
    assert opened({"a": 1}, headers)[1]["headers"] == {"x-github-event": "push"}
    assert len(opened({"a": 1}, {f"x-{n}": "1" for n in range(50)})[1]["headers"]) == 20
