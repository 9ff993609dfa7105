"""What the tasks of a workflow run are given of each other's files."""

import gzip

import msgspec
import pytest
from unit.flow.world import World

from chalicelib.flow import artifacts, conductor, executor
from chalicelib.flow.artifacts import MERGED_AT
from chalicelib.flow.intake import request_execution
from chalicelib.protocol import Run, RunFinished
from chalicelib.store.artifacts import Manifest

ROOT = 4711


def task(world: World, root: int | None = ROOT) -> Run:
    request_execution(world.services, world.tenant, world.action, parameters={}, root=root)
    executor.handle(world.services, [world.requests[-1]])
    return world.runner.runs[-1]


def left(world: World, run: Run, content: bytes = b"x", **fields: object) -> None:
    """The run uploads and reports."""
    assert run.artifacts is not None
    name = run.artifacts.upload.fields["key"].removeprefix(f"{world.tenant}/")
    world.store.blobs.put(name, content)
    finished = RunFinished(
        tenant=run.tenant,
        execution=run.execution,
        attempt=run.attempt,
        status="completed",
        result={},
        artifacts=len(content),
        **{"token": run.token} | fields,
    )
    world.clock.advance(seconds=1)
    conductor.handle(world.services, [msgspec.json.encode(finished).decode()])


def names(run: Run) -> list[str]:
    assert run.artifacts is not None
    return [url.partition("?")[0].rpartition("/")[2] for url in run.artifacts.archives]


def test_a_run_without_a_workflow_shares_nothing(world: World) -> None:
    assert task(world, root=None).artifacts is None


def test_a_task_finds_what_those_before_it_left_in_their_order(world: World) -> None:
    first = task(world)
    assert names(first) == []
    left(world, first)
    second, third = task(world), task(world)
    left(world, third)
    left(world, second)

    assert names(task(world)) == [f"{run.execution}-1.tar.gz" for run in (first, third, second)]
    assert names(task(world, root=ROOT + 1)) == [], "another workflow run finds nothing of it"


def test_it_may_put_one_file_in_one_place(world: World) -> None:
    run = task(world)
    assert run.artifacts is not None

    upload = run.artifacts.upload

    assert upload.fields["key"] == f"{world.tenant}/artifacts/{ROOT}/{run.execution}-1.tar.gz"
    assert upload.most == artifacts.MAX_WRITTEN


def test_the_room_shrinks_with_what_is_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "MAX_WRITTEN", 10)
    rooms = []
    for _ in range(3):
        run = task(world)
        assert run.artifacts is not None
        rooms.append(run.artifacts.upload.most)
        left(world, run, b"123456")

    assert rooms == [10, 4, 0]


@pytest.mark.parametrize("fields", [{"token": "stolen"}, {"attempt": 2}])
def test_nobody_else_can_leave_something_in_its_name(world: World, fields: dict[str, object]) -> None:
    run = task(world)
    assert run.artifacts is not None
    finished = RunFinished(
        tenant=run.tenant,
        execution=run.execution,
        status="completed",
        artifacts=5,
        **{"token": run.token, "attempt": 1} | fields,
    )

    conductor.handle(world.services, [msgspec.json.encode(finished).decode()])

    assert world.store.artifacts.of(ROOT) == Manifest()


def test_many_become_one(world: World) -> None:
    runs = [task(world) for _ in range(2 * MERGED_AT + 1)]
    for number, run in enumerate(runs):
        left(world, run, gzip.compress(f"{number:03d}".encode()))

    found = world.store.artifacts.of(ROOT)
    assert found.base is not None
    assert [archive.name for archive in found.recent] == [f"{runs[-1].execution}-1.tar.gz"]
    merged = world.store.blobs.get(f"artifacts/{ROOT}/{found.base.name}")
    assert gzip.decompress(merged) == b"".join(f"{number:03d}".encode() for number in range(2 * MERGED_AT))
    assert names(task(world)) == [found.base.name, f"{runs[-1].execution}-1.tar.gz"]


def test_who_merges_too_late_changes_nothing(world: World) -> None:
    for _ in range(3):
        left(world, task(world), gzip.compress(b"x"))
    seen = world.store.artifacts.of(ROOT)
    artifacts._merge(world.services, world.tenant, ROOT, seen)
    after = world.store.artifacts.of(ROOT)

    artifacts._merge(world.services, world.tenant, ROOT, seen)

    assert world.store.artifacts.of(ROOT) == after
    assert (after.recent, after.written) == ((), seen.written)
