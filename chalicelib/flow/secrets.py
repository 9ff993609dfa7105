"""Putting secrets where they belong, just before a run (README 11): stored state holds references only."""

from dataclasses import dataclass, field

import msgspec

from chalicelib.domain.entities import Action, Execution, Json, Key
from chalicelib.services import Services
from chalicelib.store.snapshot import Snapshot


class MissingKeyError(Exception):
    """A parameter refers to a key that is gone."""


@dataclass(slots=True)
class Revealed:
    """Parameters in clear, and the strings among them that must not leave the runner."""

    parameters: dict[str, Json]
    hidden: list[str] = field(default_factory=list)


def reveal(services: Services, snapshot: Snapshot, tenant: str, execution: Execution, action: Action) -> Revealed:
    """The parameters of ``execution`` with its secrets in place, and its pack's and action's own keys by name.

    Own keys are merged over the parameters by name, the action's last (semantics §2.6). Raises
    :class:`MissingKeyError`.
    """
    revealed = Revealed(dict(execution.config or {}))
    for key in snapshot.keys_of_action(action.ref, action.pack_ref):
        revealed.parameters[key.name] = _open(services, tenant, key, revealed)
    for pointer, parts in (execution.secrets or {}).items():
        values = [
            part if isinstance(part, str) else _part(services, snapshot, tenant, part, revealed) for part in parts
        ]
        value = values[0] if len(values) == 1 else "".join(_as_text(each) for each in values)
        _put(revealed.parameters, pointer, value)
    return revealed


def _part(services: Services, snapshot: Snapshot, tenant: str, part: Json, revealed: Revealed) -> Json:
    if "config" in part:  # a pack.config value that its schema calls secret
        pack = snapshot.pack(part["pack"])
        value = pack.config.get(part["config"]) if pack is not None else None
        revealed.hidden += _strings(value)
        return value
    key = snapshot.key(part["key"])
    if key is None:
        raise MissingKeyError(f"unknown key: {part['key']}")
    return _open(services, tenant, key, revealed)


def _open(services: Services, tenant: str, key: Key, revealed: Revealed) -> Json:
    value = services.cipher.open(tenant, key.ref, key.sealed)
    if key.encrypted:
        revealed.hidden += _strings(value)
    return value


def _strings(value: Json) -> list[str]:
    """Every string that would give ``value`` away; numbers too, as they print."""
    if isinstance(value, dict):
        return [text for each in value.values() for text in _strings(each)]
    if isinstance(value, list):
        return [text for each in value for text in _strings(each)]
    if value is None or isinstance(value, bool):
        return []
    return [str(value)]


def _as_text(value: Json) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _put(document: dict[str, Json], pointer: str, value: Json) -> None:
    """Set what the JSON pointer (RFC 6901) names; its parents exist, since the template made them."""
    *parents, last = [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]
    place: Json = document
    for token in parents:
        place = place[int(token)] if isinstance(place, list) else place[token]
    if isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
