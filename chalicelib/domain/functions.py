"""The built-in functions of expressions (``workflow-language.md`` §8)."""

import math
import re
from collections.abc import Callable
from typing import Final

from chalicelib.domain.entities import Json
from chalicelib.domain.patterns import PatternError, compile_pattern
from chalicelib.domain.values import (
    ExpressionError,
    Meter,
    Secret,
    array,
    checked,
    compare,
    contains,
    equal,
    integer,
    is_number,
    kind,
    string,
    to_json,
    truthy,
)

_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_LONGEST_NUMBER = 400  # characters; a float has at most 309 digits before its point


def _to_string(meter: Meter, x: Json) -> Json:
    return x if type(x) is str else to_json(x, meter)


def _to_number(_: Meter, x: Json) -> Json:
    if is_number(x):
        return x
    if type(x) is bool:
        return 1.0 if x else 0.0
    if type(x) is str and len(x) <= _LONGEST_NUMBER and _NUMBER.fullmatch(x.strip()):
        return checked(float(x))
    raise ExpressionError(f"number: {_shown(x)} is not a number")


def _to_int(_: Meter, x: Json) -> Json:
    if is_number(x):
        return checked(int(x))
    if type(x) is bool:
        return int(x)
    if type(x) is str and len(x) <= _LONGEST_NUMBER:
        if _INTEGER.fullmatch(x.strip()):
            return checked(int(x))
        if _NUMBER.fullmatch(x.strip()):
            return checked(int(checked(float(x))))
    raise ExpressionError(f"int: {_shown(x)} is not a number")


def _length(meter: Meter, x: Json) -> Json:
    if type(x) is str:
        meter.spend_text(len(x))
        return len(x.encode(errors="surrogatepass"))
    if type(x) is list or type(x) is dict:
        return len(x)
    raise ExpressionError(f"length: {kind(x)} has no length")


def _keys(meter: Meter, x: Json) -> Json:
    return list(_object(meter, x, "keys"))


def _values(meter: Meter, x: Json) -> Json:
    return list(_object(meter, x, "values").values())


def _abs(_: Meter, x: Json) -> Json:
    return checked(abs(_number(x, "abs")))


def _floor(_: Meter, x: Json) -> Json:
    return checked(math.floor(_number(x, "floor")))


def _ceil(_: Meter, x: Json) -> Json:
    return checked(math.ceil(_number(x, "ceil")))


def _round(_: Meter, x: Json) -> Json:
    number = _number(x, "round")
    if type(number) is int:
        return number
    # Halves go away from zero, and 0.49999999999999994 must not become 0.5 + 0.5.
    whole = math.trunc(number)
    return checked(whole + int(math.copysign(1, number)) if abs(number - whole) >= 0.5 else whole)


def _min(meter: Meter, a: Json, b: Json) -> Json:
    return a if _order_of_scalars("min", meter, a, b) <= 0 else b


def _max(meter: Meter, a: Json, b: Json) -> Json:
    return a if _order_of_scalars("max", meter, a, b) >= 0 else b


def _sum(meter: Meter, x: Json) -> Json:
    total: Json = 0
    items = array(x, "sum: its argument")
    meter.spend(len(items))
    for item in items:
        total = checked(total + _number(item, "sum"))
    return total


def _lower(meter: Meter, s: Json) -> Json:
    return _text(meter, s, "lower").lower()


def _upper(meter: Meter, s: Json) -> Json:
    return _text(meter, s, "upper").upper()


def _trim(meter: Meter, s: Json) -> Json:
    return _text(meter, s, "trim").strip()


def _split(meter: Meter, s: Json, separator: Json) -> Json:
    text, by = _text(meter, s, "split"), string(separator, "split: the separator")
    if not by:
        raise ExpressionError("split: the separator must not be empty")
    meter.spend(text.count(by) + 1)
    return text.split(by)


def _join(meter: Meter, x: Json, separator: Json) -> Json:
    items, by = array(x, "join: its first argument"), string(separator, "join: the separator")
    meter.spend(len(items))
    meter.spend_text(len(by) * len(items))
    parts = [item if type(item) is str else to_json(item, meter) for item in items]
    meter.spend_text(sum(map(len, parts)))
    return by.join(parts)


def _replace(meter: Meter, s: Json, old: Json, new: Json) -> Json:
    text, was = _text(meter, s, "replace"), string(old, "replace: what to replace")
    becomes = string(new, "replace: the replacement")
    meter.spend_text(text.count(was) * len(becomes))
    return text.replace(was, becomes)


def _starts_with(meter: Meter, s: Json, prefix: Json) -> Json:
    text, start = string(s, "starts_with: its argument"), string(prefix, "starts_with: the prefix")
    meter.spend_text(len(start))
    return text.startswith(start)


def _ends_with(meter: Meter, s: Json, suffix: Json) -> Json:
    text, end = string(s, "ends_with: its argument"), string(suffix, "ends_with: the suffix")
    meter.spend_text(len(end))
    return text.endswith(end)


def matches(meter: Meter, pattern: Json, s: Json, *, ignore_case: bool = False) -> bool:
    """Whether ``pattern`` (RE2) is found anywhere in the string ``s``."""
    source, text = string(pattern, "match: the pattern"), string(s, "match: what to search")
    try:
        compiled = compile_pattern(source, ignore_case=ignore_case)
        meter.spend(compiled.work_on(text) // 100)
        return compiled.found_in(text)
    except PatternError as error:
        raise ExpressionError(f"match: {error}") from None


def _contains(meter: Meter, haystack: Json, needle: Json) -> Json:
    return contains(haystack, needle, meter)


def _reversed(meter: Meter, x: Json) -> Json:
    _sequence(meter, x, "reversed")
    return x[::-1]


def _sort(meter: Meter, x: Json) -> Json:
    items = array(x, "sort: its argument")
    spend_sorting(meter, items)
    if all(map(is_number, items)) or all(type(item) is str for item in items):
        return sorted(items)
    raise ExpressionError("sort: the items must be all numbers or all strings")


def spend_sorting(meter: Meter, keys: list[Json]) -> None:
    """Take the steps of sorting that many keys, long ones counting more."""
    rounds = max(1, len(keys).bit_length())
    meter.spend(len(keys) * rounds)
    meter.spend_text(rounds * sum(len(key) for key in keys if type(key) is str))


def unique(meter: Meter, x: Json) -> list[Json]:
    """The items of an array without those equal to an earlier one."""
    seen: set[object] = set()
    kept: list[Json] = []
    structures: list[Json] = []
    for item in array(x, "unique: its argument"):
        meter.spend(1)
        if type(item) is list or type(item) is dict:
            meter.spend(len(structures))
            if any(equal(item, other, meter) for other in structures):
                continue
            structures.append(item)
        else:
            mark = (type(item) is bool, item)  # 1 and 1.0 are one number, true is another thing
            if mark in seen:
                continue
            seen.add(mark)
        kept.append(item)
    return kept


def _unique(meter: Meter, x: Json) -> Json:
    return unique(meter, x)


def _flat(meter: Meter, x: Json) -> Json:
    flat: list[Json] = []
    for item in array(x, "flat: its argument"):
        if type(item) is list:
            meter.spend(len(item))
            flat.extend(item)
        else:
            meter.spend(1)
            flat.append(item)
    return flat


def _zip(meter: Meter, a: Json, b: Json) -> Json:
    one, other = array(a, "zip: its first argument"), array(b, "zip: its second argument")
    meter.spend(3 * min(len(one), len(other)))
    return [[mine, theirs] for mine, theirs in zip(one, other, strict=False)]


def _range(meter: Meter, a: Json, b: Json = None, step: Json = 1) -> Json:
    first, end = (0, a) if b is None else (a, b)
    by = integer(step, "range: the step")
    if by == 0:
        raise ExpressionError("range: the step must not be zero")
    numbers = range(integer(first, "range: the start"), integer(end, "range: the end"), by)
    meter.spend(max(0, (numbers.stop - numbers.start) // by))  # len() of a huge range is an error of its own
    return list(numbers)


def _slice(meter: Meter, x: Json, start: Json, end: Json = None) -> Json:
    _sequence(meter, x, "slice")
    return x[integer(start, "slice: the start") : None if end is None else integer(end, "slice: the end")]


def _index_of(meter: Meter, x: Json, needle: Json) -> Json:
    _sequence(meter, x, "index_of")
    if type(x) is str:
        return x.find(string(needle, "index_of: what to look for in a string"))
    return next((index for index, item in enumerate(x) if equal(item, needle, meter)), -1)


def _count(meter: Meter, x: Json, needle: Json) -> Json:
    _sequence(meter, x, "count")
    if type(x) is str:
        return x.count(string(needle, "count: what to count in a string"))
    return sum(equal(item, needle, meter) for item in x)


def _merge(meter: Meter, a: Json, b: Json) -> Json:
    return {**_object(meter, a, "merge"), **_object(meter, b, "merge")}


def _chunks(meter: Meter, x: Json, n: Json) -> Json:
    items, size = array(x, "chunks: its first argument"), integer(n, "chunks: the size")
    if size <= 0:
        raise ExpressionError("chunks: the size must be more than 0")
    meter.spend(2 * len(items))
    return [items[start : start + size] for start in range(0, len(items), size)]


def _type_of(_: Meter, x: Json) -> Json:
    if type(x) is Secret:
        raise ExpressionError("type_of: a secret cannot be looked at")
    return kind(x)


def _bool(_: Meter, x: Json) -> Json:
    return truthy(x)


def _number(x: Json, name: str) -> Json:
    if not is_number(x):
        raise ExpressionError(f"{name}: {kind(x)} is not a number")
    return x


def _text(meter: Meter, s: Json, name: str) -> str:
    text = string(s, f"{name}: its argument")
    meter.spend_text(len(text))
    return text


def _object(meter: Meter, x: Json, name: str) -> dict[str, Json]:
    if type(x) is not dict:
        raise ExpressionError(f"{name}: its argument must be an object, not {kind(x)}")
    meter.spend(len(x))
    return x


def _sequence(meter: Meter, x: Json, name: str) -> None:
    if type(x) is str:
        meter.spend_text(len(x))
    else:
        meter.spend(len(array(x, f"{name}: its argument")))


def _order_of_scalars(name: str, meter: Meter, a: Json, b: Json) -> int:
    if (is_number(a) and is_number(b)) or (type(a) is str and type(b) is str):
        return compare(a, b, meter)
    raise ExpressionError(f"{name}: its arguments must be two numbers or two strings")


def _shown(x: Json) -> str:
    return repr(x[:40]) if type(x) is str else kind(x)


class Function:
    """A built-in function and how many arguments it takes."""

    __slots__ = ("call", "least", "most", "name")

    def __init__(self, name: str, call: Callable[..., Json], least: int, most: int) -> None:
        self.name, self.call, self.least, self.most = name, call, least, most

    def check_arguments(self, count: int) -> None:
        """:class:`ExpressionError` unless it can be called with ``count`` arguments."""
        if not self.least <= count <= self.most:
            wanted = str(self.least) if self.least == self.most else f"{self.least} to {self.most}"
            raise ExpressionError(f"{self.name}() takes {wanted} arguments, not {count}")


FUNCTIONS: Final = {
    name: Function(name, call, least, most)
    for name, call, least, most in (
        ("string", _to_string, 1, 1),
        ("number", _to_number, 1, 1),
        ("int", _to_int, 1, 1),
        ("bool", _bool, 1, 1),
        ("type_of", _type_of, 1, 1),
        ("length", _length, 1, 1),
        ("keys", _keys, 1, 1),
        ("values", _values, 1, 1),
        ("abs", _abs, 1, 1),
        ("floor", _floor, 1, 1),
        ("ceil", _ceil, 1, 1),
        ("round", _round, 1, 1),
        ("min", _min, 2, 2),
        ("max", _max, 2, 2),
        ("sum", _sum, 1, 1),
        ("lower", _lower, 1, 1),
        ("upper", _upper, 1, 1),
        ("trim", _trim, 1, 1),
        ("split", _split, 2, 2),
        ("join", _join, 2, 2),
        ("replace", _replace, 3, 3),
        ("starts_with", _starts_with, 2, 2),
        ("ends_with", _ends_with, 2, 2),
        ("match", matches, 2, 2),
        ("contains", _contains, 2, 2),
        ("reversed", _reversed, 1, 1),
        ("sort", _sort, 1, 1),
        ("unique", _unique, 1, 1),
        ("flat", _flat, 1, 1),
        ("zip", _zip, 2, 2),
        ("range", _range, 1, 3),
        ("slice", _slice, 2, 3),
        ("index_of", _index_of, 2, 2),
        ("count", _count, 2, 2),
        ("merge", _merge, 2, 2),
        ("chunks", _chunks, 2, 2),
    )
}
