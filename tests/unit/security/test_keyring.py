import base64
import hashlib

import pytest
from unit.security.keys import FIRST, SECOND, SecretsManager, keyring

from chalicelib.security import keyring as module
from chalicelib.security.keyring import Keyring, KeyringError, NamedKey


def test_the_first_key_is_current_and_old_ones_still_verify() -> None:
    keys = keyring(SECOND, FIRST)
    assert (keys.signing().kid, keys.wrapping().kid) == ("k2", "k2")
    assert keys.verifying("k1").kid == "k1"
    assert keys.unwrapping("k1").kid == "k1"


def test_the_secret_is_read_once() -> None:
    manager = SecretsManager(FIRST)
    keys = Keyring(lambda: manager, "attune")
    assert manager.asked == 0
    keys.signing()
    keys.wrapping()
    assert keys.verifying("unknown") is None
    assert manager.asked == 1


def test_a_rotated_key_is_found_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = SecretsManager(FIRST)
    keys = Keyring(lambda: manager, "attune")
    assert keys.verifying("k2") is None
    manager.rotate(SECOND, FIRST)
    monkeypatch.setattr(module, "_REREAD", -1.0)
    assert keys.verifying("k2").kid == "k2"


def test_a_master_key_that_is_gone() -> None:
    with pytest.raises(KeyringError, match="k9"):
        keyring().unwrapping("k9")


@pytest.mark.parametrize(
    "text", ["not JSON", "{}", '{"jwt": [], "master": []}', '{"jwt": "x", "master": [{"kid": 1}]}']
)
def test_an_unusable_secret_is_named_but_not_shown(text: str) -> None:
    manager = SecretsManager(FIRST)
    manager.text = text
    with pytest.raises(KeyringError, match="attune") as error:
        Keyring(lambda: manager, "attune").signing()
    assert "not JSON" not in str(error.value).replace("is not the JSON", "")


def test_keys_are_32_bytes_however_they_are_written() -> None:
    raw = bytes(range(32))
    assert NamedKey("k", base64.b64encode(raw).decode()).secret == raw
    assert NamedKey("k", "t" * 64).secret == hashlib.sha256(b"t" * 64).digest()
    with pytest.raises(KeyringError, match="too short"):
        _ = NamedKey("k", "short").secret
