"""Sessions of browsers (http-api 1.3): the tokens in cookies that no script reads, and which pages may use them.

A browser adds cookies to whatever any page makes it send. So a request that changes something and is known by a cookie
must come from a page of ours; browsers say where one comes from in headers that no page can write
(docs/decisions/019-browser-sessions.md). A bearer token is never sent unasked, and none of this concerns it.
"""

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from chalicelib.api.errors import Forbidden

if TYPE_CHECKING:
    from chalicelib.api.routing import Request
    from chalicelib.settings import Settings

ACCESS: Final = "attune_access"
REFRESH: Final = "attune_refresh"
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110 §9.2.1


def read(request: "Request", name: str) -> str | None:
    """The cookie of that name. Of two the first counts: RFC 6265 has the one with the longest path come first.

    Not ``http.cookies``, which drops every cookie of a header in which another program's one is ill-formed.
    """
    for pair in request.headers.get("cookie", "").split(";"):
        found, _, value = pair.partition("=")
        if found.strip() == name and value.strip():
            return value.strip()
    return None


def written(request: "Request", settings: "Settings", name: str, value: str, *, seconds: int, below: str = "") -> str:
    """A ``Set-Cookie`` value that lasts for ``seconds`` (0: removes it) and goes to the API's paths from ``below`` on.

    ``SameSite=Lax``: with ``Strict`` a browser that comes back from a provider of identities would arrive signed out.
    """
    path = urlsplit(public_url(request, settings)).path + below
    secure = "" if is_local(request) else "; Secure"
    return f"{name}={value}; Path={path or '/'}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"


def session(
    request: "Request", settings: "Settings", *, access: str, refresh: str, lives: tuple[int, int]
) -> list[str]:
    """The ``Set-Cookie`` values that sign a browser in with these tokens, whose ``lives`` are in seconds. Only the
    routes below ``/auth`` get to see the refresh token."""
    return [
        written(request, settings, ACCESS, access, seconds=lives[0]),
        written(request, settings, REFRESH, refresh, seconds=lives[1], below="/auth"),
    ]


def no_session(request: "Request", settings: "Settings") -> list[str]:
    """The ``Set-Cookie`` values that sign a browser out."""
    return session(request, settings, access="", refresh="", lives=(0, 0))


def refuse_foreign_page(request: "Request", settings: "Settings") -> None:
    """Raise Forbidden unless a page of the API's own origin, or of one in ``cors_origins``, sent the request.

    ``Sec-Fetch-Site`` (W3C Fetch Metadata) and ``Origin`` (RFC 6454) are written by the browser alone.
    """
    if request.headers.get("sec-fetch-site") == "same-origin":
        return
    origin = request.headers.get("origin")
    if origin is None or (origin not in settings.cors_origins and origin not in _own_origins(request, settings)):
        raise Forbidden("A request with a session cookie must come from a page of this API or of an allowed origin")


def public_url(request: "Request", settings: "Settings") -> str:
    """The base URL by which the caller reached the API, without a slash at its end."""
    if settings.api_url:
        return settings.api_url.rstrip("/")
    return f"{_origin(request)}{request.base_path}"


def is_local(request: "Request") -> bool:
    """Whether the caller reached the API on its own machine, where plain HTTP carries cookies too."""
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    return host in ("localhost", "127.0.0.1", "::1") or host.endswith(".localhost")


def _own_origins(request: "Request", settings: "Settings") -> set[str]:
    url = urlsplit(public_url(request, settings))
    return {_origin(request), f"{url.scheme}://{url.netloc}"}


def _origin(request: "Request") -> str:
    return f"{'http' if is_local(request) else 'https'}://{request.headers.get('host', '')}"
