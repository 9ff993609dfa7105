"""What goes wrong on the wire, one exception per kind (contract: http-api 1.2).

The body is ``{"error": message, "code": CODE, "details"?: any}``; only a refused bearer token looks different
(:class:`Unauthorized`). Raise these anywhere below a route: the adapter turns them into the answer.
"""

# They read as what the client is told (`raise NotFound.of(...)`), so they go without the suffix.
# ruff: noqa: N818

from typing import Any, ClassVar, Literal

TokenProblem = Literal["missing", "invalid", "expired"]


class ApiError(Exception):
    """An answer other than success. ``details`` is any JSON value that helps to repair the request."""

    status = 500
    code = "INTERNAL_SERVER_ERROR"

    def __init__(self, message: str, details: Any = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        body = {"error": self.message, "code": self.code}
        return body if self.details is None else {**body, "details": self.details}


class BadRequest(ApiError):
    status = 400
    code = "BAD_REQUEST"


class Unauthorized(ApiError):
    """Wrong login, password or refresh token: the ordinary error body with 401."""

    status = 401
    code = "UNAUTHORIZED"


class TokenRefused(ApiError):
    """No bearer token, or one that does not hold: the 401 body of the contract's own shape."""

    status = 401
    code = "UNAUTHORIZED"

    MESSAGES: ClassVar[dict[TokenProblem, str]] = {
        "missing": "Missing authentication token",
        "invalid": "Invalid authentication token",
        "expired": "Authentication token expired",
    }

    def __init__(self, problem: TokenProblem) -> None:
        super().__init__(self.MESSAGES[problem], headers={"WWW-Authenticate": "Bearer"})
        self.problem = problem

    def body(self) -> dict[str, Any]:
        return {"error": {"code": 401, "message": self.message}}


class Forbidden(ApiError):
    status = 403
    code = "FORBIDDEN"

    @classmethod
    def lacking(cls, resource: str, action: str) -> "Forbidden":
        """The denial of ``semantics.md`` §2.10."""
        return cls(f"Insufficient permissions: {resource}:{action}")


class NotFound(ApiError):
    status = 404
    code = "NOT_FOUND"

    @classmethod
    def of(cls, kind: str, ref: object) -> "NotFound":
        """``NotFound.of("Pack", "slack")`` says "Pack 'slack' not found"."""
        return cls(f"{kind} '{ref}' not found")


class MethodNotAllowed(ApiError):
    status = 405
    code = "METHOD_NOT_ALLOWED"


class Conflict(ApiError):
    status = 409
    code = "CONFLICT"

    @classmethod
    def exists(cls, kind: str, ref: object) -> "Conflict":
        return cls(f"{kind} '{ref}' already exists")


class PayloadTooLarge(ApiError):
    status = 413
    code = "PAYLOAD_TOO_LARGE"


class HeadersTooLarge(ApiError):
    status = 431
    code = "REQUEST_HEADER_FIELDS_TOO_LARGE"


class UnsupportedMediaType(ApiError):
    status = 415
    code = "UNSUPPORTED_MEDIA_TYPE"


class Unprocessable(ApiError):
    """The request is well-formed and asks for something that cannot be (a dangling ref, a rule's bad condition)."""

    status = 422
    code = "UNPROCESSABLE_ENTITY"


class ValidationFailed(ApiError):
    """A body field is missing, ill-typed or out of bounds; ``details`` names it by ``path``."""

    status = 422
    code = "VALIDATION_ERROR"


class TooMany(ApiError):
    """``retry_after`` is in whole seconds."""

    status = 429
    code = "TOO_MANY_REQUESTS"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after)})


class NotImplementedYet(ApiError):
    """The deployment does not offer this (501), such as a login provider that is not configured."""

    status = 501
    code = "NOT_IMPLEMENTED"


class Unavailable(ApiError):
    status = 503
    code = "SERVICE_UNAVAILABLE"
