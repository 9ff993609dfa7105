"""The files of actions made by API: the wire, who may, and what is stored."""

import hashlib
from typing import Any

import msgspec
import pytest
from unit.api.resources import make_action, make_pack

from chalicelib.domain import archives
from chalicelib.domain.entities import Action
from chalicelib.store.registry import Put

URL = "/api/v1/actions/mine.greet/files"
MAIN = b"from lib.names import name\nprint(name)\n"
NAMES = b"name = 'x'\n"


@pytest.fixture(autouse=True)
def action(api: Any) -> Any:
    make_pack(api)
    created = make_action(api)
    give_runtime(api, "core.python")
    return created


def give_runtime(api: Any, runtime_ref: str, **fields: Any) -> None:
    """As a deployment with the core pack would have it."""
    stored = api.registry.actions.get("mine.greet")
    api.registry.commit(Put(msgspec.structs.replace(stored, runtime_ref=runtime_ref, **fields)))


def stored(api: Any) -> Action:
    found: Action = api.registry.actions.get("mine.greet")
    return found


def post(api: Any, *files: tuple[str, bytes], **fields: str) -> Any:
    return api.post(URL, fields=fields, files={f"file{number}": file for number, file in enumerate(files)})


def test_files_are_stored_as_one_archive_by_its_content(api: Any) -> None:
    answer = post(api, ("main.py", MAIN), ("lib/names.py", NAMES), entrypoint="main.py")
    assert answer.status == 201
    listed = [
        {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for path, content in (("lib/names.py", NAMES), ("main.py", MAIN))
    ]
    action = stored(api)
    assert answer.data == {"ref": "mine.greet", "entrypoint": "main.py", "content": action.content, "files": listed}
    assert api.get(URL).data == answer.data
    archive = api.services.store.tenant(api.tenant).blobs.get(f"packs/{action.content}.tar.gz")
    assert archives.contents(archive) == {"main.py": MAIN, "lib/names.py": NAMES}
    assert archives.digest(archive) == action.content
    again = post(api, ("lib/names.py", NAMES), ("main.py", MAIN))
    assert again.data["content"] == action.content, "the same files are the same content"


def test_a_lone_file_needs_no_name_and_others_can_be_added(api: Any) -> None:
    assert post(api, ("main.py", MAIN)).data["entrypoint"] == "main.py"
    added = post(api, ("lib/names.py", NAMES), keep="true")
    assert [file["path"] for file in added.data["files"]] == ["lib/names.py", "main.py"]
    assert post(api, ("other.py", MAIN)).data["files"][0]["path"] == "other.py", "without keep they replace"


def test_the_entrypoint_is_one_of_the_files(api: Any) -> None:
    missing = post(api, ("a.py", MAIN), ("b.py", NAMES), entrypoint="c.py")
    assert missing.status == 422
    assert "'c.py'" in missing.json["error"]
    assert stored(api).content is None
    post(api, ("a.py", MAIN), ("b.py", NAMES), entrypoint="a.py")
    assert api.put("/api/v1/actions/mine.greet", json={"entrypoint": "print(1)"}).status == 422
    assert api.put("/api/v1/actions/mine.greet", json={"entrypoint": "b.py"}).data["entrypoint"] == "b.py"


def test_without_its_files_the_action_is_what_its_entrypoint_was(api: Any) -> None:
    assert api.get(URL).data["files"] == []
    post(api, ("main.py", MAIN), ("lib/names.py", NAMES), entrypoint="main.py")
    assert api.delete(URL).status == 200
    assert (stored(api).content, stored(api).entrypoint) == (None, MAIN.decode())
    assert api.get(URL).data["files"] == []


@pytest.mark.parametrize(
    "name", ["../up.py", "/etc/passwd", "a//../../b", "x" * 300, "tab\there", "a\\b"], ids=lambda name: name[:10]
)
def test_a_name_that_leads_elsewhere_is_refused(api: Any, name: str) -> None:
    assert post(api, (name, MAIN)).status == 400
    assert stored(api).content is None


def test_bad_forms_are_refused(api: Any) -> None:
    assert api.post(URL, fields={"entrypoint": "x"}).status == 400
    assert post(api, ("a.py", MAIN), ("a.py", NAMES)).status == 400
    assert post(api, ("a", MAIN), ("a/b.py", NAMES)).status == 400
    assert api.post(URL, json={"files": []}).status in (400, 415)
    assert api.post("/api/v1/actions/mine.none/files", files={"f": ("a.py", MAIN)}).status == 404


def test_only_programs_made_by_api_have_files(api: Any) -> None:
    give_runtime(api, "core.http")
    assert post(api, ("a.py", MAIN)).status == 409
    give_runtime(api, "core.python", is_adhoc=False)
    assert post(api, ("a.py", MAIN)).status == 409
    assert api.get(URL).data == {
        "ref": "mine.greet",
        "entrypoint": stored(api).entrypoint,
        "content": None,
        "files": [],
    }


def test_who_may_not_update_the_action_may_not_change_its_files(api: Any) -> None:
    viewer = api.as_role("core.viewer")
    assert post(viewer, ("a.py", MAIN)).status in (403, 404)
    assert api.as_role("core.executor").delete(URL).status in (403, 404)
    give_runtime(api, "core.python", default_execution_permission_set_refs=["core.admin"])
    assert post(api.as_role("core.editor"), ("a.py", MAIN)).status in (403, 404)
    assert stored(api).content is None


def test_a_manifest_among_the_files_asks_for_libraries(api: Any) -> None:
    post(api, ("main.py", MAIN), ("requirements.txt", b"left-pad==1.0\n"), entrypoint="main.py")
    assert stored(api).manifest is not None
    assert [message["kind"] for message in api.sent("executions")] == ["environment"]
    (environment,) = api.registry.environments.list()
    assert environment.pack_content == stored(api).content
    post(api, ("main.py", MAIN))
    assert stored(api).manifest is None
