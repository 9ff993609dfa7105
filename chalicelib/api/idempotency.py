"""The ``Idempotency-Key`` header (README 13)."""

from typing import Final

from chalicelib.api.errors import BadRequest
from chalicelib.api.routing import Call

MAX_LENGTH: Final = 255


def key_of(call: Call) -> str | None:
    """The request's key, made the caller's own: two callers who choose the same one do not see each other's answers.

    None without the header; raises BadRequest for one that is too long.
    """
    key = call.headers.get("idempotency-key", "").strip()
    if not key:
        return None
    if len(key) > MAX_LENGTH:
        raise BadRequest(f"Idempotency-Key must have at most {MAX_LENGTH} characters")
    return f"{call.principal.token_type}/{call.principal.login}/{key}"
