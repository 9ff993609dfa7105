"""What of an execution's parameters a client gets to see (semantics §2.3, README 11).

What a template took from the keystore, and what the action's schema calls secret, is stored as the redaction marker;
``include_secret_values`` shows it to those who may decrypt. The schema may also have come to call secret what was not
so when the execution began.
"""

from typing import Final

from chalicelib.api.errors import Forbidden
from chalicelib.api.routing import Call
from chalicelib.domain.entities import Execution, Json
from chalicelib.domain.parameters import secret_names
from chalicelib.domain.templates import REDACTED, put_secrets
from chalicelib.flow.secrets import open_source

_WITHHELD: Final = object()


def parameters_of(call: Call, execution: Execution, *, reveal: bool = False) -> Json:
    """The execution's ``config`` as the caller may see it; with ``reveal``, what they may decrypt is in clear.

    Raises Forbidden for ``reveal`` without any grant of keys:decrypt.
    """
    if reveal:
        if not call.allows("keys", "decrypt"):
            raise Forbidden.lacking("keys", "decrypt")
        call.reveals("execution", str(execution.id))
        return _revealed(call, execution)
    if not isinstance(execution.config, dict):
        return execution.config
    action = call.snapshot.action(execution.action_ref)
    hidden = secret_names(action.param_schema) if action is not None and action.param_schema else frozenset()
    return {
        name: REDACTED if name in hidden and value is not None else value for name, value in execution.config.items()
    }


def _revealed(call: Call, execution: Execution) -> Json:
    """The parameters with their secrets, except the places where one is gone or not for this caller."""
    sources = [part for parts in (execution.secrets or {}).values() for part in parts if isinstance(part, dict)]
    values = {_name(source): _value(call, source) for source in sources}
    shown = {
        pointer: parts
        for pointer, parts in (execution.secrets or {}).items()
        if all(isinstance(part, str) or values[_name(part)] is not _WITHHELD for part in parts)
    }
    return put_secrets(execution.config or {}, shown, lambda source: values[_name(source)]) or execution.config


def _name(source: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(source.items()))


def _value(call: Call, source: dict[str, str]) -> Json:
    if "key" in source:
        key = call.registry.keys.get(source["key"])
        if key is None or not call.allows("keys", "decrypt", call.context_of(key)):
            return _WITHHELD
        call.reveals("key", key.ref)
        return call.services.cipher.open(call.tenant, key.ref, key.sealed)
    if "pack" in source:
        pack = call.pack(source["pack"])
        if pack is None or not call.allows("packs", "configure", call.context_of(pack)):
            return _WITHHELD
        call.reveals("pack", pack.ref)
    return open_source(call.services, call.snapshot, source)
