"""The shapes of bodies, queries and answers (contract: http-api 1.2 and part 2), as ``msgspec`` structs.

They validate what comes in, encode what goes out and are the source of the OpenAPI document.

A view declares a field as nullable (``str | None``: the key is always there) or as ``Omittable[str] = UNSET``
(the contract's omit-if-none: the key is left out); ``SomeView.of(entity)`` fills both from an entity.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, Self, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, UnsetType

T = TypeVar("T")
Json = Any

MAX_TEXT = 255  # http-api part 2: every ref; 4 bytes a character stay below DynamoDB's 1,024 of a sort key
MAX_NUMBER = (1 << 63) - 1  # our ids end below 2^53; DynamoDB refuses numbers of more than 38 digits

Omittable: TypeAlias = T | UnsetType

Ref = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Label = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Version = Annotated[str, msgspec.Meta(min_length=1, max_length=50)]
Entrypoint = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
Limit = Annotated[int, msgspec.Meta(ge=1)]
Id = Annotated[int, msgspec.Meta(ge=0, le=MAX_NUMBER)]


class View(msgspec.Struct, kw_only=True, frozen=True):
    """What a client sees of an entity."""

    @classmethod
    def of(cls, entity: Any, **computed: Any) -> Self:
        """Take each field from ``computed``, else from the attribute of ``entity`` with its name.

        An omittable field becomes UNSET when its value is None, or is an empty list or map in a field typed so.
        """
        plan = _PLANS.get(cls)
        if plan is None:
            plan = _PLANS[cls] = _plan(cls)
        values: dict[str, Any] = {}
        for name, read, empty in plan:
            value = computed[name] if name in computed else read(entity)
            values[name] = UNSET if empty is not None and value in empty else value
        return cls(**values)


_Plan = list[tuple[str, Callable[[Any], Any], "tuple[Any, ...] | None"]]
_PLANS: dict[type, _Plan] = {}


def _plan(view: type[View]) -> _Plan:
    hints = get_type_hints(view, include_extras=False)
    plan: _Plan = []
    for field in msgspec.structs.fields(view):
        empty: tuple[Any, ...] | None = None
        if field.default is UNSET:
            collections = {get_origin(arm) or arm for arm in get_args(hints[field.name])} & {list, dict}
            empty = (None, *(kind() for kind in collections))
        plan.append((field.name, operator.attrgetter(field.name), empty))
    return plan


class Body(msgspec.Struct, kw_only=True, frozen=True):
    """What a client sends as JSON. Unknown fields are ignored (README 16)."""


class SetValue(msgspec.Struct, Generic[T], tag_field="op", tag="set", frozen=True):
    """``{"op": "set", "value": ...}``"""

    value: T


class ClearValue(msgspec.Struct, tag_field="op", tag="clear", frozen=True):
    """``{"op": "clear"}``"""


Patch: TypeAlias = SetValue[T] | ClearValue | None
"""How a PUT body changes a nullable field: ``Patch[str] = None``; absent or null leaves it as it is."""


def patched(patch: "SetValue[T] | ClearValue | None", current: T | None) -> T | None:
    """The value of a nullable field after ``patch``."""
    if isinstance(patch, SetValue):
        return patch.value
    return None if isinstance(patch, ClearValue) else current


def given(body: msgspec.Struct, *names: str) -> dict[str, Any]:
    """Those of the named fields that the client sent (neither null nor absent): what a PUT changes."""
    values = {name: getattr(body, name) for name in names}
    return {name: value for name, value in values.items() if value is not None and value is not UNSET}


class Query(msgspec.Struct, kw_only=True, frozen=True):
    """Query parameters; strings are converted to the fields' types, what does not fit is 400."""


class Paging(msgspec.Struct, frozen=True):
    """``number`` counts pages from 1."""

    number: int
    size: int

    @property
    def offset(self) -> int:
        return (self.number - 1) * self.size


class PageQuery(Query, kw_only=True, frozen=True):
    """``page`` and ``page_size``: packs, actions, triggers, sensors, rules, identities, runtimes, workflows."""

    page: Limit = 1
    page_size: Limit = 50

    @property
    def paging(self) -> Paging:
        return Paging(self.page, min(self.page_size, 100))


class PerPageQuery(Query, kw_only=True, frozen=True):
    """``page`` and ``per_page``: events, enforcements, keys, queues. The contract names no cap; ours keeps an answer
    under the Lambda limit of 6 MB."""

    page: Limit = 1
    per_page: Limit = 50

    @property
    def paging(self) -> Paging:
        return Paging(self.page, min(self.per_page, 1000))


class ShortPageQuery(Query, kw_only=True, frozen=True):
    """``page`` and ``per_page`` of executions and artifacts: 20, at most 100."""

    page: Limit = 1
    per_page: Limit = 20

    @property
    def paging(self) -> Paging:
        return Paging(self.page, min(self.per_page, 100))


class Data(msgspec.Struct, Generic[T], omit_defaults=True):
    """One thing: ``{"data": T, "message"?: str}``."""

    data: T
    message: str | None = None


class Pagination(msgspec.Struct, kw_only=True, omit_defaults=True):
    page: int
    page_size: int
    total_items: int | None = None
    total_pages: int | None = None
    has_previous: bool
    has_next: bool


class Page(msgspec.Struct, Generic[T]):
    """A list: ``{"items": [T], "pagination": {...}}``."""

    items: list[T]
    pagination: Pagination

    @classmethod
    def slice_of(cls, rows: Sequence[Any], paging: Paging, view: Callable[[Any], T]) -> "Page[T]":
        """The page of ``rows``, which are all there are (and all that the caller may see), each through ``view``."""
        part = rows[paging.offset : paging.offset + paging.size]
        return cls.part([view(row) for row in part], paging, total=len(rows))

    @classmethod
    def part(cls, items: list[T], paging: Paging, *, total: int | None = None, has_next: bool = False) -> "Page[T]":
        """``items`` are one page already. With ``total`` the counts are on the wire and decide ``has_next``."""
        pages = None if total is None else -(-total // paging.size)
        return cls(
            items,
            Pagination(
                page=paging.number,
                page_size=paging.size,
                total_items=total,
                total_pages=pages,
                has_previous=paging.number > 1,
                has_next=has_next if pages is None else paging.number < pages,
            ),
        )


class Success(msgspec.Struct):
    """A deletion: ``{"success": true, "message": str}``."""

    message: str
    success: bool = True


class Raw(msgspec.Struct):
    """An answer outside the envelopes. ``value`` is encoded as JSON; ``bytes`` go out as they are."""

    value: Any
    status: int | None = None
    headers: dict[str, str] = {}


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """Every error but a refused token."""

    error: str
    code: str
    details: Json = None


class TokenErrorDetail(msgspec.Struct):
    code: int
    message: str


class TokenErrorBody(msgspec.Struct):
    """A refused token (401)."""

    error: TokenErrorDetail


def encode_time(moment: datetime) -> str:
    """RFC 3339 with ``Z``, as the JSON encoder writes times; for the few places that put one inside a string."""
    return str(msgspec.to_builtins(moment))


def query_of(kind: type[Query], pairs: Mapping[str, Sequence[str]]) -> Query:
    """Decode query parameters; raises ``msgspec.ValidationError``. Of a repeated one the last counts, unless the field
    is a list. No value is longer, and no number bigger, than a key of the store can be."""
    lists = _LISTS.get(kind)
    if lists is None:
        lists = _LISTS[kind] = _list_fields(kind)
    values = {name: list(given) if name in lists else given[-1] for name, given in pairs.items() if given}
    query = msgspec.convert(values, kind, strict=False)
    for name in kind.__struct_fields__:
        value = getattr(query, name)
        if isinstance(value, str) and len(value) > MAX_TEXT:
            raise msgspec.ValidationError(f"Expected at most {MAX_TEXT} characters - at `$.{name}`")
        if isinstance(value, int) and abs(value) > MAX_NUMBER:
            raise msgspec.ValidationError(f"Expected a smaller number - at `$.{name}`")
    return query


_LISTS: dict[type, frozenset[str]] = {}


def _list_fields(kind: type[Query]) -> frozenset[str]:
    return frozenset(name for name, hint in get_type_hints(kind).items() if (get_origin(hint) or hint) is list)
