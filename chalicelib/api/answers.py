"""The answer of five routes whose published description and wire differ.

Executing an action, switching a webhook on, off or over, and receiving one answer ``{"data": {...}}`` by the contract.
The OpenAPI document that the published client (attune-sdk) was generated from describes them without the envelope, so
that client looks for the fields beside ``data``. Both find what they look for.
"""

from typing import Any

import msgspec

from chalicelib.api.views import Raw, View


class Spread(Raw, kw_only=True):
    """``{"data": {...}, "message"?: ..., and the fields of data once more}``."""

    @classmethod
    def of(cls, view: View, message: str | None = None, *, status: int | None = None, **beside: Any) -> "Spread":
        """``beside`` replaces fields in the copy only."""
        fields = msgspec.to_builtins(view)
        answer = {**fields, **beside, "data": fields}
        return cls(value=answer if message is None else {**answer, "message": message}, status=status)
