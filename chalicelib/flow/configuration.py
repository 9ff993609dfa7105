"""What of a pack's configuration is secret, at rest and when it is read (README 11).

A stored pack holds the values that its ``conf_schema`` calls secret as ciphertexts in ``Pack.secrets``, and the
redaction marker in their place. A value that was once sealed stays so until it is set anew, whatever the schema says.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from chalicelib.domain.entities import SYSTEM_TENANT, Json, Pack
from chalicelib.domain.templates import REDACTED, at_pointer, pack_config, pointer_to, put_secrets
from chalicelib.domain.values import Secret
from chalicelib.security.encryption import Cipher

MASK: Final = "********"


def sealed(cipher: Cipher, tenant: str, pack: Pack, before: Mapping[str, str] | None = None) -> Pack:
    """``pack`` with the secret values of its configuration encrypted, and unchanged where that is done.

    ``before``: the ciphertexts of the configuration that this one replaces. A mask or marker in place of a value, as a
    client that may not read it sends it back, means that one.
    """
    kept = {
        place: ciphertext
        for place, ciphertext in {**(before or {}), **pack.secrets}.items()
        if at_pointer(pack.config, place) in (MASK, REDACTED)
    }
    pack = msgspec.structs.replace(pack, secrets=kept)
    places = _outermost(_places(pack))
    if places == list(kept):
        return msgspec.structs.replace(pack, config=_with(pack.config, dict.fromkeys(places, REDACTED)))
    clear = revealed(cipher, tenant, pack)
    secrets = {
        place: kept.get(place) or cipher.seal(_owner(tenant, pack), _bound_to(pack, place), at_pointer(clear, place))
        for place in places
    }
    return msgspec.structs.replace(pack, config=_with(clear, dict.fromkeys(places, REDACTED)), secrets=secrets)


def read(cipher: Cipher, tenant: str, pack: Pack, place: str) -> Json:
    """The value at ``place``, a JSON pointer or the name of a field, in clear; None if there is none."""
    if place in pack.secrets:
        return cipher.open(_owner(tenant, pack), _bound_to(pack, place), pack.secrets[place])
    return at_pointer(pack.config, place)


def revealed(cipher: Cipher, tenant: str, pack: Pack) -> Json:
    """The whole configuration in clear."""
    return _with(pack.config, {place: read(cipher, tenant, pack, place) for place in pack.secrets})


def masked(pack: Pack) -> Json:
    """The configuration with :data:`MASK` for every secret value."""
    return _with(pack.config, dict.fromkeys(_places(pack), MASK))


def _places(pack: Pack) -> list[str]:
    """Where there are secret values: those of the schema as expressions know them, and those sealed before."""
    found = [*_secrets_in(pack_config(pack)), *pack.secrets]
    return [place for place in dict.fromkeys(found) if at_pointer(pack.config, place) is not None]


def _outermost(places: list[str]) -> list[str]:
    """Those of ``places`` that lie in no other one."""
    pointers = {_pointer(place) + "/" for place in places}
    return [
        place
        for place in places
        if not any(_pointer(place).startswith(other) for other in pointers if other != _pointer(place) + "/")
    ]


def _secrets_in(value: Json) -> Iterator[str]:
    if type(value) is Secret:
        yield from (part["config"] for part in value.parts if isinstance(part, dict))
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _secrets_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _secrets_in(inner)


def _with(config: Json, values: Mapping[str, Json]) -> Json:
    places: dict[str, list[str | dict[str, str]]] = {_pointer(place): [{"config": place}] for place in values}
    return put_secrets(config, places, lambda source: values[source["config"]])


def _pointer(place: str) -> str:
    return place if place.startswith("/") else pointer_to(place)


def _bound_to(pack: Pack, place: str) -> str:
    return f"pack {pack.ref} {place}"  # no key or action has such a ref


def _owner(tenant: str, pack: Pack) -> str:
    return SYSTEM_TENANT if pack.is_standard else tenant
