"""Passwords at rest: Argon2id (RFC 9106), in the parameters that OWASP's password storage sheet gives for 19 MiB."""

from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

# RFC 9106 asks for 64 MiB by default; a Lambda of 512 MB serves logins beside everything else.
_hasher: Final = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# Of a password that nobody knows, with the parameters above. Written down, because making it would have the first
# unknown login of a process take twice as long as the others.
_NOBODYS_HASH: Final = (
    "$argon2id$v=19$m=19456,t=2,p=1$uB+nEShPqN9lB4kYs0n2kg$TSaG9fPSUQuJ0FWbKMX9sDMOcCCIPLm75dMYzD1IHjo"
)


def hash_password(password: str) -> str:
    """The encoded hash, salt and parameters included."""
    return _hasher.hash(password)


def verify_password(password_hash: str | None, password: str) -> bool:
    """Whether ``password`` is the one. An identity without a password takes as long to refuse as a wrong one."""
    if password_hash is None:
        return verify_nobody(password)
    try:
        return _hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


def verify_nobody(password: str) -> bool:
    """False, after the time a verification takes: an unknown login must not answer faster than a known one."""
    verify_password(_NOBODYS_HASH, password)
    return False


def needs_rehash(password_hash: str) -> bool:
    """Whether the hash was made with other parameters than today's."""
    return _hasher.check_needs_rehash(password_hash)
