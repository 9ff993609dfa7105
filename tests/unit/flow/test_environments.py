"""Environments from the pack's arrival to the runs that use them, with a runner that is a list."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from helpers.fixtures import pack_archive
from unit.flow.world import World

from chalicelib.domain.entities import SYSTEM_TENANT, Environment, Execution
from chalicelib.flow import conductor, environments, executor, packs
from chalicelib.flow.intake import request_execution
from chalicelib.protocol import Build, EnvironmentBuilt, EnvironmentRequested, ExecutionRequested
from chalicelib.services import Services
from chalicelib.store.registry import Delete

pytestmark = pytest.mark.slow

CORE = Path(__file__).parents[3] / "packs" / "core"
WANTS = "colorlib==1.0\n"


def archive(requirements: str | None = WANTS, version: str = "1.0.0", ref: str = "deps") -> bytes:
    files = {
        "pack.yaml": f"ref: {ref}\nname: Q\nversion: {version}\n",
        "actions/show.yaml": f"ref: {ref}.show\nlabel: Show\nrunner_type: python\nentry_point: show.py\n",
        "actions/show.py": "import colorlib\n",
        "actions/sh.yaml": f"ref: {ref}.sh\nlabel: Sh\nrunner_type: shell\nentry_point: show.py\n",
    }
    if requirements is not None:
        files["requirements.txt"] = requirements
    return pack_archive(files)


def install(world: World, *args: Any, **fields: Any) -> Environment | None:
    installed = packs.install(world.services, world.tenant, archive(*args, **fields), force=True)
    assert installed.warnings == []
    found = environments.of_pack(world.store.registry, installed.pack)
    return found[0] if found else None


def current(world: World, environment: Environment) -> Environment:
    found = world.store.registry.environments.get(environment.ref)
    assert found is not None
    return found


def begin(world: World) -> Build:
    """Deliver the newest request for an environment; returns the build that the runner got."""
    message, _ = world.queues.environments[-1]
    assert executor.handle(world.services, [message]) == []
    return world.runner.builds[-1]


def report(build: Build, *, ready: bool = True, **fields: Any) -> str:
    built = EnvironmentBuilt(
        tenant=build.tenant,
        environment=build.environment,
        attempt=build.attempt,
        token=build.token,
        ready=ready,
        **{"log": "the installer's words", "content": "c" * 64, "size": 7, **fields},
    )
    return msgspec.json.encode(built).decode()


def lost(build: Build, **response: Any) -> dict[str, Any]:
    return {"requestPayload": msgspec.to_builtins(build), "responsePayload": response or None}


def execute(world: World, ref: str = "deps.show") -> tuple[int, ExecutionRequested]:
    action = world.store.registry.actions.get(ref)
    assert action is not None
    execution = request_execution(world.services, world.tenant, action, parameters={})
    return execution.id, world.requests[-1]


def stored(world: World, id_: int) -> Execution:
    found = world.activity.get_execution(id_)
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def core(services: Services) -> None:
    packs.install(services, SYSTEM_TENANT, packs.read_directory(CORE), visibility="standard", force=True)


@pytest.fixture
def pending(world: World) -> Environment:
    environment = install(world)
    assert environment is not None
    return environment


def test_a_pack_that_arrives_has_its_libraries_built(world: World, pending: Environment) -> None:
    assert (pending.state, pending.attempt, pending.runtime, pending.manifest) == (
        "pending",
        0,
        "python",
        "requirements.txt",
    )
    build = begin(world)
    pack = world.store.registry.packs.get("deps")
    assert pack is not None
    assert (build.tenant, build.environment, build.attempt) == (world.tenant, pending.ref, 1)
    assert (build.runtime, build.manifest, build.pack.content) == ("python", "requirements.txt", pack.content)
    assert build.upload.fields["key"].startswith(f"{world.tenant}/environments/{pending.ref}/")
    assert conductor.handle(world.services, [report(build)]) == []
    ready = current(world, pending)
    assert (ready.state, ready.content, ready.size, ready.deadline) == ("ready", "c" * 64, 7, None)


def test_a_pack_without_manifest_has_nothing_built(world: World) -> None:
    assert install(world, None) is None
    assert world.queues.environments == []
    _, request = execute(world)
    executor.handle(world.services, [request])
    assert world.runner.runs[-1].libraries is None


def test_a_request_that_comes_twice_starts_one_build(world: World, pending: Environment) -> None:
    begin(world)
    begin(world)
    begin(world)
    assert len(world.runner.builds) == 1


def test_executions_wait_without_using_up_an_attempt(world: World, pending: Environment) -> None:
    id_, request = execute(world)
    delays = []
    for _ in range(4):
        assert executor.handle(world.services, [request]) == []
        message, delay = world.queues.requested[-1]
        assert message == request
        delays.append(delay)
        world.clock.advance(seconds=20)
    assert (stored(world, id_).status, stored(world, id_).attempt) == ("requested", 0)
    assert delays == sorted(delays)
    assert (delays[0], delays[-1]) == (1, 15)
    conductor.handle(world.services, [report(begin(world))])
    executor.handle(world.services, [request])
    (run,) = world.runner.runs
    assert run.attempt == 1
    assert run.libraries is not None
    assert (run.libraries.ref, run.libraries.content) == (pending.ref, "c" * 64)
    assert f"{world.tenant}/environments/{pending.ref}/" in run.libraries.url


def test_only_actions_of_the_manifests_runtime_wait(world: World, pending: Environment) -> None:
    _, request = execute(world, "deps.sh")
    executor.handle(world.services, [request])
    (run,) = world.runner.runs
    assert run.libraries is None


def test_what_failed_fails_executions_with_the_installers_words(world: World, pending: Environment) -> None:
    conductor.handle(world.services, [report(begin(world), ready=False)])
    failed = current(world, pending)
    assert (failed.state, failed.log, failed.content) == ("failed", "the installer's words", None)
    id_, request = execute(world)
    executor.handle(world.services, [request])
    ended = stored(world, id_)
    assert (ended.status, ended.attempt, ended.started_at) == ("failed", 0, None)
    assert ended.result["error"] == (
        "the libraries of pack deps could not be installed from requirements.txt: the installer's words"
    )


def test_a_pack_that_comes_again_tries_again_what_failed_and_only_that(world: World, pending: Environment) -> None:
    conductor.handle(world.services, [report(begin(world), ready=False)])
    again = install(world, WANTS, "1.0.1")
    assert again is not None
    assert (again.ref, again.state, again.attempt, again.log) == (pending.ref, "pending", 0, "")
    conductor.handle(world.services, [report(begin(world))])
    sent = len(world.queues.environments)
    third = install(world, WANTS, "1.0.2")
    assert third is not None
    assert third.state == "ready"
    assert len(world.queues.environments) == sent


@pytest.mark.parametrize("forged", [{"token": "guessed"}, {"attempt": 2}, {"environment": "another"}])
def test_a_report_that_is_not_of_the_current_attempt_is_dropped(
    world: World, pending: Environment, forged: dict[str, Any]
) -> None:
    build = msgspec.structs.replace(begin(world), **forged)
    assert conductor.handle(world.services, [report(build)]) == []
    assert current(world, pending).state == "pending"


def test_a_build_that_dies_is_repeated_once(world: World, pending: Environment) -> None:
    first = begin(world)
    conductor.take_back(world.services, lost(first))
    second = begin(world)
    assert (second.attempt, second.token != first.token) == (2, True)
    assert second.upload.fields["key"] != first.upload.fields["key"], "a straggler overwrites nothing"
    assert conductor.handle(world.services, [report(first)]) == []
    conductor.take_back(world.services, lost(first))
    assert current(world, pending).state == "pending", "the first attempt has no say any more"
    conductor.take_back(world.services, lost(second))
    executor.handle(world.services, [world.queues.environments[-1][0]])
    failed = current(world, pending)
    assert (failed.state, failed.log) == ("failed", environments.LOST)
    assert len(world.runner.builds) == 2


def test_a_build_that_goes_silent_is_found_at_its_deadline(world: World, pending: Environment) -> None:
    begin(world)
    watch, delay = world.queues.environments[-1]
    assert environments.BUILD_SECONDS < delay <= 900
    world.clock.advance(seconds=delay)
    executor.handle(world.services, [watch])
    assert world.runner.builds[-1].attempt == 2
    watch, delay = world.queues.environments[-1]
    world.clock.advance(seconds=delay)
    executor.handle(world.services, [watch])
    assert current(world, pending).state == "failed"


def test_a_build_under_way_is_watched_by_whatever_message_comes(world: World, pending: Environment) -> None:
    begin(world)
    world.clock.advance(seconds=300)
    begin(world)
    _, delay = world.queues.environments[-1]
    deadline = current(world, pending).deadline
    assert deadline is not None
    assert world.clock() + timedelta(seconds=delay) > deadline


def test_a_build_that_lambda_has_no_room_for_uses_up_no_attempt(world: World, pending: Environment) -> None:
    for _ in range(3):
        build = begin(world)
        assert build.attempt == 1
        conductor.take_back(world.services, lost(build, errorType="TooManyRequestsException"))
        _, delay = world.queues.environments[-1]
        assert delay == conductor.THROTTLED_DELAY
    conductor.handle(world.services, [report(begin(world))])
    assert current(world, pending).state == "ready"


def test_an_invocation_that_fails_gives_the_claim_back(world: World, pending: Environment) -> None:
    world.runner.error = ConnectionError("no way through")
    message, _ = world.queues.environments[-1]
    assert executor.handle(world.services, [message]) == [0]
    world.runner.error = None
    assert executor.handle(world.services, [message]) == []
    assert world.runner.builds[-1].attempt == 1


def test_an_environment_that_nobody_asked_for_is_asked_for_by_its_first_run(world: World, pending: Environment) -> None:
    world.store.registry.commit(Delete("environment", pending.ref))
    sent = len(world.queues.environments)
    _, request = execute(world)
    executor.handle(world.services, [request, request])
    assert len(world.queues.environments) == sent + 1
    assert current(world, pending).pack_ref == "deps"
    begin(world)


def test_another_interpreter_needs_another_environment(
    world: World, pending: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    conductor.handle(world.services, [report(begin(world))])
    monkeypatch.setattr(environments.sysconfig, "get_platform", lambda: "linux-of-tomorrow")
    id_, request = execute(world)
    executor.handle(world.services, [request])
    assert stored(world, id_).status == "requested"
    assert "linux-of-tomorrow" in world.queues.environments[-1][0].ref


def test_tenants_have_environments_of_their_own(world: World, pending: Environment) -> None:
    conductor.handle(world.services, [report(begin(world))])
    other = World(world.services)
    theirs = install(other)
    assert theirs is not None
    assert (theirs.ref, theirs.state) == (pending.ref, "pending")
    assert begin(other).tenant == other.tenant


def test_standard_packs_are_built_once_for_all_tenants(world: World) -> None:
    ref = f"std{world.tenant.replace('-', '')}"
    packs.install(world.services, SYSTEM_TENANT, archive(ref=ref), visibility="standard", force=True)
    build = begin(world)
    assert build.tenant == SYSTEM_TENANT
    conductor.handle(world.services, [report(build)])
    for tenant in (world, World(world.services)):
        action = tenant.services.snapshots.of(tenant.tenant).action(f"{ref}.show")
        request_execution(tenant.services, tenant.tenant, action, parameters={})
        executor.handle(tenant.services, [tenant.requests[-1]])
        libraries = tenant.runner.runs[-1].libraries
        assert libraries is not None
        assert f"/{SYSTEM_TENANT}/environments/" in libraries.url


def test_a_message_for_what_is_gone_is_done(world: World) -> None:
    message = EnvironmentRequested(tenant=world.tenant, ref="python-none")
    assert executor.handle(world.services, [message]) == []
