"""What packs leave in the bucket, and when it goes."""

from datetime import datetime
from typing import Any

import pytest
from helpers.fixtures import pack_archive
from unit.flow.world import World

from chalicelib.domain.entities import Environment, Pack
from chalicelib.flow import environments, garbage, packs
from chalicelib.store.blobs import Blobs
from chalicelib.store.registry import Put


@pytest.fixture(autouse=True)
def stored_by_the_worlds_clock(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 says when a blob was stored; here by a clock that moves when told."""
    times: dict[str, datetime] = {}
    put = Blobs.put

    def noted(blobs: Blobs, name: str, *args: Any, **fields: Any) -> str:
        times[name] = world.clock()
        return put(blobs, name, *args, **fields)

    monkeypatch.setattr(Blobs, "put", noted)
    monkeypatch.setattr(Blobs, "modified", lambda _, name: times.get(name))


def install(world: World, version: str, requirements: str | None = None) -> Pack:
    files = {
        "pack.yaml": f"ref: deps\nname: Q\nversion: {version}.0.0\n",
        "actions/a.yaml": "ref: deps.a\nlabel: A\nrunner_type: python\nentry_point: a.py\n",
        "actions/a.py": f"print({version!r})\n",
    }
    if requirements is not None:
        files["requirements.txt"] = requirements
    return packs.install(world.services, world.tenant, pack_archive(files), force=True).pack


def kept(world: World, pack: Pack) -> bool:
    return packs.archive_name(pack.content or "") in world.store.blobs.sizes("packs/")


def collect(world: World) -> None:
    due = world.services.store.due(world.clock()).garbage
    garbage.collect(world.services, due, world.clock())


def a_day_passes(world: World) -> None:
    world.clock.advance(hours=26)
    collect(world)
    collect(world)  # what the first look has let go of


def test_a_replaced_archive_goes_after_a_day(world: World) -> None:
    first, second = install(world, "1"), install(world, "2")
    world.clock.advance(hours=24)
    collect(world)
    assert kept(world, first)

    a_day_passes(world)

    assert (kept(world, first), kept(world, second)) == (False, True)


def test_a_deleted_packs_archive_goes_after_a_day(world: World) -> None:
    pack = install(world, "1")
    packs.delete(world.services, world.tenant, pack)
    assert kept(world, pack)

    a_day_passes(world)

    assert not kept(world, pack)


def test_who_goes_back_keeps_what_he_went_back_to(world: World) -> None:
    first, second = install(world, "1"), install(world, "2")
    world.clock.advance(hours=20)
    install(world, "1")

    a_day_passes(world)

    assert (kept(world, first), kept(world, second)) == (True, False)


def test_what_is_let_go_of_again_has_another_day(world: World) -> None:
    first = install(world, "1")
    install(world, "2")
    world.clock.advance(hours=24)
    install(world, "1")
    install(world, "2")
    world.clock.advance(hours=2)

    collect(world)

    assert kept(world, first)


def test_an_archive_that_comes_back_just_then_is_left_alone(world: World) -> None:
    """It has been stored, and nothing refers to it yet."""
    first = install(world, "1")
    install(world, "2")
    world.clock.advance(hours=26)
    name = packs.archive_name(first.content or "")
    world.store.blobs.put(name, b"again")

    collect(world)
    assert kept(world, first)

    a_day_passes(world)
    assert not kept(world, first), "it never came to be referred to"


def test_libraries_go_with_the_last_who_asks_for_them(world: World) -> None:
    pack = install(world, "1", "colorlib==1.0\n")
    other = world.put(Pack, "other", label="O", version="1", manifests=pack.manifests)
    (environment,) = environments.of_pack(world.store.registry, pack)
    blob = world.store.blobs.put(f"environments/{environment.ref}/0123.tar.gz", b"x")
    packs.delete(world.services, world.tenant, pack)

    a_day_passes(world)
    assert present(world, environment)
    assert kept(world, pack), "it may have to be built again"

    packs.delete(world.services, world.tenant, other)
    a_day_passes(world)
    assert not present(world, environment)
    assert blob not in world.store.blobs.sizes("environments/")
    assert not kept(world, pack)


def test_a_tenants_trouble_is_not_anothers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = install(world, "1")
    packs.delete(world.services, world.tenant, pack)
    broken = f"a-{world.tenant}"
    world.services.store.tenant(broken).registry.commit(Put(world.pack, new=True))
    world.services.store.tenant(broken).garbage.leave("packs/x.tar.gz", world.clock())
    look = garbage._look_at

    def failing(opened: Any, *args: Any) -> None:
        if opened.tenant == broken:
            raise OSError("no")
        look(opened, *args)

    monkeypatch.setattr(garbage, "_look_at", failing)
    a_day_passes(world)

    assert not kept(world, pack)


def present(world: World, environment: Environment) -> bool:
    return world.store.registry.environments.get(environment.ref) is not None
