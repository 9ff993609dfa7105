from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.security.keys import FIRST, SECOND, keyring

from chalicelib.security.encryption import Cipher, SealError
from chalicelib.security.keyring import Keyring

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class DataKeys:
    """Keeps the first key of each tenant, as the store does."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def data_key(self, tenant: str, wrapped: str | None = None) -> str | None:
        if wrapped is not None:
            self.kept.setdefault(tenant, wrapped)
        return self.kept.get(tenant)


@pytest.fixture
def data_keys() -> DataKeys:
    return DataKeys()


@pytest.fixture
def cipher(data_keys: DataKeys) -> Cipher:
    return Cipher(data_keys, keyring())


@given(value=JSON)
def test_what_is_sealed_opens(value: Any) -> None:
    cipher = Cipher(DataKeys(), keyring())
    assert cipher.open("acme", "db.password", cipher.seal("acme", "db.password", value)) == value


def test_nothing_of_the_value_shows(cipher: Cipher) -> None:
    sealed = [cipher.seal("acme", "db.password", "correct horse battery") for _ in range(2)]
    assert sealed[0] != sealed[1]
    assert "horse" not in "".join(sealed)


def test_only_for_its_tenant_and_ref(cipher: Cipher) -> None:
    sealed = cipher.seal("acme", "db.password", "s3cret")
    cipher.seal("other", "db.password", "another")
    for tenant, ref in (("other", "db.password"), ("acme", "db.user"), ("nobody", "db.password")):
        with pytest.raises(SealError):
            cipher.open(tenant, ref, sealed)


@pytest.mark.parametrize(
    "change", [lambda s: s[:-8] + "AAAAAAA=", lambda s: "2" + s[1:], lambda _: "", lambda _: "1.%%"]
)
def test_tampering_shows(cipher: Cipher, change: Any) -> None:
    sealed = cipher.seal("acme", "db.password", "s3cret")
    with pytest.raises(SealError):
        cipher.open("acme", "db.password", change(sealed))


def test_another_process_opens_it(data_keys: DataKeys) -> None:
    sealed = Cipher(data_keys, keyring()).seal("acme", "r", 1)
    assert Cipher(data_keys, keyring()).open("acme", "r", sealed) == 1


def test_two_that_make_the_first_key_at_once_agree() -> None:
    class Late(DataKeys):
        """Somebody else's key arrives between our look and our write."""

        def data_key(self, tenant: str, wrapped: str | None = None) -> str | None:
            if wrapped is not None and tenant not in self.kept:
                Cipher(self.other, keyring()).seal(tenant, "r", 0)
                self.kept = self.other.kept
            return super().data_key(tenant, wrapped)

        other = DataKeys()

    late = Late()
    sealed = Cipher(late, keyring()).seal("acme", "r", "ours")
    assert Cipher(late.other, keyring()).open("acme", "r", sealed) == "ours"


def test_the_master_key_rotates(data_keys: DataKeys) -> None:
    sealed = Cipher(data_keys, keyring(FIRST)).seal("acme", "r", 1)
    assert Cipher(data_keys, keyring(SECOND, FIRST)).open("acme", "r", sealed) == 1


def test_a_wrong_master_key_opens_nothing(data_keys: DataKeys) -> None:
    sealed = Cipher(data_keys, keyring(FIRST)).seal("acme", "r", 1)
    wrong: Keyring = keyring({"kid": "k1", "key": "z" * 40})
    with pytest.raises(SealError):
        Cipher(data_keys, wrong).open("acme", "r", sealed)


def test_a_data_key_cannot_be_moved_to_another_tenant(data_keys: DataKeys) -> None:
    sealed = Cipher(data_keys, keyring()).seal("acme", "r", 1)
    data_keys.kept["other"] = data_keys.kept["acme"]
    with pytest.raises(SealError):
        Cipher(data_keys, keyring()).open("other", "r", sealed)
