"""Which rows of what happened (events, enforcements, executions) a caller sees: those its grants reach, by the pack
whose component they happened to, by owner, or by the execution that asks (semantics §2.10, README 3)."""

from typing import Any, Final

from chalicelib.api.routing import Call
from chalicelib.domain.permissions import Context

_NOBODY: Final = -1  # an owner that no identity is: only a grant without constraints on the row reaches its rows


def row_filter(call: Call, resource: str) -> dict[str, Any]:
    """``{"allowed": predicate}`` for a list's filter; empty when the caller sees every row, so that the store need not
    ask row by row."""
    if call.allows(resource, "read", Context(owner_identity=_NOBODY)):
        return {}
    return {"allowed": lambda row: call.allows(resource, "read", call.context_of(row))}
