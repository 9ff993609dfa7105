from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from unit.security.keys import keyring

from chalicelib.domain.entities import Pack
from chalicelib.domain.templates import REDACTED
from chalicelib.flow.configuration import MASK, masked, read, revealed, sealed
from chalicelib.security.encryption import Cipher, SealError

NOW = datetime(2026, 11, 22, tzinfo=UTC)
SCHEMA = {
    "token": {"type": "string", "secret": True},
    "region": {"type": "string"},
    "database": {"type": "object", "properties": {"user": {"type": "string"}, "password": {"secret": True}}},
    "servers": {"type": "array", "items": {"type": "object", "properties": {"key": {"secret": True}}}},
}
CONFIG: dict[str, Any] = {
    "token": "tok-1",
    "region": "eu",
    "database": {"user": "me", "password": {"parts": ["pass-1", 2]}},
    "servers": [{"name": "a", "key": "key-a"}, {"name": "b", "key": "key-b"}, {"name": "c"}],
}
VALUES = ("tok-1", "pass-1", "key-a", "key-b")


class DataKeys:
    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def data_key(self, tenant: str, wrapped: str | None = None) -> str | None:
        if wrapped is not None:
            self.kept.setdefault(tenant, wrapped)
        return self.kept.get(tenant)


@pytest.fixture
def cipher() -> Cipher:
    return Cipher(DataKeys(), keyring())


def pack(config: Any, schema: Any = SCHEMA, **fields: Any) -> Pack:
    given = {"id": 1, "created": NOW, "updated": NOW, "ref": "demo", "label": "Demo", "version": "1.0.0", **fields}
    return Pack(**given, conf_schema=schema, config=config)


def change(of: Pack, **fields: Any) -> Pack:
    return msgspec.structs.replace(of, **fields)


def test_secret_values_are_stored_sealed_at_every_depth(cipher: Cipher) -> None:
    stored = sealed(cipher, "acme", pack(CONFIG))
    text = msgspec.json.encode(stored).decode()
    assert not any(value in text for value in VALUES)
    assert stored.config["region"] == "eu"
    assert stored.config["database"] == {"user": "me", "password": REDACTED}
    assert stored.config["servers"][2] == {"name": "c"}
    assert set(stored.secrets) == {"token", "/database/password", "/servers/0/key", "/servers/1/key"}
    assert revealed(cipher, "acme", stored) == CONFIG
    assert read(cipher, "acme", stored, "/servers/1/key") == "key-b"
    assert read(cipher, "acme", stored, "region") == "eu"
    assert read(cipher, "acme", stored, "nowhere") is None
    assert masked(stored)["database"] == {"user": "me", "password": MASK}
    assert masked(stored) == masked(pack(CONFIG)), "also what an older version has stored in clear"


def test_sealing_again_changes_nothing(cipher: Cipher) -> None:
    stored = sealed(cipher, "acme", pack(CONFIG))
    assert sealed(cipher, "acme", stored) == stored


def test_a_value_opens_only_where_it_was_sealed(cipher: Cipher) -> None:
    stored = sealed(cipher, "acme", pack(CONFIG))
    sealed(cipher, "other", pack(CONFIG))
    moved = change(stored, secrets={**stored.secrets, "token": stored.secrets["/servers/0/key"]})
    for tenant, one in (("acme", moved), ("acme", change(stored, ref="another")), ("other", stored)):
        with pytest.raises(SealError):
            read(cipher, tenant, one, "token")


@pytest.mark.parametrize("placeholder", [MASK, REDACTED])
def test_a_mask_that_comes_back_means_the_value(cipher: Cipher, placeholder: Any) -> None:
    stored = sealed(cipher, "acme", pack(CONFIG))
    config = {**CONFIG, "token": placeholder, "region": "us"}
    again = sealed(cipher, "acme", change(stored, config=config, secrets={}), before=stored.secrets)
    assert revealed(cipher, "acme", again) == {**CONFIG, "region": "us"}


def test_a_new_value_replaces_the_sealed_one(cipher: Cipher) -> None:
    stored = sealed(cipher, "acme", pack(CONFIG))
    again = sealed(cipher, "acme", change(stored, config={"token": "tok-2"}, secrets={}), before=stored.secrets)
    assert revealed(cipher, "acme", again) == {"token": "tok-2"}
    assert set(again.secrets) == {"token"}


def test_a_schema_may_come_to_call_more_secret_but_nothing_less(cipher: Cipher) -> None:
    stored = sealed(cipher, "acme", pack(CONFIG))
    wider = {**SCHEMA, "region": {"secret": True}, "database": {"type": "object", "secret": True}}
    more = sealed(cipher, "acme", change(stored, conf_schema=wider))
    assert set(more.secrets) == {"token", "region", "database", "/servers/0/key", "/servers/1/key"}
    assert revealed(cipher, "acme", more) == CONFIG
    less = sealed(cipher, "acme", change(stored, conf_schema={}))
    assert less.secrets == stored.secrets
    assert revealed(cipher, "acme", less) == CONFIG
    assert masked(less)["token"] == MASK


def test_no_configuration_no_ciphertext(cipher: Cipher) -> None:
    for config in ({}, {"region": "eu"}, {"token": None}):
        stored = sealed(cipher, "acme", pack(config))
        assert (stored.config, stored.secrets) == (config, {})
