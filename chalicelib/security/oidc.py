"""OpenID Connect: signing in at a provider of identities, with the authorization code flow and PKCE.

OpenID Connect Core 1.0 §3.1, Discovery 1.0, RFC 7636 (PKCE, S256), RFC 9207 (who the answer is from). Nothing of a
browser or of our identities is known here; :mod:`chalicelib.api.oidc` has the routes.
"""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from chalicelib import web
from chalicelib.settings import OidcSettings

# Signatures that the provider makes with a key of its own: never HS256, whose key would be the client's secret.
_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_LEEWAY: Final = 60.0  # seconds that the provider's clock may be off
_KEPT: Final = 3600.0  # seconds that the provider's description and keys are good for


class OidcError(Exception):
    """Signing in did not work; the message may be shown to whoever tries."""


class ProviderError(OidcError):
    """The provider does not answer, or not as it should."""


class Description(msgspec.Struct, frozen=True):
    """What we need of the provider's discovery document."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)  # Discovery §3


class Provider:
    """The provider of a deployment. What it says about itself is read at first use, and again from time to time."""

    def __init__(self, settings: OidcSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._description: Description | None = None
        self._described_at = 0.0
        self._keys: Mapping[str | None, Any] = {}
        self._keys_at = float("-inf")

    def authorization_url(self, *, redirect_uri: str, state: str, nonce: str, verifier: str) -> str:
        """Where to send a browser for signing in. Raises :class:`ProviderError`."""
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": redirect_uri,
            "scope": self._settings.scope,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        endpoint = self._describe().authorization_endpoint
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(asked)}"

    def claims(
        self, *, code: str, redirect_uri: str, verifier: str, nonce: str, client_secret: str | None
    ) -> dict[str, Any]:
        """What the provider says about whoever brought ``code`` back, proved. Raises :class:`OidcError`."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "client_id": self._settings.client_id,
            "code_verifier": verifier,
        }
        headers: dict[str, str] = {}
        description = self._describe()
        if client_secret and "client_secret_basic" in description.token_endpoint_auth_methods_supported:
            # RFC 6749 §2.3.1: both parts are form-encoded before they are joined.
            pair = f"{quote(self._settings.client_id, safe='')}:{quote(client_secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        elif client_secret:
            form["client_secret"] = client_secret
        try:
            answer = web.post_form(description.token_endpoint, form, headers=headers)
        except web.WebError as error:
            raise OidcError("The identity provider did not accept the sign-in") from error
        token = answer.get("id_token") if isinstance(answer, dict) else None
        if not isinstance(token, str):
            raise OidcError("The identity provider sent no ID token")
        return self._verified(token, nonce)

    def _verified(self, token: str, nonce: str) -> dict[str, Any]:
        """The claims of an ID token (OpenID Connect Core §3.1.3.7)."""
        import jwt

        settings = self._settings
        try:
            header = jwt.get_unverified_header(token)
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key(header.get("kid")),
                algorithms=_ALGORITHMS,
                audience=settings.client_id,
                issuer=settings.issuer,
                leeway=_LEEWAY,
                options={"require": ["iss", "sub", "aud", "exp", "iat"]},
            )
        except (jwt.PyJWTError, TypeError, ValueError) as error:  # the latter: a key of another kind than the signature
            raise OidcError("The identity provider sent an ID token that does not hold") from error
        said = claims.get("nonce")
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        meant_for = claims.get("azp", None if several else settings.client_id)
        if not isinstance(said, str) or not hmac.compare_digest(said.encode(), nonce.encode()):
            raise OidcError("The identity provider sent the ID token of another sign-in")
        if meant_for != settings.client_id:
            raise OidcError("The identity provider sent an ID token for somebody else")
        return claims

    def _key(self, kid: str | None) -> Any:
        now = self._clock()
        # Who comes with a key that is not known has had a code accepted by the provider: a look each time is no gift.
        if now - self._keys_at >= _KEPT or kid not in self._keys:
            self._keys, self._keys_at = self._read_keys(), now
        found = self._keys.get(kid)
        if found is None and kid is None and len(self._keys) == 1:
            (found,) = self._keys.values()  # a provider with one key need not name it
        if found is None:
            raise OidcError("The identity provider signed with a key that it does not publish")
        return found

    def _read_keys(self) -> dict[str | None, Any]:
        import jwt

        try:
            published = web.get_json(self._describe().jwks_uri)
            usable = [key for key in jwt.PyJWKSet.from_dict(published).keys if key.public_key_use != "enc"]
            return {key.key_id: key.key for key in usable}
        except (web.WebError, jwt.PyJWKSetError, AttributeError, TypeError) as error:
            raise ProviderError("The identity provider's keys cannot be read") from error

    def _describe(self) -> Description:
        now = self._clock()
        if self._description is None or now - self._described_at >= _KEPT:
            try:
                said = web.get_json(f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration")
                description = msgspec.convert(said, Description)
            except (web.WebError, msgspec.ValidationError) as error:
                raise ProviderError("The identity provider cannot be reached") from error
            if description.issuer != self._settings.issuer:  # Discovery §4.3
                raise ProviderError("The identity provider calls itself by another name")
            self._description, self._described_at = description, now
        return self._description
