import io
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from chalicelib import clients
from chalicelib.domain import archives
from chalicelib.domain.archives import ArchiveError
from chalicelib.domain.entities import SYSTEM_TENANT, Grant, Key, Rule
from chalicelib.domain.packs import PackError
from chalicelib.domain.permissions import DEFAULT_SETS, Access
from chalicelib.flow import packs
from chalicelib.flow.packs import Installed
from chalicelib.services import Services
from chalicelib.store.registry import Put, Registry

pytestmark = pytest.mark.slow

CORE = Path(__file__).parents[3] / "packs" / "core"
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def core(services: Services) -> None:
    packs.install(services, SYSTEM_TENANT, packs.read_directory(CORE), visibility="standard", force=True)


def files(**more: str) -> dict[str, bytes]:
    """A small pack; file names are written with ``__`` for the slash and without ``.yaml``, '' leaves one out."""
    texts = {
        "pack": "ref: demo\nversion: 1.0.0\n",
        "triggers__t": "ref: t\n",
        "actions__a": "ref: a\nentry_point: run.sh\n",
        "rules__r": "ref: r\ntrigger_ref: t\naction_ref: a\n",
        **more,
    }
    named = {f"{name.replace('__', '/')}.yaml": text.encode() for name, text in texts.items() if text}
    return {"actions/run.sh": b"#!/bin/sh\n", **named}


def install(services: Services, tenant: str = "acme", *, content: Any = None, **options: Any) -> Installed:
    return packs.install(services, tenant, files() if content is None else content, installed_by=7, **options)


def registry(services: Services, tenant: str = "acme") -> Registry:
    return services.store.tenant(tenant).registry


def held(services: Services) -> dict[str, str]:
    """Every row of the registry, to see that nothing changed."""
    rows = clients.dynamodb().scan(TableName="registry")["Items"]
    return {f"{row['pk']}/{row['sk']}": str(row) for row in rows}


def key(services: Services, ref: str, **owner: Any) -> Put:
    return Put(Key(id=services.new_id(), ref=ref, name=ref, sealed="?", created=NOW, updated=NOW, **owner), new=True)


def rule_of_another_pack(services: Services) -> Put:
    demo = registry(services).actions.get("demo.a")
    rule = Rule(
        id=services.new_id(), ref="other.r", pack=1, pack_ref="other", label="r", action_ref="demo.a",
        action=demo.id if demo else None, trigger_ref="core.alert", created=NOW, updated=NOW,
    )  # fmt: skip
    return Put(rule, new=True)


# --- the core pack


def test_the_core_pack_with_its_permission_sets(services: Services) -> None:
    system = registry(services, SYSTEM_TENANT)
    core = system.packs.get("core")
    assert core is not None
    assert core.is_standard
    assert {each.ref: tuple(each.grants) for each in system.permission_sets.list()} == dict(DEFAULT_SETS)
    assert [each.ref for each in system.runtimes.list()] == [
        "core.container", "core.http", "core.native", "core.nodejs", "core.python", "core.shell",
    ]  # fmt: skip
    echo = registry(services).actions.find("core.echo")
    assert echo is not None
    assert (echo.pack, echo.runtime_ref, echo.content) == (core.id, "core.python", core.content)


def test_loading_the_core_pack_again_writes_nothing(services: Services) -> None:
    before = held(services)
    again = packs.install(services, SYSTEM_TENANT, packs.read_directory(CORE), visibility="standard", force=True)
    assert again.warnings == []
    assert held(services) == before


# --- installing


def test_a_pack_and_its_archive_are_stored(services: Services) -> None:
    installed = install(services)
    assert installed.warnings == []
    assert installed.counts == {
        "permission_sets": 0, "runtimes": 0, "triggers": 1, "workflows": 0, "actions": 1, "rules": 1, "sensors": 0,
    }  # fmt: skip
    pack = registry(services).packs.get("demo")
    assert pack is not None
    assert (pack.visibility, pack.installed_by) == ("tenant", 7)
    action = registry(services).actions.get("demo.a")
    assert action is not None
    assert action.content == pack.content is not None
    archive = services.store.tenant("acme").blobs.get(packs.archive_name(pack.content))
    assert archives.digest(archive) == pack.content
    assert archives.unpack(archive) == files()


def test_the_archives_origin_does_not_matter(services: Services) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in reversed(files().items()):
            member = tarfile.TarInfo(f"demo-main/{name}")
            member.size, member.mtime = len(content), 1_700_000_000
            tar.addfile(member, io.BytesIO(content))
    by_upload = install(services, content=packed.getvalue())
    by_files = install(services, tenant="other")
    assert by_upload.pack.content == by_files.pack.content


def test_an_existing_pack_needs_force(services: Services) -> None:
    first = install(services)
    before = held(services)
    with pytest.raises(packs.PackExistsError):
        install(services)
    assert held(services) == before
    again = install(services, force=True)
    assert again.pack.id == first.pack.id


def test_reinstalling_removes_what_is_gone_with_its_keys(services: Services) -> None:
    install(services)
    registry(services).commit(
        key(services, "of.a", owner_type="action", owner_action_ref="demo.a"),
        key(services, "of.demo", owner_type="pack", owner_pack_ref="demo"),
        rule_of_another_pack(services),
    )
    install(services, content=files(actions__a="", rules__r=""), force=True)
    assert registry(services).actions.list() == []
    assert [rule.ref for rule in registry(services).rules.list()] == ["other.r"]
    orphan = registry(services).rules.get("other.r")
    assert orphan is not None
    assert (orphan.action_ref, orphan.action) == ("demo.a", None)
    assert [each.ref for each in registry(services).keys.list()] == ["of.demo"]
    install(services, force=True)
    found = registry(services).rules.get("other.r")
    action = registry(services).actions.get("demo.a")
    assert found is not None
    assert action is not None
    assert found.action == action.id


def test_configuration_and_visibility_survive(services: Services) -> None:
    manifest = "ref: demo\nversion: 1.0.0\nconfig: {url: default}\n"
    installed = install(services, content=files(pack=manifest), visibility="private")
    assert installed.pack.config == {"url": "default"}
    stored = registry(services).packs.get("demo")
    assert stored is not None
    registry(services).commit(Put(type(stored)(**{**_fields(stored), "config": {"url": "mine"}})))
    again = install(services, content=files(pack=manifest.replace("1.0.0", "2.0.0")), force=True)
    assert (again.pack.config, again.pack.visibility, again.pack.version) == ({"url": "mine"}, "private", "2.0.0")


def _fields(entity: Any) -> dict[str, Any]:
    return {name: getattr(entity, name) for name in entity.__struct_fields__}


def test_a_broken_component_is_left_out_and_told(services: Services) -> None:
    installed = install(services, content=files(triggers__broken="ref: [\n"))
    assert [(flaw.file, flaw.line) for flaw in installed.warnings] == [("triggers/broken.yaml", 2)]
    assert registry(services).triggers.get("demo.t") is not None


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        ({"pack": "ref: [\n"}, PackError),
        ({"pack": "ref: demo\n"}, PackError),
        ({"pack": ""}, PackError),
        ({"triggers__broken": "ref: [\n"}, packs.StrictError),
        ({"rules__r": "ref: r\ntrigger_ref: t\naction_ref: gone.a\n"}, packs.StrictError),
        ({"pack": "ref: core\nversion: 9.9.9\n"}, packs.StandardPackError),
    ],
)
def test_a_refused_pack_leaves_the_store_as_it_was(
    services: Services, broken: dict[str, str], error: type[Exception]
) -> None:
    install(services)
    before = held(services)
    with pytest.raises(error):
        install(services, content=files(**broken), strict=True, force=True)
    assert held(services) == before
    objects = clients.s3().list_objects_v2(Bucket=services.settings.bucket, Prefix="acme/")["Contents"]
    assert len(objects) == 1


def test_a_broken_archive_is_refused(services: Services) -> None:
    with pytest.raises(ArchiveError):
        install(services, content=b"no archive")


def test_the_private_pack_of_somebody_else_is_not_replaced(services: Services) -> None:
    install(services, visibility="private")
    stranger = Access(DEFAULT_SETS["core.admin"], identity_id=8)
    with pytest.raises(packs.HiddenPackError):
        install(services, force=True, access=stranger)
    assert install(services, force=True, access=Access(DEFAULT_SETS["core.admin"], identity_id=7))


def test_nobody_hands_on_more_than_they_have(services: Services) -> None:
    powerful = files(
        permission_sets__p="ref: p\ngrants: [{resource: keys, actions: [delete]}]\n",
        actions__a="ref: a\nentry_point: run.sh\ndefault_execution_permission_set_refs: [standard, demo.p]\n",
    )
    before = held(services)
    for sets in (
        powerful,
        files(rules__r="ref: r\ntrigger_ref: t\naction_ref: a\npermission_set_refs: [core.admin]\n"),
    ):
        with pytest.raises(packs.DelegationError):
            install(services, content=sets, access=Access(DEFAULT_SETS["core.editor"], identity_id=7))
    assert held(services) == before
    admin = Access([*DEFAULT_SETS["core.admin"], Grant(resource="keys", actions=["delete"])], identity_id=7)
    assert install(services, content=powerful, access=admin)


def test_rules_do_not_reach_into_the_private_pack_of_somebody_else(services: Services) -> None:
    install(services, visibility="private")
    rule = "ref: r\ntrigger_ref: core.alert\naction_ref: demo.a\n"
    source = files(pack="ref: mine\nversion: 1.0.0\n", rules__r=rule)
    with pytest.raises(packs.DelegationError):
        install(services, content=source, access=Access(DEFAULT_SETS["core.admin"], identity_id=8))
    assert install(services, content=source, access=Access(DEFAULT_SETS["core.admin"], identity_id=7))


def test_a_pack_of_more_rows_than_a_transaction_takes(services: Services) -> None:
    many = {f"triggers__t{number}": f"ref: t{number}\n" for number in range(150)}
    assert install(services, content=files(**many)).counts["triggers"] == 151
    assert len(registry(services).triggers.list()) == 151
    install(services, force=True)
    assert [trigger.ref for trigger in registry(services).triggers.list()] == ["demo.t"]


# --- deleting


def test_a_pack_goes_with_all_that_is_its(services: Services) -> None:
    before = set(held(services))
    installed = install(services)
    registry(services).commit(
        key(services, "of.a", owner_type="action", owner_action_ref="demo.a"),
        key(services, "of.demo", owner_type="pack", owner_pack_ref="demo"),
        key(services, "of.all", owner_type="system"),
        rule_of_another_pack(services),
    )
    packs.delete(services, "acme", installed.pack)
    left = set(held(services)) - before
    assert [each.ref for each in registry(services).keys.list()] == ["of.all"]
    orphan = registry(services).rules.get("other.r")
    assert orphan is not None
    assert (orphan.action_ref, orphan.action) == ("demo.a", None)
    assert not [name for name in left if "demo" in name]


# --- folders


def test_a_folder_with_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pack.yaml").write_text("ref: demo\nversion: 1.0.0\n")
    (tmp_path / "secret").symlink_to("/etc/hostname")
    with pytest.raises(ArchiveError, match="link"):
        packs.read_directory(tmp_path)


def test_a_folder_is_read_like_an_archive(tmp_path: Path) -> None:
    for name, content in files().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("debris")
    assert packs.read_directory(tmp_path) == files()


# --- workflows

FLOW = "version: 1.0.0\ntasks:\n- name: greet\n  action: demo.a\n"


def test_workflows_come_and_go_with_their_pack(services: Services) -> None:
    installed = install(
        services, content=files(workflows__flow=FLOW, rules__r="ref: r\ntrigger_ref: t\naction_ref: flow\n")
    )
    assert installed.warnings == []
    assert (installed.counts["workflows"], installed.counts["actions"]) == (1, 2)
    workflow, action = registry(services).workflows.get("demo.flow"), registry(services).actions.get("demo.flow")
    assert workflow is not None
    assert action is not None
    assert (workflow.id, workflow.version, workflow.is_adhoc) == (action.workflow_def, "1.0.0", False)
    rule = registry(services).rules.get("demo.r")
    assert rule is not None
    assert rule.action == action.id
    install(services, force=True)
    assert registry(services).workflows.list() == []
    assert [each.ref for each in registry(services).actions.list()] == ["demo.a"]
    again = install(services, content=files(workflows__flow=FLOW), force=True)
    packs.delete(services, "acme", again.pack)
    assert registry(services).workflows.list() == registry(services).actions.list() == []


def test_a_broken_workflow_is_left_out_or_refuses_all(services: Services) -> None:
    broken = files(workflows__flow=FLOW + "  next:\n  - do: [nowhere]\n")
    with pytest.raises(packs.StrictError):
        install(services, content=broken, strict=True)
    installed = install(services, content=broken)
    assert [(flaw.file, flaw.line) for flaw in installed.warnings] == [("workflows/flow.yaml", 6)]
    assert [each.ref for each in registry(services).actions.list()] == ["demo.a"]


def test_workflows_hand_on_no_more_than_whoever_installs_them_may(services: Services) -> None:
    powerful = files(workflows__flow=FLOW + "  permission_set_refs: core.admin\n")
    with pytest.raises(packs.DelegationError):
        install(services, content=powerful, access=Access(DEFAULT_SETS["core.editor"]))
    assert install(services, content=powerful, access=Access(DEFAULT_SETS["core.admin"]))


def test_workflows_do_not_reach_into_the_private_pack_of_somebody_else(services: Services) -> None:
    install(services, visibility="private")
    source = files(pack="ref: mine\nversion: 1.0.0\n", workflows__flow=FLOW, triggers__t="", actions__a="", rules__r="")
    with pytest.raises(packs.DelegationError):
        install(services, content=source, access=Access(DEFAULT_SETS["core.admin"], identity_id=8))
    assert install(services, content=source, access=Access(DEFAULT_SETS["core.admin"], identity_id=7))
