"""Integration tokens: what programs sign in with, and nobody reads twice (contract: http-api 1.3).

``attune_it_`` and 43 characters of randomness. Only the SHA-256 is kept: that many characters need no slow hash.
"""

import hashlib
import secrets
from typing import Annotated, Final

import msgspec

from chalicelib.api.auth import Lineage, TokenResponse, UserInfo, token_pair
from chalicelib.api.delegation import require_account
from chalicelib.api.errors import NotFound, Unauthorized, ValidationFailed
from chalicelib.api.holders import refuse_frozen
from chalicelib.api.identities import to_change
from chalicelib.api.identity_views import (
    CreateIntegrationTokenRequest,
    CreateIntegrationTokenResponse,
    IntegrationTokenResponse,
    RevokeIntegrationTokenRequest,
)
from chalicelib.api.routing import PUBLIC, ROUTES, Call, grant
from chalicelib.api.views import Body, Data, Success
from chalicelib.domain.entities import IntegrationToken
from chalicelib.store.registry import Delete, Put
from chalicelib.store.token_notes import TokenNotes

PREFIX: Final = "attune_it_"
REFUSED: Final = "Invalid integration token"  # the same for one that is unknown, revoked or expired
_RANDOM_BYTES: Final = 32  # 43 characters of base64url
_SHOWN: Final = 4  # characters of it, at either end, that people know it by


class TokenLoginRequest(Body, kw_only=True, frozen=True):
    token: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


@ROUTES.post(
    "/auth/token-login",
    needs=PUBLIC,
    body=TokenLoginRequest,
    returns=Data[TokenResponse],
    tag="auth",
    errors=(401, 403),
)
def token_login(call: Call) -> Data[TokenResponse]:
    """Exchange an integration token for tokens, which live no longer than it does."""
    hashed = token_hash(call.body.token)
    tenant = call.services.store.integration_token_tenant(hashed)
    if tenant is None:
        raise Unauthorized(REFUSED)
    opened = call.services.store.tenant(tenant)
    token = opened.registry.integration_tokens.get(hashed)
    if token is None or not token.active(call.now):
        raise Unauthorized(REFUSED)
    identity = opened.registry.identities.by_id(token.identity, own=True)
    if identity is None:
        raise Unauthorized(REFUSED)
    refuse_frozen(identity)
    tokens = token_pair(call, tenant, identity, lineage=Lineage.new(token), user=UserInfo.of(identity))
    opened.token_notes.used(token.id, now=call.now, ip=call.client_ip)
    return Data(tokens)


@ROUTES.get(
    "/api/v1/identities/{id}/integration-tokens",
    needs=grant("identities", "read"),
    returns=Data[list[IntegrationTokenResponse]],
    tag="permissions",
    errors=(404,),
)
def list_integration_tokens(call: Call, id: int) -> Data[list[IntegrationTokenResponse]]:  # noqa: A002
    """An identity's integration tokens, the newest first, without what they are."""
    identity = call.to_read("identities", "Identity", id, call.registry.identities.by_id(id, own=True))
    tokens = call.registry.integration_tokens.group(str(identity.id))
    uses = _notes(call).uses(token.id for token in tokens)
    tokens.sort(key=lambda token: token.id, reverse=True)
    return Data([IntegrationTokenResponse.of_token(token, call.now, uses.get(token.id)) for token in tokens])


@ROUTES.post(
    "/api/v1/identities/{id}/integration-tokens",
    needs=grant("identities", "update"),
    body=CreateIntegrationTokenRequest,
    returns=Data[CreateIntegrationTokenResponse],
    status=201,
    tag="permissions",
    errors=(404, 409),
)
def create_integration_token(call: Call, id: int) -> Data[CreateIntegrationTokenResponse]:  # noqa: A002
    """Make a token for an identity, for somebody who may do all that it may do. The answer alone holds the token."""
    body: CreateIntegrationTokenRequest = call.body
    identity = to_change(call, id)
    require_account(call, identity)
    if body.expires_at is not None and body.expires_at <= call.now:
        raise ValidationFailed("'expires_at': must be in the future", {"path": "expires_at"})
    secret = secrets.token_urlsafe(_RANDOM_BYTES)
    token = IntegrationToken(
        id=call.services.new_id(),
        ref=token_hash(PREFIX + secret),
        created=call.now,
        updated=call.now,
        identity=identity.id,
        label=body.label,
        description=body.description,
        token_prefix=PREFIX + secret[:_SHOWN],
        token_suffix=secret[-_SHOWN:],
        created_by=call.principal.identity_id,
        expires_at=body.expires_at,
    )
    call.registry.commit(Put(token, new=True))
    view = IntegrationTokenResponse.of_token(token, call.now)
    return Data(
        CreateIntegrationTokenResponse(token=PREFIX + secret, integration_token=view),
        "Integration token created successfully",
    )


@ROUTES.delete(
    "/api/v1/identities/{id}/integration-tokens/{token_id}",
    needs=grant("identities", "update"),
    returns=Data[Success],
    tag="permissions",
    errors=(404, 409),
)
def delete_integration_token(call: Call, id: int, token_id: int) -> Data[Success]:  # noqa: A002
    """Forget a token. What it was exchanged for opens nothing any more, within a second or two."""
    token = _token(call, id, token_id)
    call.registry.commit(Delete("integration_token", token.ref))
    _notes(call).forget(token.id)
    return Data(Success("Integration token deleted successfully"))


@ROUTES.post(
    "/api/v1/identities/{id}/integration-tokens/{token_id}/revoke",
    needs=grant("identities", "update"),
    body=RevokeIntegrationTokenRequest | None,
    returns=Data[IntegrationTokenResponse],
    tag="permissions",
    errors=(404, 409),
)
def revoke_integration_token(call: Call, id: int, token_id: int) -> Data[IntegrationTokenResponse]:  # noqa: A002
    """End a token, as deleting it does, and keep the record. The first revocation stands."""
    body: RevokeIntegrationTokenRequest | None = call.body
    token = _token(call, id, token_id)
    if token.revoked_at is None:
        token = msgspec.structs.replace(
            token,
            revoked_at=call.now,
            revoked_by=call.principal.identity_id,
            revocation_reason=body.reason if body else None,
            updated=call.now,
        )
        call.registry.commit(Put(token))
    use = _notes(call).uses([token.id]).get(token.id)
    return Data(IntegrationTokenResponse.of_token(token, call.now, use), "Integration token revoked successfully")


def token_hash(token: str) -> str:
    """How the store knows an integration token."""
    return hashlib.sha256(token.encode()).hexdigest()


def _token(call: Call, identity_id: int, token_id: int) -> IntegrationToken:
    """The token to change, if the caller may change its identity; NotFound or Forbidden otherwise."""
    identity = to_change(call, identity_id)
    token = call.registry.integration_tokens.by_id(token_id, own=True)
    if token is None or token.identity != identity.id:
        raise NotFound.of("Integration token", token_id)
    return token


def _notes(call: Call) -> TokenNotes:
    return call.services.store.tenant(call.tenant).token_notes
