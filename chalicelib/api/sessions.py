"""The end of a browser's session (http-api 1.3)."""

from chalicelib.api import cookies
from chalicelib.api.routing import PUBLIC, ROUTES, Call
from chalicelib.api.views import Raw
from chalicelib.security.tokens import REFRESH_LIFE, TokenError


@ROUTES.get("/auth/logout", needs=PUBLIC, returns=None, status=307, tag="auth")
def logout(call: Call) -> Raw:
    """End the session: its refresh tokens are void, its cookies go, and the browser to the page for signing in."""
    _void_refresh_tokens(call)
    call.cookies += cookies.no_session(call.request, call.services.settings)
    return Raw(None, headers={"Location": "/login"})


def _void_refresh_tokens(call: Call) -> None:
    try:
        principal = call.services.tokens.verify_refresh(cookies.read(call.request, cookies.REFRESH))
    except TokenError:
        return
    call.account = principal
    family = principal.metadata.get("family")
    if isinstance(family, str):
        notes = call.services.store.tenant(principal.tenant).token_notes
        notes.revoke(family, now=call.now, life=REFRESH_LIFE)
