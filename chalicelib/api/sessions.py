"""The end of a browser's session (http-api 1.3)."""

from chalicelib.api import cookies
from chalicelib.api.routing import PUBLIC, ROUTES, Call
from chalicelib.api.views import Raw


@ROUTES.get("/auth/logout", needs=PUBLIC, returns=None, status=307, tag="auth")
def logout(call: Call) -> Raw:
    """Take the session's cookies back and go to the page for signing in."""
    call.cookies += cookies.no_session(call.request, call.services.settings)
    return Raw(None, headers={"Location": "/login"})
