"""Jinja's filters and tests, on top of the contract's language (README 4).

Each does what Jinja's of the same name does, on JSON values: what would be a generator is an array, a missing value is
an error unless ``default`` or ``is defined`` catches it, and whatever makes text or arrays pays for them first. Left
out are those that reach for attributes (``attr``), draw lots (``random``) or make HTML (``urlize``, ``xmlattr``).
"""

# ruff: noqa: FBT002 - the parameters are those of Jinja's filters, which templates pass by position

import html
import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

from jinja2.filters import do_filesizeformat, do_title

from chalicelib.domain.entities import Json
from chalicelib.domain.functions import spend_sorting, unique
from chalicelib.domain.values import (
    ExpressionError,
    Meter,
    MissingError,
    Secret,
    add,
    checked,
    compare,
    contains,
    equal,
    integer,
    is_number,
    item_of,
    kind,
    string,
    to_json,
    to_text,
    truthy,
)

MAX_NUMBER = 400  # characters; a float has at most 309 digits before its point
MAX_WIDTH = 10_000  # columns of padding, levels of indentation, digits of a format

_CONVERSION = re.compile(r"%(?P<flags>[-+ 0#]*)(?P<width>\d*)(?:\.(?P<precision>\d*))?(?P<type>.|$)", re.DOTALL)
_UNSET: Final = object()
_UNSET_ITEM: Final = object()


def _text(meter: Meter, value: Json) -> str:
    text = to_text(value, meter)
    meter.spend_text(len(text))
    return text


def _items(meter: Meter, value: Json) -> list[Json]:
    """What Jinja would iterate over: an array's items, an object's keys, a string's characters."""
    match value:
        case list():
            meter.spend(len(value) + 1)
            return value
        case dict() | str():
            meter.spend(len(value) + 1)
            return list(value)
    raise ExpressionError(f"{kind(value)} cannot be iterated over")


def _attribute(value: Json, path: Json, default: Any = _UNSET) -> Json:
    parts = [path] if type(path) is int else string(path, "attribute").split(".", MAX_WIDTH)
    for part in parts:
        try:
            value = item_of(value, int(part) if type(part) is str and part.isdecimal() else part)
        except MissingError:
            if default is _UNSET:
                raise
            return default
    return value


def _width(value: Json, what: str) -> int:
    if not 0 <= (width := integer(value, what)) <= MAX_WIDTH:
        raise ExpressionError(f"{what} must be from 0 to {MAX_WIDTH}")
    return width


def _folded(meter: Meter, value: Json, case_sensitive: Json) -> Json:
    if type(value) is not str or case_sensitive:
        return value
    meter.spend_text(len(value))
    return value.lower()


def _sorted(meter: Meter, items: list[Json], key: Callable[[Json], Json], reverse: Json) -> list[Json]:
    keys = [key(item) for item in items]
    spend_sorting(meter, keys)
    if all(map(is_number, keys)) or all(type(each) is str for each in keys):
        order = sorted(range(len(items)), key=keys.__getitem__, reverse=bool(reverse))
        return [items[index] for index in order]
    raise ExpressionError("only numbers, or only strings, can be sorted")


def _abs(_: Meter, value: Json) -> Json:
    if not is_number(value):
        raise ExpressionError(f"abs: {kind(value)} is not a number")
    return checked(abs(value))


def _batch(meter: Meter, value: Json, linecount: Json, fill_with: Json = None) -> Json:
    items, size = _items(meter, value), integer(linecount, "batch: the size")
    if size <= 0:
        raise ExpressionError("batch: the size must be more than 0")
    batches = [items[start : start + size] for start in range(0, len(items), size)]
    if batches and fill_with is not None and (gap := size - len(batches[-1])):
        meter.spend(gap)
        batches[-1] = batches[-1] + [fill_with] * gap
    return batches


def _capitalize(meter: Meter, value: Json) -> Json:
    return _text(meter, value).capitalize()


def _center(meter: Meter, value: Json, width: Json = 80) -> Json:
    return _text(meter, value).center(_width(width, "center: the width"))


def _default(_: Meter, value: Json, default_value: Json = "", boolean: Json = False) -> Json:
    return default_value if boolean and not truthy(value) else value


def _dictsort(meter: Meter, value: Json, case_sensitive: Json = False, by: Json = "key", reverse: Json = False) -> Json:
    if by not in ("key", "value"):
        raise ExpressionError("dictsort: it sorts by 'key' or 'value'")
    position = 0 if by == "key" else 1
    return _sorted(meter, _pairs(meter, value), lambda pair: _folded(meter, pair[position], case_sensitive), reverse)


def _pairs(meter: Meter, value: Json) -> list[Json]:
    if type(value) is not dict:
        raise ExpressionError(f"{kind(value)} is not an object")
    meter.spend(3 * len(value) + 1)
    return [[name, item] for name, item in value.items()]


def _escape(meter: Meter, value: Json) -> Json:
    return html.escape(_text(meter, value))


def _filesizeformat(_: Meter, value: Json, binary: Json = False) -> Json:
    if not is_number(value):
        raise ExpressionError(f"filesizeformat: {kind(value)} is not a number")
    return do_filesizeformat(value, bool(binary))


def _first(meter: Meter, value: Json) -> Json:
    if not (items := _items(meter, value)):
        raise MissingError("there is no first item")
    return items[0]


def _last(meter: Meter, value: Json) -> Json:
    if not (items := _items(meter, value)):
        raise MissingError("there is no last item")
    return items[-1]


def _float(_: Meter, value: Json, default: Json = 0.0) -> Json:
    if type(value) is str and len(value) > MAX_NUMBER:
        return default
    try:
        return checked(float(value))
    except (TypeError, ValueError, OverflowError, ExpressionError):
        return default


def _int(_: Meter, value: Json, default: Json = 0, base: Json = 10) -> Json:
    try:
        if type(value) is str:
            if len(value) > MAX_NUMBER:
                return default
            try:
                return checked(int(value, integer(base, "int: the base")))
            except ValueError:
                return checked(int(float(value)))
        return checked(int(value))
    except (TypeError, ValueError, OverflowError):
        return default


def _format(meter: Meter, value: Json, *arguments: Json) -> Json:
    source = string(value, "format: what to fill in")
    meter.spend_text(len(source))
    for conversion in _CONVERSION.finditer(source):
        if conversion["type"] not in "diouxXeEfFgGcs%":
            raise ExpressionError(f"format: {conversion[0]!r} is not a conversion")
        for part in ("width", "precision"):
            digits = conversion[part] or "0"
            _width(int(digits) if len(digits) < 9 else MAX_WIDTH + 1, f"format: the {part}")
        meter.spend_text(int(conversion["width"] or 0) + int(conversion["precision"] or 0))
    values = tuple(item if is_number(item) else _text(meter, item) for item in arguments)
    return source % values


def _groupby(meter: Meter, value: Json, attribute: Json, default: Any = _UNSET, case_sensitive: Json = False) -> Json:
    def key(item: Json) -> Json:
        return _folded(meter, _attribute(item, attribute, default), case_sensitive)

    groups: list[list[Json]] = []
    for item in _sorted(meter, _items(meter, value), key, reverse=False):
        meter.spend(3)
        if groups and equal(_folded(meter, groups[-1][0], case_sensitive), key(item), meter):
            groups[-1][1].append(item)
        else:
            groups.append([_attribute(item, attribute, default), [item]])
    return groups


def _indent(meter: Meter, value: Json, width: Json = 4, first: Json = False, blank: Json = False) -> Json:
    text = _text(meter, value)
    by = width if type(width) is str else " " * _width(width, "indent: the width")
    lines = text.split("\n")
    meter.spend_text(len(by) * len(lines))
    indented = [by + line if line or blank else line for line in lines[1:]]
    return "\n".join([by + lines[0] if first else lines[0], *indented])


def _join(meter: Meter, value: Json, d: Json = "", attribute: Json = None) -> Json:
    items, by = _items(meter, value), _text(meter, d)
    if attribute is not None:
        items = [_attribute(item, attribute) for item in items]
    meter.spend_text(len(by) * len(items))
    return by.join([_text(meter, item) for item in items])


def _length(_: Meter, value: Json) -> Json:
    if type(value) in (str, list, dict):
        return len(value)
    raise ExpressionError(f"length: {kind(value)} has no length")


def _list(meter: Meter, value: Json) -> Json:
    return list(_items(meter, value))


def _lower(meter: Meter, value: Json) -> Json:
    return _text(meter, value).lower()


def _extreme(sign: int) -> Callable[..., Json]:
    def pick(meter: Meter, value: Json, case_sensitive: Json = False, attribute: Json = None) -> Json:
        best, best_key = _UNSET, None
        for item in _items(meter, value):
            key = _folded(meter, item if attribute is None else _attribute(item, attribute), case_sensitive)
            if best is _UNSET or sign * compare(key, best_key, meter) > 0:
                best, best_key = item, key
        if best is _UNSET:
            raise MissingError("an empty array has no least or greatest item")
        return best

    return pick


def _replace(meter: Meter, value: Json, old: Json, new: Json, count: Json = None) -> Json:
    text, was, becomes = _text(meter, value), _text(meter, old), _text(meter, new)
    meter.spend_text(text.count(was) * len(becomes))
    return text.replace(was, becomes, -1 if count is None else integer(count, "replace: the count"))


def _reverse(meter: Meter, value: Json) -> Json:
    return value[::-1] if type(value) is str else _items(meter, value)[::-1]


def _round(_: Meter, value: Json, precision: Json = 0, method: Json = "common") -> Json:
    if not is_number(value):
        raise ExpressionError(f"round: {kind(value)} is not a number")
    digits = integer(precision, "round: the precision")
    if method not in ("common", "ceil", "floor"):
        raise ExpressionError("round: the method is 'common', 'ceil' or 'floor'")
    if abs(digits) > 300:
        raise ExpressionError("round: the precision must be from -300 to 300")
    if method == "common":
        return checked(round(value, digits))
    scale = 10.0**digits
    scaled = float(value) * scale
    return checked(float(-(-scaled // 1) if method == "ceil" else scaled // 1) / scale)


def _slice(meter: Meter, value: Json, slices: Json, fill_with: Json = None) -> Json:
    items, count = _items(meter, value), integer(slices, "slice: the count")
    if count <= 0:
        raise ExpressionError("slice: the count must be more than 0")
    meter.spend(count)
    each, more = divmod(len(items), count)
    columns, start = [], 0
    for index in range(count):
        end = start + each + (index < more)
        column = items[start:end]
        if fill_with is not None and index >= more:
            column = [*column, fill_with]
        columns.append(column)
        start = end
    return columns


def _sort(
    meter: Meter, value: Json, reverse: Json = False, case_sensitive: Json = False, attribute: Json = None
) -> Json:
    def key(item: Json) -> Json:
        return _folded(meter, item if attribute is None else _attribute(item, attribute), case_sensitive)

    return _sorted(meter, _items(meter, value), key, reverse)


def _string(meter: Meter, value: Json) -> Json:
    return _text(meter, value)


def _sum(meter: Meter, value: Json, attribute: Json = None, start: Json = 0) -> Json:
    total = start
    for item in _items(meter, value):
        total = add(total, item if attribute is None else _attribute(item, attribute), meter)
    return total


def _title(meter: Meter, value: Json) -> Json:
    text = _text(meter, value)
    meter.spend_text(8 * len(text))  # it goes word by word
    return str(do_title(text))


def _tojson(meter: Meter, value: Json, indent: Json = None) -> Json:
    text = to_json(value, meter)
    if indent is None:
        return text
    from msgspec import json

    by = _width(indent, "tojson: the indentation")
    meter.spend_text(len(text) * (1 + by))
    return json.format(text, indent=by)


def _trim(meter: Meter, value: Json, chars: Json = None) -> Json:
    if chars is not None:
        _width(len(string(chars, "trim: the characters")) * 100, "trim: a hundred times the number of characters")
    return _text(meter, value).strip(chars)


def _truncate(
    meter: Meter, value: Json, length: Json = 255, killwords: Json = False, end: Json = "...", leeway: Json = 5
) -> Json:
    text, tail = _text(meter, value), string(end, "truncate: the end")
    size, slack = integer(length, "truncate: the length"), integer(leeway, "truncate: the leeway")
    if size < len(tail) or slack < 0:
        raise ExpressionError("truncate: the length must be at least that of the end, and the leeway at least 0")
    if len(text) <= size + slack:
        return text
    kept = text[: size - len(tail)]
    return (kept if killwords else kept.rsplit(" ", 1)[0]) + tail


def _unique(meter: Meter, value: Json, case_sensitive: Json = False, attribute: Json = None) -> Json:
    kept: dict[int, Json] = {}
    items = _items(meter, value)
    keys = [
        _folded(meter, item if attribute is None else _attribute(item, attribute), case_sensitive) for item in items
    ]
    if all(type(key) is str for key in keys):
        first: dict[str, int] = {}
        for index, key in enumerate(keys):
            first.setdefault(key, index)
        return [items[index] for index in first.values()]
    distinct = unique(meter, keys)
    position = 0
    for index, key in enumerate(keys):
        if position < len(distinct) and distinct[position] is key:
            kept[index] = items[index]
            position += 1
    return list(kept.values())


def _upper(meter: Meter, value: Json) -> Json:
    return _text(meter, value).upper()


def _urlencode(meter: Meter, value: Json) -> Json:
    if type(value) is dict or (type(value) is list and all(type(pair) is list and len(pair) == 2 for pair in value)):
        pairs = _pairs(meter, value) if type(value) is dict else _items(meter, value)
        return "&".join(f"{_quoted(meter, name, '')}={_quoted(meter, item, '')}" for name, item in pairs)
    return _quoted(meter, value, "/")


def _quoted(meter: Meter, value: Json, safe: str) -> str:
    text = _text(meter, value)
    meter.spend_text(3 * len(text))
    return quote(text, safe=safe) if safe else quote(text, safe="").replace("%20", "+")


def _wordcount(meter: Meter, value: Json) -> Json:
    return len(re.findall(r"\w+", _text(meter, value)))


def _safe(_: Meter, value: Json) -> Json:
    return value


FILTERS: Final[dict[str, Callable[..., Json]]] = {
    "abs": _abs,
    "batch": _batch,
    "capitalize": _capitalize,
    "center": _center,
    "count": _length,
    "d": _default,
    "default": _default,
    "dictsort": _dictsort,
    "e": _escape,
    "escape": _escape,
    "filesizeformat": _filesizeformat,
    "first": _first,
    "float": _float,
    "forceescape": _escape,
    "format": _format,
    "groupby": _groupby,
    "indent": _indent,
    "int": _int,
    "items": _pairs,
    "join": _join,
    "last": _last,
    "length": _length,
    "list": _list,
    "lower": _lower,
    "max": _extreme(1),
    "min": _extreme(-1),
    "replace": _replace,
    "reverse": _reverse,
    "round": _round,
    "safe": _safe,
    "slice": _slice,
    "sort": _sort,
    "string": _string,
    "sum": _sum,
    "title": _title,
    "tojson": _tojson,
    "trim": _trim,
    "truncate": _truncate,
    "unique": _unique,
    "upper": _upper,
    "urlencode": _urlencode,
    "wordcount": _wordcount,
}


def _is_parity(odd: int) -> Callable[..., bool]:
    return lambda _, value: integer(value, "what is even or odd") % 2 == odd


def _is_divisible(_: Meter, value: Json, by: Json) -> bool:
    if integer(by, "the divisor") == 0:
        raise ExpressionError("division by zero")
    return bool(integer(value, "what is divided") % by == 0)


def _compared(holds: Callable[[int], bool]) -> Callable[..., bool]:
    return lambda meter, value, other: holds(compare(value, other, meter))


_TESTS: Final[dict[str, Callable[..., bool]]] = {
    "boolean": lambda _, value: type(value) is bool,
    "divisibleby": _is_divisible,
    "eq": lambda meter, value, other: equal(value, other, meter),
    "even": _is_parity(0),
    "false": lambda _, value: value is False,
    "float": lambda _, value: type(value) is float,
    "ge": _compared(lambda order: order >= 0),
    "gt": _compared(lambda order: order > 0),
    "in": lambda meter, value, other: contains(other, value, meter),
    "integer": lambda _, value: type(value) is int,
    "iterable": lambda _, value: type(value) in (list, dict, str),
    "le": _compared(lambda order: order <= 0),
    "lower": lambda meter, value: _text(meter, value).islower(),
    "lt": _compared(lambda order: order < 0),
    "mapping": lambda _, value: type(value) is dict,
    "ne": lambda meter, value, other: not equal(value, other, meter),
    "none": lambda _, value: value is None,
    "number": lambda _, value: is_number(value),
    "odd": _is_parity(1),
    "sameas": lambda meter, value, other: type(value) is type(other) and equal(value, other, meter),
    "sequence": lambda _, value: type(value) in (list, dict, str),
    "string": lambda _, value: type(value) is str,
    "true": lambda _, value: value is True,
    "upper": lambda meter, value: _text(meter, value).isupper(),
}
TESTS: Final[Mapping[str, Callable[..., bool]]] = {
    **_TESTS,
    "null": _TESTS["none"],
    "==": _TESTS["eq"],
    "equalto": _TESTS["eq"],
    "!=": _TESTS["ne"],
    ">": _TESTS["gt"],
    "greaterthan": _TESTS["gt"],
    ">=": _TESTS["ge"],
    "<": _TESTS["lt"],
    "lessthan": _TESTS["lt"],
    "<=": _TESTS["le"],
}


def map_items(meter: Meter, value: Json, arguments: list[Json], named: Mapping[str, Json]) -> Json:
    """Jinja's ``map``: an attribute of every item, or another filter on it."""
    items = _items(meter, value)
    if not arguments and "attribute" in named:
        default = named.get("default", _UNSET)
        return [_attribute(item, named["attribute"], default) for item in items]
    if not arguments:
        raise ExpressionError("map: it needs the name of a filter, or attribute=")
    name, *rest = arguments
    if type(name) is not str or name not in FILTERS:
        raise ExpressionError(f"map: there is no filter {name!r}")
    return [call(f"filter {name!r}", FILTERS[name], meter, item, rest, named) for item in items]


def select_items(meter: Meter, value: Json, arguments: list[Json], *, wanted: bool, by_attribute: bool) -> Json:
    """Jinja's ``select``, ``reject``, ``selectattr`` and ``rejectattr``: the items that pass a test, or do not."""
    path: Json = None
    if by_attribute:
        if not arguments:
            raise ExpressionError("selectattr: it needs the name of an attribute")
        path, *arguments = arguments
    name: Json = arguments[0] if arguments else None
    if name is not None and (type(name) is not str or name not in (*TESTS, "defined", "undefined")):
        raise ExpressionError(f"select: there is no test {name!r}")
    return [
        item
        for item in _items(meter, value)
        if _passes(meter, item, path, by_attribute=by_attribute, name=name, rest=arguments[1:]) is wanted
    ]


def _passes(meter: Meter, item: Json, path: Json, *, by_attribute: bool, name: str | None, rest: list[Json]) -> bool:
    meter.spend(1)
    present = True
    if by_attribute:
        found = _attribute(item, path, _UNSET_ITEM)
        present, item = found is not _UNSET_ITEM, found
    if name in ("defined", "undefined"):
        return present is (name == "defined")
    if not present:
        return False
    return truthy(item) if name is None else bool(call(f"test {name!r}", TESTS[name], meter, item, rest, {}))


def call(
    what: str, function: Callable[..., Any], meter: Meter, value: Json, arguments: list[Json], named: Mapping[str, Json]
) -> Any:
    """Call a filter or test; arguments that it does not take are an :class:`ExpressionError`."""
    meter.spend(1)
    if type(value) is Secret and function not in (_default, _safe):
        raise ExpressionError(f"{what} cannot be used on a secret")
    try:
        return function(meter, value, *arguments, **named)
    except TypeError:
        raise ExpressionError(f"{what} does not take these arguments") from None
