import base64
from urllib.request import Request

import msgspec
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


def test_a_part_is_what_there_is_of_it(blobs: Blobs) -> None:
    blobs.put("logs/1", b"0123456789")
    assert blobs.get_part("logs/1", 2, 5) == b"234"
    assert blobs.get_part("logs/1", 8, 50) == b"89"
    assert blobs.get_part("logs/1", 10, 50) == b""
    with pytest.raises(MissingBlobError, match="logs/2"):
        blobs.get_part("logs/2", 0, 5)


def test_sizes_are_of_the_tenants_names_in_order(blobs: Blobs, store: Store) -> None:
    for name in ("logs/1/b", "logs/1/a", "logs/10/a", "other"):
        blobs.put(name, name.encode())
    store.tenant("other").blobs.put("logs/1/a", b"")
    assert blobs.sizes("logs/1/") == {"logs/1/a": 8, "logs/1/b": 8}
    assert blobs.sizes("nothing/") == {}


def test_an_upload_form_may_be_for_all_below_a_name(blobs: Blobs, calls: Calls) -> None:
    made: list[dict[str, str]] = []
    assert calls.during(lambda: made.append(blobs.presigned_post("logs/1/${filename}", 1000)["fields"])) == []
    policy = msgspec.json.decode(base64.b64decode(made[0]["policy"]))
    assert made[0]["key"] == "acme/logs/1/${filename}"
    assert ["starts-with", "$key", "acme/logs/1/"] in policy["conditions"]
    assert ["content-length-range", 0, 1000] in policy["conditions"]
    assert "tagging" not in made[0]


def test_an_upload_form_can_say_what_its_files_are(blobs: Blobs) -> None:
    fields = blobs.presigned_post("logs/1", 1000, kind="log")["fields"]
    tagging = {"tagging": fields["tagging"]}
    assert "<Key>kind</Key><Value>log</Value>" in fields["tagging"]
    assert tagging in msgspec.json.decode(base64.b64decode(fields["policy"]))["conditions"]
