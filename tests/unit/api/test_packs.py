from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

import chalicelib.api.packs  # noqa: F401  # declares the routes
from chalicelib.domain import archives
from chalicelib.domain.entities import Grant
from chalicelib.store.registry import Put

PACK = {"ref": "mine", "label": "Mine", "version": "1.0.0"}


def archive(**more: str) -> bytes:
    texts = {"pack": "ref: demo\nversion: 1.0.0\n", "triggers__t": "ref: t\n", **more}
    return archives.pack({f"{name.replace('__', '/')}.yaml": text.encode() for name, text in texts.items()})


def upload(api: Any, data: bytes | None = None, **fields: str) -> Any:
    content = archive() if data is None else data
    return api.post("/api/v1/packs/upload", fields=fields, files={"pack": ("demo.tar.gz", content)})


def wire(**changes: Any) -> Mapping[str, Any]:
    """A pack's fields on the wire, less its id and times."""
    return {
        "ref": "mine",
        "label": "Mine",
        "description": None,
        "version": "1.0.0",
        "conf_schema": {},
        "config": {},
        "meta": {},
        "tags": [],
        "runtime_deps": [],
        "dependencies": [],
        "is_standard": False,
        "worker_selector": {},
        "worker_tolerations": [],
        "worker_affinity": {},
        **changes,
    }


def less(pack: dict[str, Any]) -> Mapping[str, Any]:
    assert isinstance(pack.pop("id"), int)
    assert pack.pop("created").endswith("Z")
    assert pack.pop("updated").endswith("Z")
    return pack


# --- create, read, list


def test_a_created_pack_is_read_back(api: Any) -> None:
    created = api.post("/api/v1/packs", json=PACK)
    assert (created.status, created.json["message"]) == (201, "Pack created successfully")
    read = api.get("/api/v1/packs/mine")
    assert (read.status, read.data) == (200, created.data)
    assert less(read.data) == wire()


def test_a_created_pack_is_its_creators(api: Any) -> None:
    api.post("/api/v1/packs", json=PACK)
    other = api.as_role("core.admin")
    assert other.get("/api/v1/packs/mine").status == 404
    assert other.get("/api/v1/packs").refs == ["core"]
    assert other.put("/api/v1/packs/mine", json={"label": "Yours"}).status == 403
    assert other.delete("/api/v1/packs/mine").status == 403
    assert upload(other, archive(pack="ref: mine\nversion: 2.0.0\n"), force="true").status == 403
    named = api.with_grants(Grant(resource="packs", actions=["read"], constraints={"pack_refs": ["mine"]}))
    assert named.get("/api/v1/packs/mine").status == 200


def test_a_tenant_makes_no_standard_packs(api: Any) -> None:
    created = api.post("/api/v1/packs", json={**PACK, "is_standard": True})
    assert created.status == 201
    assert created.data["is_standard"] is False
    assert "this tenant only" in created.json["message"]
    assert api.as_role("core.viewer").get("/api/v1/packs/mine").status == 200


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"ref": ""}, 422),
        ({"ref": "Upper"}, 422),
        ({"ref": "with.dot"}, 422),
        ({"ref": 5}, 422),
        ({"version": "one"}, 422),
        ({"label": None}, 422),
        ({"tags": "a"}, 422),
        ({"conf_schema": {"a": {"type": "text"}}}, 422),
        ({"ref": "core"}, 409),
    ],
)
def test_bad_bodies(api: Any, change: dict[str, Any], status: int) -> None:
    answer = api.post("/api/v1/packs", json={**PACK, **change})
    assert answer.status == status
    assert answer.json.keys() >= {"error", "code"}
    assert api.get("/api/v1/packs").refs == ["core"]


def test_a_second_pack_of_a_ref_is_a_conflict(api: Any) -> None:
    assert api.post("/api/v1/packs", json=PACK).status == 201
    assert api.post("/api/v1/packs", json=PACK).status == 409


def test_lists_are_paged_and_sorted(api: Any) -> None:
    for ref in ("zeta", "alpha"):
        api.post("/api/v1/packs", json={**PACK, "ref": ref})
    assert api.get("/api/v1/packs").refs == ["alpha", "core", "zeta"]
    page = api.get("/api/v1/packs", params={"page": 2, "page_size": 2})
    assert page.refs == ["zeta"]
    assert page.json["pagination"]["total_items"] == 3
    summary = {"id", "ref", "label", "description", "version", "tags", "is_standard", "created", "updated"}
    assert page.items[0].keys() == summary


def test_who_may_what(api: Any) -> None:
    upload(api)
    nobody, viewer, editor = api.as_role(), api.as_role("core.viewer"), api.as_role("core.editor")
    assert api.anonymous().get("/api/v1/packs").status == 401
    assert nobody.get("/api/v1/packs").refs == ["core"]
    assert nobody.get("/api/v1/packs/core").status == 200
    assert nobody.get("/api/v1/packs/demo").status == 403
    assert viewer.get("/api/v1/packs").refs == ["core", "demo"]
    assert viewer.post("/api/v1/packs", json=PACK).status == 403
    assert upload(viewer).status == 403
    assert upload(editor, force="true").status == 201
    assert editor.delete("/api/v1/packs/demo").status == 403


def test_another_tenants_pack_does_not_exist(api: Any) -> None:
    upload(api)
    elsewhere = api.as_role("core.admin", tenant=f"{api.tenant}-other")
    assert elsewhere.get("/api/v1/packs/demo").status == 404
    assert elsewhere.delete("/api/v1/packs/demo").status == 404
    assert upload(elsewhere).status == 201


def test_a_standard_pack_is_written_by_nobody(api: Any) -> None:
    assert api.put("/api/v1/packs/core", json={"label": "Mine"}).status == 403
    assert api.delete("/api/v1/packs/core").status == 403
    assert upload(api, archive(pack="ref: core\nversion: 9.0.0\n"), force="true").status == 403


# --- change, delete


def test_a_pack_is_changed(api: Any) -> None:
    api.post("/api/v1/packs", json={**PACK, "description": "Old", "tags": ["a"]})
    changed = api.put(
        "/api/v1/packs/mine",
        json={
            "label": "New",
            "description": {"op": "clear"},
            "version": "1.1.0",
            "config": {"a": 1},
            "is_standard": True,
        },
    )
    assert changed.status == 200
    assert less(changed.data) == wire(label="New", version="1.1.0", config={"a": 1}, tags=["a"])
    described = api.put("/api/v1/packs/mine", json={"description": {"op": "set", "value": "Told"}})
    assert described.data["description"] == "Told"
    assert api.put("/api/v1/packs/mine", json={"version": "x"}).status == 422
    assert api.put("/api/v1/packs/gone", json={"label": "x"}).status == 404


def test_a_pack_is_deleted_with_its_components(api: Any) -> None:
    upload(api)
    answer = api.delete("/api/v1/packs/demo")
    assert answer.json == {"message": "Pack 'demo' deleted successfully", "success": True}
    assert api.get("/api/v1/packs/demo").status == 404
    assert api.registry.triggers.list() == []
    assert api.delete("/api/v1/packs/demo").status == 404


def test_secret_configuration_is_for_those_who_configure(api: Any) -> None:
    schema = "config_schema: {url: {type: string}, token: {type: string, secret: true}}\nconfig: {url: u, token: t}\n"
    upload(api, archive(pack=f"ref: demo\nversion: 1.0.0\n{schema}"))
    assert api.get("/api/v1/packs/demo").data["config"] == {"url": "u", "token": "t"}
    assert api.as_role("core.viewer").get("/api/v1/packs/demo").data["config"] == {"url": "u", "token": "********"}


# --- upload


def test_an_upload(api: Any) -> None:
    answer = upload(api, skip_tests="true")
    assert answer.status == 201
    assert answer.data.keys() == {"pack", "test_result", "tests_skipped", "warnings"}
    assert (answer.data["test_result"], answer.data["tests_skipped"], answer.data["warnings"]) == (None, True, [])
    assert less(answer.data["pack"]) == wire(ref="demo", label="demo")
    assert [trigger.ref for trigger in api.registry.triggers.list()] == ["demo.t"]
    assert upload(api).status == 409
    assert upload(api, force="true").status == 201


def test_an_upload_with_flaws(api: Any) -> None:
    data = archive(actions__a="ref: a\nrunner_type: cobol\n")
    refused = upload(api, data, strict="true")
    assert refused.status == 422
    (flaw,) = refused.json["details"]
    assert (flaw["file"], flaw["line"]) == ("actions/a.yaml", 2)
    assert api.get("/api/v1/packs/demo").status == 404
    taken = upload(api, data)
    assert taken.status == 201
    assert taken.data["warnings"] == [flaw]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"not an archive", 400),
        (archives.pack({"readme": b"no manifest"}), 400),
        (archive(pack="ref: [\n"), 400),
        (archive(pack="ref: demo\n"), 422),
        (archive(pack="ref: DEMO\nversion: 1.0.0\n"), 422),
    ],
)
def test_bad_uploads(api: Any, data: bytes, status: int) -> None:
    answer = upload(api, data)
    assert answer.status == status
    assert answer.json.keys() >= {"error", "code"}
    assert api.get("/api/v1/packs").refs == ["core"]


def test_an_upload_without_its_file(api: Any) -> None:
    missing = api.post("/api/v1/packs/upload", fields={"force": "true"}, files={"other": ("x", b"x")})
    assert (missing.status, missing.json["error"]) == (400, "Missing file field 'pack' (a tar.gz archive)")
    assert api.post("/api/v1/packs/upload", fields={"pack": "text"}).status == 400
    assert api.post("/api/v1/packs/upload", json={}).status == 415


def test_nobody_hands_on_more_than_they_have(api: Any) -> None:
    data = archive(rules__r="ref: r\ntrigger_ref: t\naction_ref: a\npermission_set_refs: [core.admin]\n")
    assert upload(api.as_role("core.editor"), data).status == 403
    assert upload(api, data).status == 201


# --- register


@pytest.fixture
def with_packs(api: Any, tmp_path: Path) -> Any:
    """The API of a deployment whose packs folder holds ``good`` and ``empty``."""
    (tmp_path / "packs" / "good").mkdir(parents=True)
    (tmp_path / "packs" / "empty").mkdir()
    (tmp_path / "packs" / "good" / "pack.yaml").write_text("ref: good\nversion: 1.0.0\n")
    (tmp_path / "pack.yaml").write_text("ref: outside\nversion: 1.0.0\n")
    settings = msgspec.structs.replace(api.services.settings, packs_dir=str(tmp_path / "packs"))
    api.services = replace(api.services, settings=settings)
    return api


def register(api: Any, path: str, **options: bool) -> Any:
    return api.post("/api/v1/packs/register", json={"path": path, **options})


def test_a_folder_is_registered(with_packs: Any, tmp_path: Path) -> None:
    answer = register(with_packs, "good")
    assert answer.status == 201
    assert less(answer.data) == wire(ref="good", label="good")
    assert register(with_packs, "good").status == 409
    assert register(with_packs, str(tmp_path / "packs" / "good"), force=True).status == 201


@pytest.mark.parametrize("path", ["gone", "empty", "..", "../", "/etc", "good/../.."])
def test_only_folders_within_the_packs_folder_are_registered(with_packs: Any, path: str) -> None:
    answer = register(with_packs, path)
    assert answer.status == 400
    assert with_packs.get("/api/v1/packs").refs == ["core"]


def test_a_registration_tells_its_flaws(with_packs: Any, tmp_path: Path) -> None:
    (tmp_path / "packs" / "good" / "triggers").mkdir()
    (tmp_path / "packs" / "good" / "triggers" / "t.yaml").write_text("label: x\n")
    assert register(with_packs, "good", strict=True).status == 422
    assert [flaw["file"] for flaw in register(with_packs, "good").data["warnings"]] == ["triggers/t.yaml"]


def test_without_a_packs_folder_nothing_is_registered(api: Any) -> None:
    assert register(api, "good").status == 400


# --- environments


def with_manifest(**more: bytes) -> bytes:
    texts = {"pack.yaml": b"ref: demo\nversion: 1.0.0\n", "requirements.txt": b"colorlib==1.0\n", **more}
    return archives.pack(texts)


def test_a_pack_shows_the_state_of_its_libraries(api: Any) -> None:
    pack = upload(api, with_manifest()).data["pack"]
    (shown,) = pack["environments"]
    assert shown.pop("updated").endswith("Z")
    assert shown.pop("key").startswith("python-")
    assert shown == {"runtime": "python", "state": "pending", "manifest": "requirements.txt"}
    (listed,) = api.get("/api/v1/packs/demo/environments").data
    assert api.get("/api/v1/packs/demo").data["environments"] == [listed]

    registry = api.services.store.tenant(api.tenant).registry
    built = registry.environments.get(listed["key"])
    done = msgspec.structs.replace(built, state="failed", log="no such library", runtime_version="Python 3.12.4")
    registry.commit(Put(done))
    (failed,) = api.get("/api/v1/packs/demo/environments").data
    assert (failed["state"], failed["log"], failed["runtime_version"]) == ("failed", "no such library", "Python 3.12.4")

    again = api.post("/api/v1/packs/demo/environments")
    assert (again.status, again.data[0]["state"]) == (202, "pending")
    assert "log" not in again.data[0]


def test_a_pack_without_libraries_has_no_environments(api: Any) -> None:
    assert "environments" not in upload(api).data["pack"]
    assert api.get("/api/v1/packs/demo/environments").data == []
    assert api.post("/api/v1/packs/demo/environments").data == []


def test_environments_are_shown_and_built_for_whom_the_pack_is(api: Any) -> None:
    upload(api, with_manifest())
    assert api.as_role("core.viewer").get("/api/v1/packs/demo/environments").status == 200
    assert api.as_role("core.viewer").post("/api/v1/packs/demo/environments").status == 403
    elsewhere = api.as_role("core.admin", tenant=f"{api.tenant}-other")
    assert elsewhere.get("/api/v1/packs/demo/environments").status == 404
    assert elsewhere.post("/api/v1/packs/demo/environments").status == 404
    assert api.post("/api/v1/packs/core/environments").status == 403
