"""What keeps tenants apart in the store: no repository without a tenant, no slug that poses as another's."""

import ast
import dataclasses
import inspect
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.refs import RefError, tenant_slug
from chalicelib.store import opening, registry
from chalicelib.store.models import SEPARATOR, partition
from chalicelib.store.opening import Store, TenantStore

CODE = Path(opening.__file__).parents[1]
REPOSITORIES: list[Any] = [
    *(kind for name, kind in get_type_hints(TenantStore).items() if name != "tenant"),
    registry.Repository,
]
SLUGS = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True)


@pytest.mark.parametrize("repository", REPOSITORIES, ids=lambda each: str(each.__name__))
def test_no_repository_is_built_without_a_tenant(repository: Any) -> None:
    parameters = inspect.signature(repository.__init__).parameters
    assert parameters["tenant"].default is inspect.Parameter.empty


def test_every_part_of_a_tenants_store_is_a_repository() -> None:
    assert {each.name for each in dataclasses.fields(TenantStore)} == set(get_type_hints(TenantStore))
    assert inspect.signature(Store.tenant).parameters["tenant"].default is inspect.Parameter.empty


def test_nobody_outside_the_store_builds_one() -> None:
    assert [each for path in CODE.rglob("*.py") if path.parent.name != "store" for each in _built_in(path)] == []


def _built_in(path: Path) -> list[str]:
    """The calls of repositories' classes in a module that imports them."""
    tree = ast.parse(path.read_text())
    names = {repository.__name__ for repository in REPOSITORIES} | {"TenantStore"}
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("chalicelib.store")
        for alias in node.names
        if alias.name in names
    }
    return [
        f"{path.relative_to(CODE)}:{node.lineno} {node.func.id}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in imported
    ]


@given(st.text(max_size=70))
def test_what_is_no_slug_is_no_tenant(text: str) -> None:
    try:
        slug = tenant_slug(text)
    except RefError:
        return
    assert slug == text
    assert slug.isascii()
    assert not set(slug) & {SEPARATOR, "/", ".", "\\", " ", "\n"}


@given(SLUGS, SLUGS, st.text(max_size=10))
def test_no_tenants_keys_begin_with_anothers(one: str, other: str, rest: str) -> None:
    assert partition(one, "rule", rest).startswith(f"{other}{SEPARATOR}") == (one == other)
    assert f"{one}/{rest}".startswith(f"{other}/") == (one == other)


@pytest.mark.parametrize("tenant", ["", "a#b", "#webhook", "#"])
def test_a_key_is_never_made_for_what_could_pose_as_another(tenant: str) -> None:
    with pytest.raises(ValueError, match="not a tenant"):
        partition(tenant, "rule")
