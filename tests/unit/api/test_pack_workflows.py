"""The workflows in a pack's files, over HTTP."""

from typing import Any

import pytest
from unit.api.resources import created, make_pack

from chalicelib.domain import archives

pytestmark = pytest.mark.slow

FLOW = "version: 1.0.0\ntasks:\n- name: greet\n  action: core.noop\n"
BROKEN = "tasks:\n- name: greet\n  action: core.noop\n  next:\n  - do: nowhere\n"


def upload(api: Any, **files: str) -> Any:
    named = {f"{name.replace('__', '/')}.yaml": text.encode() for name, text in files.items()}
    archive = archives.pack({"pack.yaml": b"ref: demo\nversion: 1.0.0\n", **named})
    answer = api.post("/api/v1/packs/upload", files={"pack": ("p.tar.gz", archive)}, fields={"force": "true"})
    return created(answer)


def test_a_pack_brings_workflows(api: Any) -> None:
    uploaded = upload(api, workflows__flow=FLOW, workflows__broken=BROKEN)
    flaws = {(flaw["file"], flaw["line"]) for flaw in uploaded["warnings"]}
    assert ("workflows/broken.yaml", 5) in flaws
    assert api.get("/api/v1/packs/demo/workflows").refs == ["demo.flow"]
    assert api.get("/api/v1/actions/demo.flow").data["entrypoint"] == "workflows/flow.yaml"


def test_a_sync_brings_back_what_the_files_say(api: Any) -> None:
    upload(api, workflows__flow=FLOW, workflows__gone=FLOW, workflows__broken=BROKEN)
    before = api.get("/api/v1/workflows/demo.flow").data
    other = {"tasks": [{"name": "other", "action": "core.noop"}]}
    assert api.put("/api/v1/workflows/demo.flow", json={"definition": other}).status == 200
    assert api.delete("/api/v1/workflows/demo.gone").status == 200
    answer = api.post("/api/v1/packs/demo/workflows/sync")
    assert answer.status == 200, answer.json
    synced = answer.data
    assert (synced["loaded_count"], synced["registered_count"]) == (3, 2)
    assert [(each["ref_name"], each["created"]) for each in synced["workflows"]] == [
        ("demo.flow", False), ("demo.gone", True),
    ]  # fmt: skip
    assert synced["workflows"][0]["workflow_def_id"] == before["id"]
    assert "does not exist yet" in synced["workflows"][0]["warnings"][0]  # there is no core.noop in these tests
    assert len(synced["errors"]) == 1
    assert synced["errors"][0].startswith("workflows/broken.yaml: line 5: ")
    assert api.get("/api/v1/workflows/demo.flow").data["definition"] == before["definition"]
    assert api.get("/api/v1/actions/demo.gone").status == 200


def test_a_check_changes_nothing(api: Any) -> None:
    upload(
        api, workflows__flow=FLOW, workflows__broken=BROKEN, actions__inline="ref: inline\nworkflow_definition: {}\n"
    )
    body = {"ref": "demo.made", "pack_ref": "demo", "label": "M", "version": "1", "definition": {"tasks": []}}
    body["definition"] = {"tasks": [{"name": "a", "action": "core.noop"}]}
    created(api.post("/api/v1/workflows", json=body))
    answer = api.post("/api/v1/packs/demo/workflows/validate")
    assert answer.status == 200, answer.json
    assert (answer.data["validated_count"], answer.data["error_count"]) == (4, 2)
    assert set(answer.data["errors"]) == {"workflows/broken.yaml", "actions/inline.yaml"}


def test_a_pack_without_files_has_nothing_to_sync(api: Any) -> None:
    make_pack(api)
    empty = {"pack_ref": "mine", "loaded_count": 0, "registered_count": 0, "workflows": [], "errors": []}
    assert api.post("/api/v1/packs/mine/workflows/sync").data == empty
    assert api.post("/api/v1/packs/mine/workflows/validate").data["validated_count"] == 0


def test_who_may(api: Any) -> None:
    make_pack(api)
    viewer = api.as_role("core.viewer")
    assert viewer.post("/api/v1/packs/mine/workflows/sync").status == 403
    assert viewer.post("/api/v1/packs/mine/workflows/validate").status == 200
    assert api.post("/api/v1/packs/none/workflows/sync").status == 404
    assert api.post("/api/v1/packs/core/workflows/sync").status == 403
