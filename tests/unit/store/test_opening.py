import pytest

from chalicelib.store.opening import Store


@pytest.mark.parametrize("tenant", ["", "a#b", "#webhook", "a/b"])
def test_what_is_not_a_slug_opens_nothing(store: Store, tenant: str) -> None:
    with pytest.raises(ValueError, match="not a tenant"):
        store.tenant(tenant)


def test_a_tenant_is_opened_once(store: Store) -> None:
    assert store.tenant("acme") is store.tenant("acme")
    assert store.tenant("acme") is not store.tenant("other")


def test_the_first_data_key_stands(store: Store) -> None:
    assert store.data_key("acme") is None
    assert store.data_key("acme", "first") == "first"
    assert store.data_key("acme", "second") == "first"
    assert store.data_key("acme") == "first"
    assert store.data_key("other") is None
