import base64
import hashlib

import pytest
from unit.security.keys import FIRST, SECOND, SecretsManager, keyring

from chalicelib.security.keyring import REREAD, Keyring, KeyringError, NamedKey


def test_the_first_key_is_current_and_old_ones_still_verify() -> None:
    keys = keyring(SECOND, FIRST)
    assert (keys.signing().kid, keys.wrapping().kid) == ("k2", "k2")
    assert keys.verifying("k1").kid == "k1"
    assert keys.unwrapping("k1").kid == "k1"


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def kept(*keys: dict[str, object]) -> tuple[Keyring, SecretsManager, Clock]:
    manager, clock = SecretsManager(*keys), Clock()
    return Keyring(lambda: manager, "attune", clock), manager, clock


def test_the_secret_is_read_at_first_use_and_kept() -> None:
    keys, manager, clock = kept(FIRST)
    assert manager.asked == 0
    keys.signing()
    clock.now += REREAD - 1
    keys.wrapping()
    assert manager.asked == 1


def test_the_secret_is_read_again_after_a_while() -> None:
    keys, manager, clock = kept(FIRST)
    keys.signing()
    manager.rotate(SECOND, FIRST)
    clock.now += REREAD
    assert keys.signing().kid == "k2"
    assert manager.asked == 2


def test_a_key_that_is_not_known_yet_is_looked_for() -> None:
    keys, manager, clock = kept(FIRST)
    keys.signing()
    clock.now += 60
    manager.rotate(SECOND, FIRST)
    assert keys.verifying("k2") == NamedKey(**SECOND)


def test_made_up_names_do_not_have_the_secret_read_each_time() -> None:
    keys, manager, clock = kept(FIRST)
    keys.signing()
    clock.now += 60
    assert {keys.verifying(f"made up {number}") for number in range(100)} == {None}
    assert manager.asked == 2


def test_a_key_to_come_verifies_and_does_not_sign() -> None:
    keys, _, clock = kept({**SECOND, "since": 1_000_900}, FIRST)
    assert keys.signing().kid == "k1"
    assert keys.verifying("k2") is not None
    clock.now += 900
    assert keys.signing().kid == "k2"


@pytest.mark.parametrize("text", ["not JSON", "{}"])
def test_a_secret_that_went_wrong_does_not_take_the_keys_away(text: str) -> None:
    keys, manager, clock = kept(FIRST)
    keys.signing()
    manager.text = text
    clock.now += REREAD
    assert keys.signing().kid == "k1"
    assert keys.verifying("k2") is None


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
