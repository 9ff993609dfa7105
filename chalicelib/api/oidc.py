"""Signing in elsewhere (http-api 1.3): at a provider of identities with OpenID Connect. And LDAP, which is not there.

What has to be known again when the browser comes back stands sealed in a cookie for ten minutes; nothing is stored.
Which identity somebody is, the provider's ``sub`` says and never a name that may pass to somebody else.
"""

import hmac
import secrets
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec

from chalicelib.api import cookies
from chalicelib.api.auth import TokenResponse, UserInfo, sign_in
from chalicelib.api.errors import BadRequest, Forbidden, NotImplementedYet, Unauthorized, Unavailable
from chalicelib.api.holders import refuse_frozen
from chalicelib.api.routing import PUBLIC, ROUTES, Call
from chalicelib.api.views import Body, Data, Query, Raw
from chalicelib.domain import refs
from chalicelib.domain.entities import External, Identity, RoleAssignment
from chalicelib.security.encryption import SealError
from chalicelib.settings import OidcSettings
from chalicelib.store.registry import Put

if TYPE_CHECKING:
    from collections.abc import Callable

    from chalicelib.security.oidc import Provider

T = TypeVar("T")

SOURCE: Final = "oidc"  # of role assignments that the provider manages
FLOW: Final = "attune_oidc"  # and the beginning of its state: sign-ins in two tabs do not meet
FLOW_LIFE: Final = timedelta(minutes=10)
MOST_ROLES: Final = 100
_CALLBACK: Final = "/auth/callback"
_LONGEST_ADDRESS: Final = 1_000  # characters of an address to return to, which has to fit into a cookie


class OidcLoginQuery(Query, kw_only=True, frozen=True):
    redirect_to: str | None = None
    cli_redirect_uri: str | None = None


class OidcCallbackQuery(Query, kw_only=True, frozen=True):
    state: str | None = None
    code: str | None = None
    error: str | None = None
    iss: str | None = None


class LdapLoginRequest(Body, kw_only=True, frozen=True):
    login: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    password: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class Flow(msgspec.Struct, frozen=True):
    """A sign-in that has begun. ``until`` is in seconds since 1970."""

    state: str
    nonce: str
    verifier: str
    until: int
    redirect_to: str
    cli_redirect_uri: str | None


@ROUTES.post(
    "/auth/ldap/login", needs=PUBLIC, body=LdapLoginRequest, returns=Data[TokenResponse], tag="auth", errors=(501,)
)
def ldap_login(_call: Call) -> Data[TokenResponse]:
    """Sign in with LDAP: no deployment offers it."""
    raise NotImplementedYet("LDAP authentication is not configured")


@ROUTES.get(
    "/auth/oidc/login",
    needs=PUBLIC,
    query=OidcLoginQuery,
    returns=None,
    status=307,
    tag="auth",
    errors=(501, 503),
)
def oidc_login(call: Call) -> Raw:
    """Begin to sign in at the deployment's provider of identities.

    Afterwards the browser goes to ``redirect_to`` (a path, or an address of an allowed origin), or takes the tokens in
    the query to ``cli_redirect_uri``, a program that listens on the user's own machine (RFC 8252 §7.3)."""
    settings = _settings(call)
    query: OidcLoginQuery = call.query
    redirect_to = query.redirect_to or "/"
    if not is_own(redirect_to, call):
        raise BadRequest("'redirect_to' must be a path, or lie in an allowed origin", {"path": "redirect_to"})
    if query.cli_redirect_uri is not None and not is_loopback(query.cli_redirect_uri):
        raise BadRequest("'cli_redirect_uri' must be http:// on this machine", {"path": "cli_redirect_uri"})
    flow = Flow(
        state=secrets.token_urlsafe(24),
        nonce=secrets.token_urlsafe(24),
        verifier=secrets.token_urlsafe(48),
        until=int((call.now + FLOW_LIFE).timestamp()),
        redirect_to=redirect_to,
        cli_redirect_uri=query.cli_redirect_uri,
    )
    url = _asked(
        lambda provider: provider.authorization_url(
            redirect_uri=_redirect_uri(call), state=flow.state, nonce=flow.nonce, verifier=flow.verifier
        ),
        settings,
    )
    sealed = call.services.cipher.seal(call.tenant, FLOW, msgspec.to_builtins(flow))
    call.cookies.append(_flow_cookie(call, flow.state, sealed, int(FLOW_LIFE.total_seconds())))
    return Raw(None, headers={"Location": url})


@ROUTES.get(
    _CALLBACK,
    needs=PUBLIC,
    query=OidcCallbackQuery,
    returns=None,
    status=307,
    tag="auth",
    errors=(401, 403, 409, 501, 503),
)
def oidc_callback(call: Call) -> Raw:
    """Where the provider of identities sends the browser back to. The contract of the two is OpenID Connect's."""
    settings = _settings(call)
    query: OidcCallbackQuery = call.query
    flow = _flow_of(call, query.state)
    call.cookies.append(_flow_cookie(call, flow.state, "", 0))
    if query.iss not in (None, settings.issuer):
        raise BadRequest("The answer is from another identity provider", {"path": "iss"})
    if query.error is not None or not query.code:
        raise Unauthorized("The identity provider did not sign you in")
    code = query.code
    claims = _asked(
        lambda provider: provider.claims(
            code=code,
            redirect_uri=_redirect_uri(call),
            verifier=flow.verifier,
            nonce=flow.nonce,
            client_secret=call.services.keyring.oidc_client_secret(),
        ),
        settings,
    )
    identity = _identity_of(call, settings, claims)
    refuse_frozen(identity)
    tokens = sign_in(call, call.tenant, identity)
    if flow.cli_redirect_uri is None:
        return Raw(None, headers={"Location": flow.redirect_to})
    call.cookies.clear()  # the session is the program's, not the browser's
    call.cookies.append(_flow_cookie(call, flow.state, "", 0))
    return Raw(None, headers={"Location": _with_tokens(flow.cli_redirect_uri, tokens)})


def _with_tokens(address: str, tokens: TokenResponse) -> str:
    handed: dict[str, Any] = {
        "access_token": tokens.access_token,
        "refresh_token": tokens.refresh_token,
        "token_type": tokens.token_type,
        "expires_in": tokens.expires_in,
    }
    if isinstance(tokens.user, UserInfo):
        handed["login"] = tokens.user.login
    return f"{address}{'&' if urlsplit(address).query else '?'}{urlencode(handed)}"


def is_own(address: str, call: Call) -> bool:
    """Whether a browser that is sent to ``address`` stays with us: a path, or something in an origin that is allowed.

    Browsers read ``//host``, ``/\\host`` and ``/<tab>/host`` as another host's address.
    """
    if len(address) > _LONGEST_ADDRESS or not address.isprintable() or not address.isascii() or "\\" in address:
        return False
    if address.startswith("/"):
        return not address.startswith("//")
    parts = urlsplit(address)
    own = urlsplit(cookies.public_url(call.request, call.services.settings))
    origin = f"{parts.scheme}://{parts.netloc}"
    return origin in call.services.settings.cors_origins or origin == f"{own.scheme}://{own.netloc}"


def is_loopback(address: str) -> bool:
    """Whether ``address`` is of a program on the browser's own machine (RFC 8252 §7.3)."""
    if len(address) > _LONGEST_ADDRESS or not address.isprintable() or not address.isascii() or "\\" in address:
        return False
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018  # raises ValueError
    except ValueError:
        return False
    plain = parts.username is None and parts.password is None and not parts.fragment
    return parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1") and plain


def _settings(call: Call) -> OidcSettings:
    settings = call.services.settings.oidc
    if settings is None:
        raise NotImplementedYet("OIDC authentication is not configured")
    return settings


@lru_cache(maxsize=4)
def _provider(settings: OidcSettings) -> "Provider":
    from chalicelib.security.oidc import Provider

    return Provider(settings)


def _asked(question: "Callable[[Provider], T]", settings: OidcSettings) -> T:
    """The provider's answer; raises Unauthorized or, where it does not answer, Unavailable."""
    from chalicelib.security.oidc import OidcError, ProviderError

    try:
        return question(_provider(settings))
    except ProviderError as error:
        raise Unavailable(str(error)) from error
    except OidcError as error:
        raise Unauthorized(str(error)) from error


def _redirect_uri(call: Call) -> str:
    return f"{cookies.public_url(call.request, call.services.settings)}{_CALLBACK}"


def _flow_cookie(call: Call, state: str, value: str, seconds: int) -> str:
    name = f"{FLOW}_{state[:8]}"
    return cookies.written(call.request, call.services.settings, name, value, seconds=seconds, below=_CALLBACK)


def _flow_of(call: Call, state: str | None) -> Flow:
    """The sign-in that this browser began; raises BadRequest where it began none, or too long ago."""
    sealed = cookies.read(call.request, f"{FLOW}_{(state or '')[:8]}")
    try:
        flow = msgspec.convert(call.services.cipher.open(call.tenant, FLOW, sealed or ""), Flow)
    except SealError:
        flow = None
    if flow is None or flow.until < call.now.timestamp() or not hmac.compare_digest(flow.state, state or ""):
        raise BadRequest("This sign-in was not begun in this browser, or too long ago: begin again", {"path": "state"})
    return flow


def _identity_of(call: Call, settings: OidcSettings, claims: dict[str, Any]) -> Identity:
    """The identity that the claims are about, with the roles that they give; made where that is allowed."""
    external = External(issuer=settings.issuer, subject=str(claims["sub"]))
    found = next(iter(call.registry.identities.group(external.key)), None)
    if found is None:
        found = _claimed(call, settings, claims, external)
    roles = _roles_of(call, settings, claims, found)
    name = claims.get("name")
    changed = msgspec.structs.replace(
        found,
        external=external,
        roles=roles,
        display_name=found.display_name or (name[:255] if isinstance(name, str) else None),
    )
    if found.revision == 0:
        call.registry.commit(Put(changed, new=True))
    elif changed != found:
        changed = msgspec.structs.replace(changed, updated=call.now)
        call.registry.commit(Put(changed))
    return changed


def _claimed(call: Call, settings: OidcSettings, claims: dict[str, Any], external: External) -> Identity:
    """Somebody new: a new identity under the login that the claims give, or one that waits for them there."""
    login = claims.get(settings.login_claim)
    if not isinstance(login, str) or not login:
        raise Forbidden(f"The identity provider says no '{settings.login_claim}', which is the login here")
    if settings.login_claim == "email" and claims.get("email_verified") is False:
        raise Forbidden("The identity provider has not verified the address")
    login = refs.login(login)
    waiting = call.registry.identities.get(login)
    if waiting is None and not settings.sign_up:
        raise Forbidden("There is no account for you here")
    if waiting is None:
        return Identity(id=call.services.new_id(), ref=login, created=call.now, updated=call.now, external=external)
    if waiting.external is not None or waiting.password_hash is not None:
        # Whoever gets the name at the provider must not get what was somebody else's here.
        raise Forbidden("The account of this login is somebody else's")
    return waiting


def _roles_of(call: Call, settings: OidcSettings, claims: dict[str, Any], identity: Identity) -> list[RoleAssignment]:
    """The identity's roles, those that the provider manages being what the claim says now."""
    if settings.roles_claim is None:
        return identity.roles
    said: Any = claims
    for part in settings.roles_claim.split("."):
        said = said.get(part) if isinstance(said, dict) else None
    named = [said] if isinstance(said, str) else said if isinstance(said, list) else []
    wanted = list(dict.fromkeys(each for each in named if isinstance(each, str) and 0 < len(each) <= 255))[:MOST_ROLES]
    kept = [each for each in identity.roles if not each.managed or each.source != SOURCE or each.role in wanted]
    have = {each.role for each in kept}
    return kept + [
        RoleAssignment(
            id=call.services.new_id(), role=role, created=call.now, updated=call.now, source=SOURCE, managed=True
        )
        for role in wanted
        if role not in have
    ]
