from urllib.request import Request

import pytest
from unit.store.conftest import Calls

from chalicelib.store.blobs import Blobs, MissingBlobError
from chalicelib.store.opening import Store


@pytest.fixture
def blobs(store: Store) -> Blobs:
    return store.tenant("acme").blobs


def test_put_get_delete(blobs: Blobs) -> None:
    assert blobs.put("events/1", b"content") == "events/1"
    assert blobs.get("events/1") == b"content"
    assert blobs.exists("events/1")
    blobs.delete("events/1")
    assert not blobs.exists("events/1")
    with pytest.raises(MissingBlobError, match="events/1"):
        blobs.get("events/1")


def test_tenants_have_their_own(blobs: Blobs, store: Store) -> None:
    blobs.put("events/1", b"content")
    assert not store.tenant("other").blobs.exists("events/1")


def test_values_are_named_by_their_content_and_put_once(blobs: Blobs, calls: Calls) -> None:
    name = blobs.put_value(b"a value put once")
    assert calls.during(lambda: blobs.put_value(b"a value put once")) == []
    assert blobs.get(name) == b"a value put once"
    assert blobs.put_value(b"another value") != name


def test_a_signed_url_is_for_one_object_and_reused(blobs: Blobs, calls: Calls) -> None:
    blobs.put("packs/a.tar.gz", b"content")
    made: list[str] = []
    assert calls.during(lambda: made.append(blobs.presigned_get("packs/a.tar.gz"))) == []
    assert Request(made[0]).selector.partition("?")[0].endswith("acme/packs/a.tar.gz")  # not opened
    assert blobs.presigned_get("packs/a.tar.gz") == made[0]
    assert blobs.presigned_get("packs/b.tar.gz") != made[0]


def test_an_upload_form_limits_its_size(blobs: Blobs) -> None:
    form = blobs.presigned_post("uploads/1", 1000)
    assert form["fields"]["key"] == "acme/uploads/1"
    assert {"policy", "x-amz-signature"} <= {name.lower() for name in form["fields"]}
