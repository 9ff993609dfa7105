import pytest

from chalicelib.domain.entities import Pack, Runtime
from chalicelib.store.registry import Put


@pytest.fixture
def runtimes(api):
    made = {"created": api.services.clock(), "updated": api.services.clock()}
    pack = Pack(id=api.services.new_id(), ref="acme", label="Acme", version="1.0.0", **made)
    hidden = Pack(
        id=api.services.new_id(), ref="hidden", label="H", version="1.0.0", visibility="private", installed_by=1, **made
    )
    rows = [
        Runtime(id=api.services.new_id(), ref=f"{of.ref}.{name}", name=name, pack=of.id, pack_ref=of.ref, **made)
        for of, name in ((pack, "ruby"), (pack, "perl"), (hidden, "lua"))
    ]
    api.registry.commit(*(Put(row, new=True) for row in (pack, hidden, *rows)))


def test_runtimes_are_listed_by_ref(api, runtimes):
    answer = api.get("/api/v1/runtimes", params={"page_size": 1, "page": 2})
    assert answer.refs == ["acme.ruby"]
    assert answer.json["pagination"]["total_items"] == 2
    assert set(answer.items[0]) == {"id", "ref", "pack_ref", "description", "name", "created", "updated"}


def test_one_runtime(api, runtimes):
    data = api.get("/api/v1/runtimes/acme.perl").data
    assert data == {
        "id": data["id"], "ref": "acme.perl", "pack": data["pack"], "pack_ref": "acme", "description": None,
        "name": "perl", "distributions": {}, "installation": None, "execution_config": {},
        "created": data["created"], "updated": data["updated"],
    }  # fmt: skip
    assert api.get("/api/v1/runtimes/acme.ghost").status == 404
    assert api.get("/api/v1/runtimes/hidden.lua").status == 404
    assert api.as_role().get("/api/v1/runtimes/acme.perl").status == 403


def test_runtimes_of_a_pack(api, runtimes):
    assert api.get("/api/v1/packs/acme/runtimes").refs == ["acme.perl", "acme.ruby"]
    assert api.get("/api/v1/packs/ghost/runtimes").status == 404
    assert api.get("/api/v1/packs/hidden/runtimes").status == 404
    assert api.anonymous().get("/api/v1/packs/acme/runtimes").status == 401
