"""A small provider of identities that speaks OpenID Connect, with everything a client has to check.

It knows one client and one user, who is signed in already: ``/authorize`` sends the browser straight back. What it gets
wrong on purpose, tests set in :attr:`OidcProvider.mistakes`.
"""

import base64
import contextlib
import functools
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT_ID = "attune"
CLIENT_SECRET = "the client's s3cret/+"  # characters that have to be encoded


def _new_key() -> "tuple[str, rsa.RSAPrivateKey]":
    return secrets.token_hex(4), rsa.generate_private_key(public_exponent=65537, key_size=2048)


_first_key = functools.cache(_new_key)  # making keys takes longer than most tests


@dataclass
class OidcProvider:
    """``user`` are the claims about whoever signs in; ``asked`` and ``exchanged`` the requests that came."""

    issuer: str
    user: dict[str, Any]
    mistakes: dict[str, Any] = field(default_factory=dict)  # claims to put into the ID token, or "alg", "kid", "error"
    asked: list[dict[str, str]] = field(default_factory=list)
    exchanged: list[dict[str, str]] = field(default_factory=list)
    key: "tuple[str, rsa.RSAPrivateKey]" = field(default_factory=_first_key)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    redirect_uri: str | None = None  # the registered one; None: the first that is asked for
    public_client: bool = False

    def rotate(self) -> None:
        """Sign with another key from now on, and forget the old one."""
        self.key = _new_key()

    def authorize(self, query: dict[str, str]) -> str:
        """Where the browser goes."""
        self.asked.append(query)
        self.redirect_uri = self.redirect_uri or query["redirect_uri"]
        assert query["client_id"] == CLIENT_ID
        assert query["redirect_uri"] == self.redirect_uri
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        back = {"state": query["state"], "iss": self.mistakes.get("answer_iss", self.issuer)}
        if "error" in self.mistakes:
            back["error"] = self.mistakes["error"]
        else:
            back["code"] = secrets.token_urlsafe(8)
            self.codes[back["code"]] = query
        return f"{query['redirect_uri']}?{urlencode(back)}"

    def token(self, form: dict[str, str], authorization: str | None) -> tuple[int, dict[str, Any]]:
        """The token endpoint (RFC 6749 §4.1.3, RFC 7636 §4.6)."""
        self.exchanged.append(form)
        if not self.public_client and not _is_client(authorization):
            return 401, {"error": "invalid_client"}
        begun = self.codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if begun is None or begun["redirect_uri"] != form["redirect_uri"] or begun["code_challenge"] != challenge:
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": begun["nonce"],
            **self.user,
            **{name: value for name, value in self.mistakes.items() if name not in ("alg", "kid", "key")},
        }
        kid, key = self.key
        algorithm = self.mistakes.get("alg", "RS256")
        token = jwt.encode(
            {name: value for name, value in claims.items() if value is not None},
            self.mistakes.get("key", key),
            algorithm=algorithm,
            headers={"kid": self.mistakes.get("kid", kid)},
        )
        return 200, {"access_token": "opaque", "token_type": "Bearer", "id_token": token}

    def describe(self) -> dict[str, Any]:
        return {
            "issuer": self.mistakes.get("described_issuer", self.issuer),
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def keys(self) -> dict[str, Any]:
        kid, key = self.key
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
        return {"keys": [{**public, "kid": kid, "use": "sig", "alg": "RS256"}]}


def _is_client(authorization: str | None) -> bool:
    scheme, _, encoded = (authorization or "").partition(" ")
    client, _, secret = base64.b64decode(encoded).decode().partition(":")
    return (scheme, unquote(client), unquote(secret)) == ("Basic", CLIENT_ID, CLIENT_SECRET)


@contextlib.contextmanager
def running_provider(user: dict[str, Any], port: int = 0) -> Iterator[OidcProvider]:
    """The provider, for as long as the context lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    server.daemon_threads = True
    server.provider = OidcProvider(f"http://127.0.0.1:{server.server_port}", user)  # type: ignore[attr-defined]
    serving = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    serving.start()
    try:
        yield server.provider  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        serving.join(10)


class _Handler(BaseHTTPRequestHandler):
    @property
    def _provider(self) -> OidcProvider:
        found: OidcProvider = self.server.provider  # type: ignore[attr-defined]
        return found

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        match parts.path:
            case "/.well-known/openid-configuration":
                self._answer(200, self._provider.describe())
            case "/keys":
                self._answer(200, self._provider.keys())
            case "/authorize":
                self.send_response(302)
                self.send_header("Location", self._provider.authorize(dict(parse_qsl(parts.query))))
                self.send_header("Content-Length", "0")
                self.end_headers()
            case _:
                self._answer(404, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self._answer(*self._provider.token(dict(parse_qsl(body)), self.headers.get("Authorization")))

    def _answer(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""
