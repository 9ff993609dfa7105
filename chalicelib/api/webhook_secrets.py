"""The HMAC secrets of a webhook's configuration: sealed in the store, masked for readers, in clear only to verify with
(README 11)."""

from typing import TYPE_CHECKING, Any, Final

from chalicelib.domain.entities import Json, Trigger

if TYPE_CHECKING:
    from chalicelib.security.encryption import Cipher

MASK: Final = "********"

_SECRETS: Final = ("secret", "secrets")  # the names under `hmac` that the API knows; the store has `sealed` instead
_SEALED: Final = "sealed"


def sealed(cipher: "Cipher", tenant: str, trigger: Trigger, config: dict[str, Json]) -> dict[str, Json]:
    """``config`` as it is stored."""
    hmac = _hmac(config)
    clear = {name: hmac.pop(name) for name in _SECRETS if hmac.get(name)}
    if clear:
        hmac[_SEALED] = cipher.seal(tenant, _name(trigger), clear)
    return {**config, "hmac": hmac} if "hmac" in config else config


def opened(cipher: "Cipher", tenant: str, trigger: Trigger, *, onto: dict[str, Json] | None = None) -> dict[str, Json]:
    """The trigger's configuration with its secrets in clear.

    With ``onto``, a configuration that is about to replace it: that one, with the stored secrets where its own are left
    out or masked.
    """
    config: dict[str, Json] = (trigger.webhook_config or {}) if onto is None else onto
    stored = _hmac(trigger.webhook_config or {}).get(_SEALED)
    hmac = _hmac(config)
    hmac.pop(_SEALED, None)
    for name in _SECRETS:
        if hmac.get(name) in (None, MASK, [], [MASK], [MASK, MASK]):
            hmac.pop(name, None)
    if stored is not None and not any(name in hmac for name in _SECRETS):
        hmac |= cipher.open(tenant, _name(trigger), stored)
    return {**config, "hmac": hmac} if "hmac" in config else config


def masked(config: Json) -> dict[str, Json]:
    """The stored ``config`` for readers."""
    hmac = _hmac(config or {})
    if hmac.pop(_SEALED, None) is not None:
        hmac["secret"] = MASK
    return {**(config or {}), "hmac": hmac} if "hmac" in (config or {}) else dict(config or {})


def _hmac(config: dict[str, Json]) -> dict[str, Any]:
    hmac = config.get("hmac")
    return dict(hmac) if isinstance(hmac, dict) else {}


def _name(trigger: Trigger) -> str:
    return f"webhook/{trigger.ref}"
