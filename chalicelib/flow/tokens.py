"""One-time tokens of attempts: what a report from the execution plane must carry (design §3)."""

import hashlib


def token_hash(token: str) -> str:
    """How a row keeps the one-time token of its attempt."""
    return hashlib.sha256(token.encode()).hexdigest()[:32]
