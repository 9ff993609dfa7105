"""Signing in and one's own account (http-api 1.3). Login names are unique per tenant; a login or registration without
``tenant`` means the deployment's default one (README 1)."""

import secrets
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from msgspec import UNSET

from chalicelib.api import access, cookies
from chalicelib.api.attempts import Door, count_registration
from chalicelib.api.errors import Forbidden, NotFound, Unauthorized
from chalicelib.api.holders import refuse_frozen
from chalicelib.api.routing import OWN_ACCOUNT, PUBLIC, ROUTES, SIGNED_IN, Call
from chalicelib.api.views import Body, Data, Omittable, View
from chalicelib.domain import refs
from chalicelib.domain.entities import Identity, IntegrationToken
from chalicelib.security import passwords
from chalicelib.security.access import permission_sets_of
from chalicelib.security.tokens import ACCESS_LIFE, REFRESH_LIFE, Principal, TokenError, within
from chalicelib.store.registry import Put
from chalicelib.store.token_notes import RevokedError

Login = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
NewLogin = Annotated[str, msgspec.Meta(min_length=3, max_length=255)]
# Argon2 works on all of what it is given: without a bound, a long password would be an outage.
Password = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
NewPassword = Annotated[str, msgspec.Meta(min_length=8, max_length=128)]
DisplayName = Annotated[str, msgspec.Meta(max_length=255)]
TenantSlug = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]

REFUSED: Final = "Invalid login or password"  # the same for an unknown login and a wrong password


class LoginRequest(Body, kw_only=True, frozen=True):
    login: Login
    password: Password
    tenant: TenantSlug | None = None


class RegisterRequest(Body, kw_only=True, frozen=True):
    login: NewLogin
    password: NewPassword
    display_name: DisplayName | None = None
    tenant: TenantSlug | None = None


class RefreshTokenRequest(Body, kw_only=True, frozen=True):
    refresh_token: Annotated[str, msgspec.Meta(min_length=1)]


class ChangePasswordRequest(Body, kw_only=True, frozen=True):
    current_password: Password
    new_password: NewPassword


class UpdateCurrentUserRequest(Body, kw_only=True, frozen=True):
    display_name: DisplayName | None = None


class UserInfo(View, kw_only=True, frozen=True):
    id: int
    login: str
    display_name: str | None


class TokenResponse(View, kw_only=True, frozen=True):
    """``expires_in`` is the access token's life in seconds."""

    access_token: str
    refresh_token: str
    token_type: str
    expires_in: int
    user: Omittable[UserInfo] = UNSET


class EffectivePermissionResponse(View, kw_only=True, frozen=True):
    resource: str
    actions: list[str]


class CurrentUserResponse(View, kw_only=True, frozen=True):
    id: int
    login: str
    display_name: str | None
    auth_provider: str
    is_local: bool
    can_change_password: bool
    effective_permissions: list[EffectivePermissionResponse]
    assigned_permission_set_refs: list[str]


class ChangePasswordResponse(View, kw_only=True, frozen=True):
    success: bool
    message: str


class AuthSettingsResponse(View, kw_only=True, frozen=True):
    authentication_enabled: bool
    local_password_enabled: bool
    local_password_visible_by_default: bool
    oidc_enabled: bool
    oidc_visible_by_default: bool
    oidc_provider_name: str | None
    oidc_provider_label: str | None
    oidc_provider_icon_url: str | None
    ldap_enabled: bool
    ldap_visible_by_default: bool
    ldap_provider_name: str | None
    ldap_provider_label: str | None
    ldap_provider_icon_url: str | None
    self_registration_enabled: bool


@ROUTES.get("/auth/settings", needs=PUBLIC, returns=Data[AuthSettingsResponse], tag="auth")
def auth_settings(call: Call) -> Data[AuthSettingsResponse]:
    """Which ways to sign in there are."""
    oidc = call.services.settings.oidc
    return Data(
        AuthSettingsResponse(
            authentication_enabled=True,
            local_password_enabled=True,
            local_password_visible_by_default=True,
            oidc_enabled=oidc is not None,
            oidc_visible_by_default=oidc is not None,
            oidc_provider_name=oidc.name if oidc else None,
            oidc_provider_label=oidc.label if oidc else None,
            oidc_provider_icon_url=oidc.icon_url if oidc else None,
            ldap_enabled=False,
            ldap_visible_by_default=False,
            ldap_provider_name=None,
            ldap_provider_label=None,
            ldap_provider_icon_url=None,
            self_registration_enabled=call.services.settings.self_registration,
        )
    )


@ROUTES.post(
    "/auth/login", needs=PUBLIC, body=LoginRequest, returns=Data[TokenResponse], tag="auth", errors=(401, 403, 429)
)
def login(call: Call) -> Data[TokenResponse]:
    """Exchange login and password for tokens, which a browser also keeps as cookies. 429: too many attempts."""
    body: LoginRequest = call.body
    tenant = body.tenant or call.tenant
    door = Door(call, tenant, body.login)
    identity = call.services.store.tenant(tenant).registry.identities.get(body.login)
    # An identity that is not there takes as long to refuse as a wrong password.
    password_hash = None if identity is None else identity.password_hash
    if not passwords.verify_password(password_hash, body.password) or identity is None:
        door.refused()
        raise Unauthorized(REFUSED)
    door.opened()
    refuse_frozen(identity)
    return Data(sign_in(call, tenant, identity))


@ROUTES.post(
    "/auth/register",
    needs=PUBLIC,
    body=RegisterRequest,
    returns=Data[TokenResponse],
    tag="auth",
    errors=(403, 409, 429),
)
def register(call: Call) -> Data[TokenResponse]:
    """Sign up in the default tenant, or in one that is open to it, where the deployment allows it. The new identity has
    no permissions."""
    body: RegisterRequest = call.body
    tenant = body.tenant or call.tenant
    if not call.services.settings.self_registration:
        raise Forbidden("Self-registration is disabled")
    if tenant != call.tenant and not _is_open(call, tenant):
        raise Forbidden("Self-registration is not open in this tenant")  # the same for one that does not exist
    count_registration(call)
    identity = Identity(
        id=call.services.new_id(),
        ref=refs.login(body.login),
        created=call.now,
        updated=call.now,
        display_name=body.display_name,
        password_hash=passwords.hash_password(body.password),
    )
    call.services.store.tenant(tenant).registry.commit(Put(identity, new=True))
    return Data(sign_in(call, tenant, identity))


@ROUTES.post(
    "/auth/refresh",
    needs=PUBLIC,
    body=RefreshTokenRequest | None,
    returns=Data[TokenResponse],
    tag="auth",
    errors=(401, 403),
)
def refresh_token(call: Call) -> Data[TokenResponse]:
    """Exchange a refresh token for new tokens. Without a body it is the cookie's, and the new ones are cookies too."""
    body: RefreshTokenRequest | None = call.body
    try:
        principal = call.services.tokens.verify_refresh(body.refresh_token if body else _refresh_cookie(call))
    except TokenError as error:
        raise Unauthorized(f"Refresh token {error.reason}") from error
    identity = call.services.store.tenant(principal.tenant).registry.identities.get(principal.login)
    if identity is None or identity.id != principal.identity_id:
        raise Unauthorized("Refresh token invalid")
    if identity.sessions_since is not None and principal.issued_at < int(identity.sessions_since.timestamp()):
        raise Unauthorized("Refresh token invalid")
    refuse_frozen(identity)
    tokens = token_pair(call, principal.tenant, identity, lineage=_successor(call, principal))
    if body is None:
        _keep_in_cookies(call, tokens)
    return Data(tokens)


@ROUTES.get("/auth/me", needs=SIGNED_IN, returns=Data[CurrentUserResponse], tag="auth", errors=(404,))
def get_current_user(call: Call) -> Data[CurrentUserResponse]:
    """Who the caller is and what they may do."""
    return Data(_current_user(call, _identity(call)))


@ROUTES.put(
    "/auth/me",
    needs=OWN_ACCOUNT,
    body=UpdateCurrentUserRequest,
    returns=Data[CurrentUserResponse],
    tag="auth",
    errors=(404, 409),
)
def update_current_user(call: Call) -> Data[CurrentUserResponse]:
    """Change one's display name."""
    identity = _identity(call)
    if call.body.display_name is not None:
        identity = msgspec.structs.replace(identity, display_name=call.body.display_name, updated=call.now)
        call.registry.commit(Put(identity))
    return Data(_current_user(call, identity), "User updated successfully")


@ROUTES.post(
    "/auth/change-password",
    needs=OWN_ACCOUNT,
    body=ChangePasswordRequest,
    returns=Data[ChangePasswordResponse],
    tag="auth",
    errors=(401, 404, 409, 429),
)
def change_password(call: Call) -> Data[ChangePasswordResponse]:
    """Change one's password, which ends every other session within the hour. 401: the current one is wrong; 403: the
    account has none."""
    body: ChangePasswordRequest = call.body
    identity = _identity(call)
    if identity.password_hash is None:
        raise Forbidden("This account does not sign in with a password")
    door = Door(call, call.tenant, identity.login)
    if not passwords.verify_password(identity.password_hash, body.current_password):
        door.refused()
        raise Unauthorized("Current password is incorrect")
    door.opened()
    changed = msgspec.structs.replace(
        identity,
        password_hash=passwords.hash_password(body.new_password),
        sessions_since=call.now,
        updated=call.now,
    )
    call.registry.commit(Put(changed))
    if cookies.read(call.request, cookies.REFRESH) is not None:
        sign_in(call, call.tenant, changed)  # the browser at hand stays signed in
    return Data(ChangePasswordResponse(success=True, message="Password changed successfully"))


def _is_open(call: Call, tenant: str) -> bool:
    record = call.services.tenants.record(tenant)
    return record is not None and record.self_registration and access.standing_of(tenant, call.services) == "active"


def sign_in(call: Call, tenant: str, identity: Identity) -> TokenResponse:
    """Tokens for ``identity``, who has just proved to be it; a browser keeps them as cookies."""
    tokens = token_pair(call, tenant, identity, lineage=Lineage.new(), user=UserInfo.of(identity))
    _keep_in_cookies(call, tokens)
    return tokens


def _keep_in_cookies(call: Call, tokens: TokenResponse) -> None:
    call.cookies += cookies.session(
        call.request,
        call.services.settings,
        access=tokens.access_token,
        refresh=tokens.refresh_token,
        lives=(tokens.expires_in, int(REFRESH_LIFE.total_seconds())),
    )


def _refresh_cookie(call: Call) -> str | None:
    token = cookies.read(call.request, cookies.REFRESH)
    if token is not None:
        cookies.refuse_foreign_page(call.request, call.services.settings)
    return token


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a refresh token comes from: number ``generation`` of the ``family`` that a sign-in began, perhaps one with
    an integration token."""

    family: str
    generation: int = 0
    integration_token: IntegrationToken | None = None

    @classmethod
    def new(cls, integration_token: IntegrationToken | None = None) -> "Lineage":
        """That of a sign-in."""
        return cls(secrets.token_urlsafe(12), 0, integration_token)


def _successor(call: Call, principal: Principal) -> Lineage:
    """The lineage of the refresh token that comes after the one that is used here, which is used up by it.

    Raises Unauthorized for one that was used up before: that ends its whole family. So does an integration token that
    is not valid any more."""
    family, generation = principal.metadata.get("family"), principal.metadata.get("generation")
    if not isinstance(family, str) or not isinstance(generation, int):
        raise Unauthorized("Refresh token invalid")
    opened = call.services.store.tenant(principal.tenant)
    token = None
    if principal.integration_token is not None:
        token = opened.registry.integration_tokens.by_id(principal.integration_token, own=True)
        if token is None or not token.active(call.now):
            raise Unauthorized("Refresh token invalid")
        opened.token_notes.used(token.id, now=call.now, ip=call.client_ip)
    try:
        successor = opened.token_notes.rotate(family, generation, now=call.now, life=REFRESH_LIFE)
    except RevokedError:
        raise Unauthorized("Refresh token invalid") from None
    return Lineage(family, successor, token)


def token_pair(
    call: Call, tenant: str, identity: Identity, *, lineage: Lineage, user: Omittable[UserInfo] = UNSET
) -> TokenResponse:
    """Tokens for ``identity``. Raises Unauthorized for a tenant that is gone, Forbidden for one that is suspended."""
    match access.standing_of(tenant, call.services):
        case "gone":
            raise Unauthorized(REFUSED)
        case "suspended":
            raise Forbidden(access.SUSPENDED)
    tokens = call.services.tokens
    token = lineage.integration_token
    return TokenResponse(
        access_token=tokens.issue_access(tenant=tenant, identity=identity, now=call.now, integration_token=token),
        refresh_token=tokens.issue_refresh(
            tenant=tenant,
            identity=identity,
            now=call.now,
            family=lineage.family,
            generation=lineage.generation,
            integration_token=token,
        ),
        token_type="Bearer",  # noqa: S106
        expires_in=int(within(ACCESS_LIFE, token, call.now).total_seconds()),
        user=user,
    )


def _identity(call: Call) -> Identity:
    """The caller's identity as it is now; for an execution token, that of its executor."""
    identity = call.registry.identities.by_id(call.principal.identity_id)
    if identity is None:
        raise NotFound.of("Identity", call.principal.identity_id)
    refuse_frozen(identity)
    return identity


def _current_user(call: Call, identity: Identity) -> CurrentUserResponse:
    return CurrentUserResponse.of(
        identity,
        auth_provider="oidc" if identity.external else "local",
        is_local=identity.external is None,
        can_change_password=identity.password_hash is not None,
        effective_permissions=[
            EffectivePermissionResponse(resource=resource, actions=actions)
            for resource, actions in call.access.effective().items()
        ],
        assigned_permission_set_refs=permission_sets_of(call.snapshot, identity),
    )
