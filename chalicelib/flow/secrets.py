"""Putting secrets away as a run is requested, and back in just before it (README 11): stored state holds references."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import msgspec

from chalicelib.domain.entities import Action, Execution, Json, Key, Rule
from chalicelib.domain.parameters import secret_names
from chalicelib.domain.templates import REDACTED, is_template, pointer_to, put_secrets
from chalicelib.domain.values import MissingError
from chalicelib.flow import configuration
from chalicelib.security.access import access_of_identity, key_context
from chalicelib.services import Services
from chalicelib.store.snapshot import Snapshot


class UnknownKeyError(Exception):
    """There is no such key, or not for this executor: it is not said which."""

    def __init__(self, ref: str) -> None:
        super().__init__(f"unknown key: {ref}")


@dataclass(slots=True)
class Revealed:
    """Parameters in clear, and the strings among them that must not leave the runner."""

    parameters: dict[str, Json]
    hidden: list[str] = field(default_factory=list)


def seal(services: Services, tenant: str, execution: Execution, action: Action) -> Execution:
    """``execution`` with the values that its action's schema calls secret encrypted, beside the parameters.

    The ciphertext is bound to the tenant and the action.
    """
    config = execution.config or {}
    given = [name for name in secret_names(action.param_schema) if config.get(name) not in (None, REDACTED)]
    if not given:
        return execution
    sealed: dict[str, Json] = {
        pointer_to(name): [{"sealed": services.cipher.seal(tenant, action.ref, config[name]), "of": action.ref}]
        for name in given
    }
    return msgspec.structs.replace(
        execution,
        config={**config, **dict.fromkeys(given, REDACTED)},
        secrets=sealed | (execution.secrets or {}),  # in this order: a sealed object may hold further secrets
    )


def seal_rule(
    services: Services, tenant: str, rule: Rule, action: Action | None, *, once_secret: Collection[str] = ()
) -> Rule:
    """``rule``, whose parameters are in clear, with those encrypted that its action's schema calls secret, and those
    that were so before: another action does not bring them to light. Those that hold a template are not encrypted: what
    they stand for is not in them."""
    secret = secret_names(action.param_schema) if action is not None else frozenset()
    given = [
        name
        for name in secret.union(once_secret)
        if rule.action_params.get(name) is not None and not any(map(is_template, strings_in(rule.action_params[name])))
    ]
    ciphertexts = {name: services.cipher.seal(tenant, of_rule(rule), rule.action_params[name]) for name in given}
    params = {**rule.action_params, **dict.fromkeys(given, REDACTED)}
    return msgspec.structs.replace(rule, action_params=params, secrets=ciphertexts)


def open_rule(services: Services, tenant: str, rule: Rule) -> Rule:
    """``rule`` with its parameters in clear."""
    opened = {name: services.cipher.open(tenant, of_rule(rule), sealed) for name, sealed in rule.secrets.items()}
    return msgspec.structs.replace(rule, action_params={**rule.action_params, **opened}, secrets={})


def of_rule(rule: Rule) -> str:
    """What the ciphertexts of a rule are bound to; no key has such a ref."""
    return f"rule {rule.ref}"


def reveal(services: Services, snapshot: Snapshot, tenant: str, execution: Execution, action: Action) -> Revealed:
    """The parameters of ``execution`` with its secrets in place, and by name the keys that its action asks for, its
    pack's and its own.

    They are merged over the parameters in this order (semantics §2.6). A key that is not the pack's or the action's own
    must be one that the executor may read and decrypt. Raises :class:`UnknownKeyError`.
    """
    own = {key.ref: key for key in snapshot.keys_of_action(action.ref, action.pack_ref)}
    hidden: list[str] = []

    def read(source: Mapping[str, str]) -> Json:
        if "key" in source:
            return open_key(named(source["key"]))
        value = open_source(services, snapshot, source)
        hidden.extend(strings_in(value))
        return value

    def named(ref: str) -> Key:
        return own.get(ref) or key_for(snapshot, ref, execution.executor)

    def open_key(key: Key) -> Json:
        value = services.cipher.open(tenant, key.ref, key.sealed)
        if key.encrypted:
            hidden.extend(strings_in(value))
        return value

    parameters = put_secrets(execution.config or {}, execution.secrets or {}, read)
    by_name = {key.name: key for key in (*map(named, action.secrets), *own.values())}
    return Revealed({**parameters, **{name: open_key(key) for name, key in by_name.items()}}, hidden)


def key_for(snapshot: Snapshot, ref: str, identity_id: int | None) -> Key:
    """The key ``ref``, if this identity may read what is in it. Raises :class:`UnknownKeyError`."""
    key = snapshot.key(ref)
    if key is None:
        raise UnknownKeyError(ref)
    access = access_of_identity(snapshot, None if identity_id is None else snapshot.identity_by_id(identity_id))
    actions = ("read", "decrypt") if key.encrypted else ("read",)
    if not all(access.allows("keys", action, key_context(key)) for action in actions):
        raise UnknownKeyError(ref)
    return key


def read_key_for(services: Services, snapshot: Snapshot, identity_id: int | None, ref: str) -> Json:
    """The value of the key ``ref`` for a criterion of this identity's. Raises MissingError as expressions do."""
    try:
        key = key_for(snapshot, ref, identity_id)
    except UnknownKeyError as error:
        raise MissingError(str(error)) from None
    return services.cipher.open(snapshot.tenant, key.ref, key.sealed)


def open_source(services: Services, snapshot: Snapshot, source: Mapping[str, str]) -> Json:
    """What a source other than a key stands for: a sealed parameter, or a value of a pack's configuration."""
    if "sealed" in source:
        return services.cipher.open(snapshot.tenant, source["of"], source["sealed"])
    pack = snapshot.pack(source["pack"])
    if pack is None:
        return None
    return configuration.read(services.cipher, snapshot.tenant, pack, source["config"])


def strings_in(value: Json) -> list[str]:
    """Every string that would give ``value`` away; numbers too, as they print."""
    if isinstance(value, dict):
        return [text for each in value.values() for text in strings_in(each)]
    if isinstance(value, list):
        return [text for each in value for text in strings_in(each)]
    if value is None or isinstance(value, bool):
        return []
    return [str(value)]
