from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given as holds_for
from hypothesis import strategies as st
from msgspec import UNSET

from chalicelib.api.views import (
    Body,
    ClearValue,
    Data,
    Omittable,
    Page,
    PageQuery,
    Paging,
    Patch,
    PerPageQuery,
    Query,
    SetValue,
    ShortPageQuery,
    Success,
    View,
    given,
    patched,
    query_of,
)


class ThingView(View, kw_only=True, frozen=True):
    ref: str
    label: str | None
    note: Omittable[str] = UNSET
    tags: Omittable[list[str]] = UNSET
    selector: Omittable[Any] = UNSET


def thing(**fields):
    return SimpleNamespace(**{"ref": "a", "label": None, "note": None, "tags": [], "selector": None, **fields})


def wire(value):
    return msgspec.json.decode(msgspec.json.encode(value))


def test_nullable_fields_are_null_and_omittable_ones_are_left_out():
    assert wire(ThingView.of(thing())) == {"ref": "a", "label": None}


def test_omittable_fields_show_what_they_hold():
    view = ThingView.of(thing(note="n", tags=["t"], selector={}))
    assert wire(view) == {"ref": "a", "label": None, "note": "n", "tags": ["t"], "selector": {}}


def test_computed_fields_come_before_attributes():
    assert wire(ThingView.of(thing(), label="L", note="N")) == {"ref": "a", "label": "L", "note": "N"}


class ThingBody(Body, kw_only=True, frozen=True):
    label: str | None = None
    note: Patch[str] = None
    extra: list[str] | msgspec.UnsetType | None = UNSET


@pytest.mark.parametrize(
    ("sent", "after"),
    [
        (b"{}", "before"),
        (b'{"note": null}', "before"),
        (b'{"note": {"op": "set", "value": "x"}}', "x"),
        (b'{"note": {"op": "clear"}}', None),
    ],
)
def test_patches(sent, after):
    assert patched(msgspec.json.decode(sent, type=ThingBody).note, "before") == after


def test_patch_values_are_typed():
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"note": {"op": "set", "value": 1}}', type=ThingBody)
    assert SetValue("x") != ClearValue()


def test_given_fields_are_those_that_were_sent():
    body = msgspec.json.decode(b'{"label": "x", "unknown": 1}', type=ThingBody)
    assert given(body, "label", "extra") == {"label": "x"}


@pytest.mark.parametrize(
    ("kind", "pairs", "number", "size"),
    [
        (PageQuery, {}, 1, 50),
        (PageQuery, {"page": ["3"], "page_size": ["7"]}, 3, 7),
        (PageQuery, {"page_size": ["500"]}, 1, 100),
        (PerPageQuery, {"per_page": ["500"]}, 1, 500),
        (PerPageQuery, {"per_page": ["99999"]}, 1, 1000),
        (ShortPageQuery, {}, 1, 20),
        (ShortPageQuery, {"per_page": ["101"], "page": ["1", "2"]}, 2, 100),
    ],
)
def test_paging_parameters(kind, pairs, number, size):
    assert query_of(kind, pairs).paging == Paging(number, size)


@pytest.mark.parametrize("pairs", [{"page": ["0"]}, {"page": ["x"]}, {"page_size": ["-1"]}, {"page_size": [""]}])
def test_bad_paging_parameters(pairs):
    with pytest.raises(msgspec.ValidationError):
        query_of(PageQuery, pairs)


def test_queries_stay_within_what_the_store_can_look_for():
    assert query_of(ThingQuery, {"name": ["x" * 255]}).name == "x" * 255
    for pairs in ({"name": ["x" * 256]}, {"count": ["9" * 40]}, {"count": ["-" + "9" * 40]}):
        with pytest.raises(msgspec.ValidationError, match=r"\$\.(name|count)"):
            query_of(ThingQuery, pairs)


class ThingQuery(Query, kw_only=True, frozen=True):
    statuses: list[str] = []  # noqa: RUF012
    enabled: bool | None = None
    name: str | None = None
    count: int = 0


def test_repeated_parameters_make_a_list_where_the_field_is_one():
    query = query_of(ThingQuery, {"statuses": ["a", "b"], "enabled": ["true"], "name": ["x", "y"], "other": ["1"]})
    assert query == ThingQuery(statuses=["a", "b"], enabled=True, name="y")


@holds_for(st.integers(0, 60), st.integers(1, 9), st.integers(1, 12))
def test_pages_together_are_the_whole(count, size, number):
    rows = list(range(count))
    pages = -(-count // size)
    seen = [item for page in range(1, pages + 1) for item in Page.slice_of(rows, Paging(page, size), int).items]
    assert seen == rows
    page = Page.slice_of(rows, Paging(number, size), int)
    assert page.pagination.total_items == count
    assert page.pagination.total_pages == pages
    assert page.pagination.has_next == (number < pages)
    assert page.pagination.has_previous == (number > 1)


def test_a_page_without_totals_leaves_them_out():
    assert wire(Page.part([1], Paging(2, 1), has_next=True)) == {
        "items": [1],
        "pagination": {"page": 2, "page_size": 1, "has_previous": True, "has_next": True},
    }


def test_envelopes():
    assert wire(Data(1)) == {"data": 1}
    assert wire(Data(None, "Made")) == {"data": None, "message": "Made"}
    assert wire(Success("Gone")) == {"success": True, "message": "Gone"}
