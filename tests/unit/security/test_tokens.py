import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from unit.security.keys import FIRST, SECOND, keyring

from chalicelib.domain.entities import Execution, Identity, IntegrationToken
from chalicelib.security.keyring import NamedKey
from chalicelib.security.tokens import TokenError, Tokens

NOW = datetime.now(UTC).replace(microsecond=0)
ANN = Identity(id=42, ref="ann@example.org", created=NOW, updated=NOW)
RUN = Execution(
    id=77,
    created=NOW,
    updated=NOW,
    action_ref="demo.act",
    status="running",
    permission_set_refs=["standard"],
    timeout=3600,
)
SECRET = NamedKey(**FIRST).secret


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(keyring())


def claims(token: str) -> dict[str, Any]:
    decoded: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return decoded


def refused(tokens: Tokens, token: str | None) -> str:
    with pytest.raises(TokenError) as error:
        tokens.verify(token)
    return error.value.reason


def forged(headers: dict[str, Any] | None = None, secret: bytes = SECRET, **changed: Any) -> str:
    body = {"sub": "42", "login": "ann", "tenant": "acme", "token_type": "access"}
    body |= {"iat": int(NOW.timestamp()), "exp": int(NOW.timestamp()) + 3600} | changed
    body = {name: value for name, value in body.items() if value is not None}
    return jwt.encode(body, secret, algorithm="HS256", headers=headers or {"kid": "k1"})


def test_an_access_token_says_who_and_where(tokens: Tokens) -> None:
    token = tokens.issue_access(tenant="acme", identity=ANN, now=NOW)
    principal = tokens.verify(token)
    assert (principal.tenant, principal.identity_id, principal.login) == ("acme", 42, "ann@example.org")
    assert (principal.token_type, principal.permission_set_refs, principal.execution_id) == ("access", None, None)
    assert claims(token) == {
        "sub": "42",
        "login": "ann@example.org",
        "iat": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 3600,
        "token_type": "access",
        "tenant": "acme",
    }


def test_refresh_tokens_refresh_and_nothing_else(tokens: Tokens) -> None:
    token = tokens.issue_refresh(tenant="acme", identity=ANN, now=NOW, family="f", generation=3)
    assert refused(tokens, token) == "invalid"
    principal = tokens.verify_refresh(token)
    assert (principal.identity_id, principal.metadata) == (42, {"family": "f", "generation": 3})
    assert claims(token)["exp"] - claims(token)["iat"] == 604_800
    with pytest.raises(TokenError):
        tokens.verify_refresh(tokens.issue_access(tenant="acme", identity=ANN, now=NOW))


def test_what_an_integration_token_was_exchanged_for_lives_no_longer_than_it(tokens: Tokens) -> None:
    given = IntegrationToken(
        id=5,
        ref="0" * 64,
        identity=42,
        label="ci",
        token_prefix="attune_it_abcd",
        token_suffix="wxyz",
        created=NOW,
        updated=NOW,
        expires_at=NOW + timedelta(minutes=10),
    )
    access = tokens.issue_access(tenant="acme", identity=ANN, now=NOW, integration_token=given)
    refresh = tokens.issue_refresh(tenant="acme", identity=ANN, now=NOW, family="f", integration_token=given)
    assert tokens.verify(access).integration_token == tokens.verify_refresh(refresh).integration_token == 5
    assert claims(refresh)["scope"] == "integration_token"
    for token in (access, refresh):
        assert claims(token)["exp"] - claims(token)["iat"] == 600


def test_an_execution_token_has_the_rights_of_its_run(tokens: Tokens) -> None:
    token = tokens.issue_execution(tenant="acme", execution=RUN, action_ref="demo.act", pack_ref="demo", now=NOW)
    principal = tokens.verify(token)
    assert (principal.identity_id, principal.token_type, principal.execution_id) == (1, "execution", 77)
    assert principal.permission_set_refs == ["standard"]
    assert principal.metadata["standard_access_action_refs"] == ["demo.act"]
    assert principal.metadata["standard_access_pack_refs"] == ["demo"]
    assert claims(token)["exp"] - claims(token)["iat"] == 3600 + 60


def test_a_sensor_token(tokens: Tokens) -> None:
    token = tokens.issue_sensor(
        tenant="acme", identity_id=9, sensor_ref="demo.sensor", trigger_types=["demo.hook"], now=NOW
    )
    principal = tokens.verify(token)
    assert (principal.login, principal.metadata) == ("demo.sensor", {"trigger_types": ["demo.hook"]})
    assert claims(token)["exp"] - claims(token)["iat"] == 86_400


def test_expired(tokens: Tokens) -> None:
    token = tokens.issue_access(tenant="acme", identity=ANN, now=NOW - timedelta(hours=2))
    assert refused(tokens, token) == "expired"


@pytest.mark.parametrize("token", [None, ""])
def test_missing(tokens: Tokens, token: str | None) -> None:
    assert refused(tokens, token) == "missing"


def test_without_a_type_it_is_an_access_token(tokens: Tokens) -> None:
    assert tokens.verify(forged(token_type=None)).token_type == "access"


@pytest.mark.parametrize(
    "token",
    [
        "nonsense",
        "a.b.c",
        forged(secret=b"x" * 32),
        forged(headers={"kid": "unknown"}),
        forged(tenant=None),
        forged(tenant=""),
        forged(tenant=["acme"]),
        forged(sub="ann"),
        forged(sub=None),
        forged(exp=None),
        forged(token_type="root"),
        forged(metadata="x"),
    ],
)
def test_forgeries(tokens: Tokens, token: str) -> None:
    assert refused(tokens, token) == "invalid"


def test_another_algorithm_is_not_ours(tokens: Tokens) -> None:
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = jwt.encode(claims(forged()), SECRET, algorithm="HS512", headers={"kid": "k1"})
    assert refused(tokens, token) == "invalid"


def test_the_algorithm_none_is_no_signature(tokens: Tokens) -> None:
    def part(content: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    body = part(claims(forged()))
    assert refused(tokens, f"{part({'alg': 'none', 'kid': 'k1'})}.{body}.") == "invalid"


def test_tokens_outlive_a_rotation() -> None:
    before = Tokens(keyring(FIRST)).issue_access(tenant="acme", identity=ANN, now=NOW)
    rotated = Tokens(keyring(SECOND, FIRST))
    assert rotated.verify(before).identity_id == 42
    assert jwt.get_unverified_header(rotated.issue_access(tenant="acme", identity=ANN, now=NOW))["kid"] == "k2"
