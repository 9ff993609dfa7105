"""Environment variables that a request may set for an action (contract: ``env_vars``, semantics §2.6).

Whoever may run an action need not be the one who wrote it. So no variable gets through that makes an interpreter or
the loader run something else than the action.
"""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from chalicelib.domain.entities import Json

MAX_BYTES: Final = 32_768  # of names and values together: rows and invocations carry them

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_OURS: Final = re.compile(r"ATTUNE_", re.IGNORECASE)
_STEERS_INTERPRETERS: Final = re.compile(
    r"(LD_|DYLD_|PYTHON|NODE_|NPM_|PERL5|RUBY|BASH|GLIBC_).*|PATH|HOME|TMPDIR|ENV|IFS|SHELLOPTS|PS4|CDPATH",
    re.IGNORECASE,
)


class VariableError(Exception):
    """The variables cannot be set; the message names the first that is wrong, and why."""


def checked(given: Mapping[str, Json] | None) -> dict[str, str] | None:
    """``given`` as text, whatever JSON it is; None for none. Raises :class:`VariableError`."""
    if not given:
        return None
    variables: dict[str, str] = {}
    size = 0
    for name, value in given.items():
        if not _NAME.fullmatch(name):
            raise VariableError(f"'{name}' is not a name of letters, digits and underscores")
        if _OURS.match(name):
            raise VariableError(f"'{name}' is the platform's to set: names with ATTUNE_ are reserved")
        if _STEERS_INTERPRETERS.fullmatch(name):
            raise VariableError(f"'{name}' would change what runs, and cannot be set for an execution")
        variables[name] = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        if "\0" in variables[name]:
            raise VariableError(f"the value of '{name}' holds a NUL character, which no variable can")
        size += len(name.encode()) + len(variables[name].encode())
    if size > MAX_BYTES:
        raise VariableError(f"the variables take {size} bytes together; the most is {MAX_BYTES}")
    return variables
