"""Bearer tokens: HS256 JWTs with the claims of ``http-api.md`` §1.3 and the tenant (README 1).

PyJWT is imported where it is used: it brings X.509, 60 ms of a cold start, and most functions never see a token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from chalicelib.domain.entities import Execution, Identity, IntegrationToken
from chalicelib.security.keyring import Keyring

TokenType = Literal["access", "refresh", "sensor", "execution", "worker"]
Reason = Literal["missing", "invalid", "expired"]

ACCESS_LIFE: Final = timedelta(seconds=3600)
REFRESH_LIFE: Final = timedelta(seconds=604_800)
SENSOR_LIFE: Final = timedelta(hours=24)
EXECUTION_LIFE: Final = timedelta(seconds=300)  # for an execution without a timeout of its own
EXECUTION_GRACE: Final = timedelta(seconds=60)
DEFAULT_EXECUTOR: Final = 1  # who runs what nobody owns (semantics §2.1)

INTEGRATION_SCOPE: Final = "integration_token"

_ALGORITHM: Final = "HS256"
_BEARERS: Final[frozenset[str]] = frozenset({"access", "sensor", "execution", "worker"})
_REQUIRED: Final = ["sub", "exp", "iat", "tenant"]


class TokenError(Exception):
    """A token that opens nothing; ``reason`` is what the answer may say about it."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"token {reason}")
        self.reason: Reason = reason


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking, as a verified token says it. ``permission_set_refs`` is set for executions: the rights of the run,
    in place of the identity's own."""

    tenant: str
    identity_id: int
    login: str
    token_type: TokenType
    permission_set_refs: list[str] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    issued_at: int = 0  # seconds since 1970

    @property
    def execution_id(self) -> int | None:
        """The execution that an execution token was made for."""
        return self.metadata.get("execution_id")

    @property
    def integration_token(self) -> int | None:
        """The integration token that was exchanged for this one."""
        return self.metadata.get("integration_token")

    @property
    def issued_by(self) -> int | None:
        """The identity that asked for a sensor's token; None for the platform itself."""
        return self.metadata.get("issued_by")

    @property
    def served_triggers(self) -> list[str]:
        """The triggers whose events a sensor's token may report; none for any other token."""
        return self.metadata.get("trigger_types") or [] if self.token_type == "sensor" else []  # noqa: S105


class Tokens:
    """Makes and checks tokens with the deployment's keys; their ``kid`` header says which one.

    ``born`` gives the id that tells a tenant from an earlier one of its slug, whose tokens open nothing.
    """

    def __init__(self, keyring: Keyring, born: Callable[[str], int | None] = lambda _: None) -> None:
        self._keyring = keyring
        self._born = born

    def issue_access(
        self, *, tenant: str, identity: Identity, now: datetime, integration_token: IntegrationToken | None = None
    ) -> str:
        """``integration_token`` is what was exchanged for it, and no longer lives than that."""
        return self._issue(
            "access",
            tenant,
            identity.id,
            identity.login,
            now,
            within(ACCESS_LIFE, integration_token, now),
            metadata={"integration_token": integration_token.id} if integration_token else None,
        )

    def issue_refresh(
        self,
        *,
        tenant: str,
        identity: Identity,
        now: datetime,
        family: str,
        generation: int = 0,
        integration_token: IntegrationToken | None = None,
    ) -> str:
        """Number ``generation`` of the ``family`` that began with a sign-in (``store.token_notes``)."""
        metadata: dict[str, Any] = {"family": family, "generation": generation}
        scope = None
        if integration_token is not None:
            metadata["integration_token"] = integration_token.id
            scope = INTEGRATION_SCOPE
        return self._issue(
            "refresh",
            tenant,
            identity.id,
            identity.login,
            now,
            within(REFRESH_LIFE, integration_token, now),
            scope=scope,
            metadata=metadata,
        )

    def issue_sensor(
        self,
        *,
        tenant: str,
        identity_id: int,
        sensor_ref: str,
        trigger_types: Sequence[str],
        now: datetime,
        life: timedelta = SENSOR_LIFE,
        issued_by: int | None = None,
    ) -> str:
        """``issued_by`` is the identity that asked for it, and is answerable for it."""
        metadata: dict[str, Any] = {"trigger_types": list(trigger_types)}
        if issued_by is not None:
            metadata["issued_by"] = issued_by
        return self._issue("sensor", tenant, identity_id, sensor_ref, now, life, metadata=metadata)

    def issue_execution(
        self, *, tenant: str, execution: Execution, action_ref: str, pack_ref: str, now: datetime
    ) -> str:
        """What an action calls the API with: the rights of its execution, for as long as it may run."""
        metadata = {
            "execution_id": execution.id,
            "action_ref": action_ref,
            "permission_set_refs": execution.permission_set_refs,
            "standard_access_action_refs": [action_ref],
            "standard_access_pack_refs": [pack_ref],
        }
        life = timedelta(seconds=execution.timeout) if execution.timeout else EXECUTION_LIFE
        return self._issue(
            "execution",
            tenant,
            execution.executor or DEFAULT_EXECUTOR,
            f"execution:{execution.id}",
            now,
            life + EXECUTION_GRACE,
            metadata=metadata,
        )

    def verify(self, token: str | None) -> Principal:
        """Who bears ``token``. Raises :class:`TokenError`, for refresh tokens too: they open nothing but
        :meth:`verify_refresh`."""
        return self._principal(self._claims(token), _BEARERS)

    def verify_refresh(self, token: str | None) -> Principal:
        """Whose refresh token this is. Raises :class:`TokenError`."""
        return self._principal(self._claims(token), frozenset({"refresh"}))

    def _issue(
        self,
        token_type: TokenType,
        tenant: str,
        identity_id: int,
        login: str,
        now: datetime,
        life: timedelta,
        **more: Any,
    ) -> str:
        import jwt

        key = self._keyring.signing()
        claims: dict[str, Any] = {
            "sub": str(identity_id),
            "login": login,
            "iat": int(now.timestamp()),
            "exp": int((now + life).timestamp()),
            "token_type": token_type,
            "tenant": tenant,
        }
        more["tenant_id"] = self._born(tenant)
        claims |= {name: value for name, value in more.items() if value is not None}
        return jwt.encode(claims, key.secret, algorithm=_ALGORITHM, headers={"kid": key.kid})

    def _claims(self, token: str | None) -> dict[str, Any]:
        if not token:
            raise TokenError("missing")
        import jwt

        try:
            key = self._keyring.verifying(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                raise TokenError("invalid")
            claims: dict[str, Any] = jwt.decode(
                token, key.secret, algorithms=[_ALGORITHM], options={"require": _REQUIRED}
            )
        except jwt.ExpiredSignatureError:
            raise TokenError("expired") from None
        except jwt.InvalidTokenError:
            raise TokenError("invalid") from None
        return claims

    def _principal(self, claims: dict[str, Any], accepted: frozenset[str]) -> Principal:
        token_type = claims.get("token_type", "access")
        subject, tenant = claims["sub"], claims["tenant"]
        metadata = claims.get("metadata") or {}
        well_formed = token_type in accepted and isinstance(tenant, str) and tenant and subject.isdecimal()
        if not well_formed or not isinstance(metadata, dict):
            raise TokenError("invalid")
        if claims.get("tenant_id") != self._born(tenant):
            raise TokenError("invalid")
        if claims.get("scope"):
            metadata = {**metadata, "scope": claims["scope"]}
        return Principal(
            tenant=tenant,
            identity_id=int(subject),
            login=claims.get("login", ""),
            token_type=token_type,
            permission_set_refs=metadata.get("permission_set_refs") if token_type == "execution" else None,  # noqa: S105
            metadata=metadata,
            issued_at=claims["iat"],
        )


def within(life: timedelta, integration_token: IntegrationToken | None, now: datetime) -> timedelta:
    """``life``, or what is left of the integration token's at ``now`` if that is less."""
    if integration_token is None or integration_token.expires_at is None:
        return life
    return min(life, integration_token.expires_at - now)
