"""What of an execution's parameters a client gets to see (semantics §2.3, README 11).

Two kinds are hidden: what a template took from the keystore, of which the stored parameters hold only the redaction
marker, and what the action's schema calls secret. ``include_secret_values`` shows both, to those who may decrypt.
"""

import copy
from typing import Final

import msgspec

from chalicelib.api.errors import Forbidden
from chalicelib.api.routing import Call
from chalicelib.domain.entities import Execution, Json
from chalicelib.domain.parameters import secret_names

REDACTED: Final[Json] = {"$attune_secret": True, "redacted": True}


def parameters_of(call: Call, execution: Execution, *, reveal: bool = False) -> Json:
    """The execution's ``config`` as the caller may see it; with ``reveal``, what they may decrypt is in clear.

    Raises Forbidden for ``reveal`` without any grant of keys:decrypt.
    """
    if reveal and not call.allows("keys", "decrypt"):
        raise Forbidden.lacking("keys", "decrypt")
    if not isinstance(execution.config, dict):
        return execution.config
    if reveal:
        return _revealed(call, execution)
    action = call.snapshot.action(execution.action_ref)
    hidden = secret_names(action.param_schema) if action is not None and action.param_schema else frozenset()
    return {
        name: REDACTED if name in hidden and value is not None else value for name, value in execution.config.items()
    }


def _revealed(call: Call, execution: Execution) -> Json:
    config = copy.deepcopy(execution.config)
    for pointer, parts in (execution.secrets or {}).items():
        values = [part if isinstance(part, str) else _value(call, part) for part in parts]
        if None not in values:
            _put(config, pointer, values[0] if len(values) == 1 else "".join(map(_text, values)))
    return config


def _value(call: Call, part: dict[str, str]) -> Json:
    """The secret that a part refers to; None when it is gone or not for this caller."""
    if "key" not in part:
        pack = call.snapshot.pack(part["pack"])
        return pack.config.get(part["config"]) if pack is not None else None
    key = call.registry.keys.get(part["key"])
    if key is None or not call.allows("keys", "decrypt", call.context_of(key)):
        return None
    return call.services.cipher.open(call.tenant, key.ref, key.sealed)


def _text(value: Json) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _put(document: Json, pointer: str, value: Json) -> None:
    """Set what the JSON pointer (RFC 6901) names."""
    *parents, last = [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]
    for token in parents:
        document = document[int(token)] if isinstance(document, list) else document[token]
    if isinstance(document, list):
        document[int(last)] = value
    else:
        document[last] = value
