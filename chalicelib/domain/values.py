"""The values of expressions: JSON, how its types compare and combine, and what work on them may cost.

``workflow-language.md`` §7: no type is ever taken for another, so ``1 == true`` is false and ``1 + "1"`` an error,
where Python would have an opinion of its own. Stands below ``functions``, ``filters`` and ``expressions``.

Work is metered in *steps*, not in time, so that the same expression on the same event always has the same outcome. A
step is one element looked at or made, or 64 characters of text; it takes well under a microsecond.
"""

import math
from collections.abc import Callable
from typing import Any, Final

import msgspec

from chalicelib.domain.entities import Json

MAX_STEPS = 100_000  # per evaluation: tens of milliseconds at the very worst
CHARACTERS_PER_STEP = 64
MAX_DEPTH = 64  # levels of a computed value
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**64 - 1  # what JSON encoders carry


class ExpressionError(Exception):
    """An expression that does not compile or evaluate; the message says what is wrong and where."""


class MissingError(ExpressionError):
    """A name, key or index that is not there: what ``default`` and ``is defined`` are for."""


class Secret:
    """Stands for a value that is put in only just before the run. It can be passed on, and nothing else.

    It is an object of its own and not a text, so nothing that an event brings can be taken for it. ``parts`` are those
    of a text, each a string or where a value is: ``{"key": ref}``, ``{"pack": ref, "config": where}`` for one of a
    pack's configuration, ``{"sealed": ciphertext, "of": ref}`` for a parameter. A lone one stands for the value itself.
    """

    __slots__ = ("parts",)

    def __init__(self, *parts: str | dict[str, str], **source: str) -> None:
        self.parts: tuple[str | dict[str, str], ...] = parts or (source,)

    def _refuse(self, *_: object) -> Any:
        raise ExpressionError("a secret can be passed on as it is, but not looked at or computed with")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __bool__ = __len__ = __iter__ = __contains__ = __str__ = __format__ = _refuse
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Secret(…)"


class Keystore:
    """What the name ``keystore`` stands for: ``keystore.<ref>`` is what ``read`` gives for the ref, dots included."""

    __slots__ = ("read",)

    def __init__(self, read: Callable[[str], Json]) -> None:
        self.read = read


KEYSTORE_REFERENCES: Final = Keystore(lambda ref: Secret(key=ref))


class Meter:
    """What is left of the steps that one evaluation may take."""

    __slots__ = ("left",)

    def __init__(self, steps: int = MAX_STEPS) -> None:
        self.left = steps

    def spend(self, steps: int) -> None:
        """Take ``steps``, *before* the work is done that they stand for."""
        self.left -= steps
        if self.left < 0:
            raise ExpressionError(f"the expression takes too much work (more than {MAX_STEPS} steps)")

    def spend_text(self, characters: int) -> None:
        """Take the steps of reading or making that much text."""
        self.spend(characters // CHARACTERS_PER_STEP + 1)


def kind(value: Json) -> str:
    """The type's name, as ``type_of`` says it."""
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case dict():
            return "object"
        case Secret():
            return "secret"
        case Keystore():
            return "keystore"
    raise ExpressionError(f"{type(value).__name__} is not a JSON value")


def is_number(value: Json) -> bool:
    """Whether it is an integer or a float; a boolean is neither."""
    return type(value) is int or type(value) is float


def truthy(value: Json) -> bool:
    """False for null, false, 0, 0.0, "", [] and {}."""
    return bool(value)


def checked(number: float) -> Json:
    """``number`` itself, if JSON can carry it."""
    if type(number) is float:
        if not math.isfinite(number):
            raise ExpressionError("the result is not a finite number")
    elif not MIN_INTEGER <= number <= MAX_INTEGER:
        raise ExpressionError("the result is too large an integer")
    return number


def equal(one: Json, other: Json, meter: Meter) -> bool:
    """Deep equality: numbers by value, everything else only with its own type."""
    kind_of_one, kind_of_other = type(one), type(other)
    if kind_of_one is kind_of_other:
        if kind_of_one is list:
            return len(one) == len(other) and _all_equal(zip(one, other, strict=True), len(one), meter)
        if kind_of_one is dict:
            meter.spend(len(one))
            if one.keys() != other.keys():
                return False
            return _all_equal(((item, other[name]) for name, item in one.items()), len(one), meter)
        if kind_of_one is str and len(one) == len(other):
            meter.spend(len(one) // CHARACTERS_PER_STEP)
        return bool(one == other)
    if is_number(one) and is_number(other):
        return bool(one == other)
    if kind_of_one is Secret or kind_of_other is Secret:
        raise ExpressionError("a secret cannot be compared")
    return False


def _all_equal(pairs: Any, count: int, meter: Meter) -> bool:
    meter.spend(count)
    return all(equal(one, other, meter) for one, other in pairs)


def compare(one: Json, other: Json, meter: Meter) -> int:
    """Negative, zero or positive as ``one`` comes before, with or after ``other``: numbers, strings, or arrays."""
    if type(one) is str and type(other) is str:
        meter.spend(min(len(one), len(other)) // CHARACTERS_PER_STEP)
        return int(one > other) - int(one < other)
    if is_number(one) and is_number(other):
        return int(one > other) - int(one < other)
    if type(one) is list and type(other) is list:
        for mine, theirs in zip(one, other, strict=False):
            meter.spend(1)
            if order := compare(mine, theirs, meter):
                return order
        return (len(one) > len(other)) - (len(one) < len(other))
    raise ExpressionError(f"{kind(one)} and {kind(other)} have no order")


def contains(haystack: Json, needle: Json, meter: Meter) -> bool:
    """``needle in haystack``: an element of an array, a key of an object, or a part of a string."""
    match haystack:
        case list():
            meter.spend(len(haystack))
            return any(equal(item, needle, meter) for item in haystack)
        case dict():
            return string(needle, "a key to look for") in haystack
        case str():
            meter.spend_text(len(haystack))
            return string(needle, "what to look for in a string") in haystack
    raise ExpressionError(f"'in' needs an array, object or string on its right, not {kind(haystack)}")


def add(one: Json, other: Json, meter: Meter) -> Json:
    """Numbers added, strings or arrays joined."""
    if is_number(one) and is_number(other):
        return checked(one + other)
    if type(one) is str and type(other) is str:
        meter.spend_text(len(one) + len(other))
        return one + other
    if type(one) is list and type(other) is list:
        meter.spend(len(one) + len(other))
        return one + other
    raise ExpressionError(f"cannot add {kind(one)} and {kind(other)}")


def subtract(one: Json, other: Json) -> Json:
    """The difference of two numbers."""
    _check_numbers("subtract", one, other)
    return checked(one - other)


def multiply(one: Json, other: Json) -> Json:
    """The product of two numbers."""
    _check_numbers("multiply", one, other)
    return checked(one * other)


def divide(one: Json, other: Json) -> Json:
    """The quotient of two numbers: an integer if both are and it comes out even."""
    _check_numbers("divide", one, other)
    _check_not_zero(other)
    if type(one) is int and type(other) is int and one % other == 0:
        return checked(one // other)
    return checked(one / other)


def floor_divide(one: Json, other: Json) -> Json:
    """Jinja's ``//``."""
    _check_numbers("divide", one, other)
    _check_not_zero(other)
    return checked(one // other)


def remainder(one: Json, other: Json) -> Json:
    """The remainder of two numbers; it has the sign of the divisor, as everywhere in Jinja."""
    _check_numbers("divide", one, other)
    _check_not_zero(other)
    return checked(one % other)


def power(one: Json, other: Json) -> Json:
    """Jinja's ``**``."""
    _check_numbers("raise", one, other)
    if type(one) is int and type(other) is int and abs(one) > 1 and other > 64:
        raise ExpressionError("the result is too large an integer")
    if one == 0 and other < 0:
        raise ExpressionError("division by zero")
    result = one**other
    if isinstance(result, complex):
        raise ExpressionError("a negative number has no fractional power")
    return checked(result)


def negate(value: Json) -> Json:
    """Unary minus."""
    if not is_number(value):
        raise ExpressionError(f"cannot negate {kind(value)}")
    return checked(-value)


def item_of(container: Json, index: Json) -> Json:
    """``container[index]`` and ``container.index``: keys of objects, positions of arrays and strings. Never more."""
    if type(container) is dict:
        key = str(index) if type(index) is int else index  # `.0` of a dotted path may mean the key "0"
        if type(key) is not str:
            raise ExpressionError(f"an object's key is a string, not {kind(index)}")
        try:
            return container[key]
        except KeyError:
            raise _no_field("there is", key) from None
    if type(container) is list or type(container) is str:
        if type(index) is not int:
            if type(index) is str:
                raise _no_field(f"{kind(container)} has", index)
            raise ExpressionError(f"a position is an integer, not {kind(index)}")
        try:
            return container[index]
        except IndexError:
            raise MissingError(f"position {index} is out of range, there are {len(container)}") from None
    if type(container) is Secret or type(container) is Keystore:
        raise ExpressionError("a secret has no fields; a key's ref must be written out: keystore.<ref>")
    raise _no_field(f"{kind(container)} has", index)


def _no_field(said: str, name: Json) -> ExpressionError:
    """Absence may be allowed for (``default``, a rule's lenient paths); a reach for Python's attributes never is."""
    if type(name) is str and name.startswith("__"):
        return ExpressionError(f"{said} no field {name!r}: values have fields, not Python's attributes")
    return MissingError(f"{said} no field {name!r}")


def to_json(value: Json, meter: Meter) -> str:
    """Compact JSON."""
    if type(value) is list or type(value) is dict:
        measure(value, meter)
    elif type(value) is str:
        meter.spend_text(len(value))
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ExpressionError(f"{kind(value)} cannot be written as JSON: {error}") from None


def to_text(value: Json, meter: Meter) -> str:
    """What a value is inside a text: a string is itself, null nothing, all else compact JSON (§5)."""
    if type(value) is str:
        return value
    if value is None:
        return ""
    return to_json(value, meter)


def measure(value: Json, meter: Meter, depth: int = 0) -> None:
    """Take the steps of copying ``value``; an error if it is too large or too deep to leave an expression.

    Values share their parts, so a small expression can describe a result of any size. It is refused here, before it is
    written out.
    """
    if type(value) is str:
        meter.spend_text(len(value))
    elif type(value) is list or type(value) is dict:
        if depth >= MAX_DEPTH:
            raise ExpressionError(f"the result is more than {MAX_DEPTH} levels deep")
        meter.spend(len(value) + 1)
        for item in value.values() if type(value) is dict else value:
            if type(item) is list or type(item) is dict or type(item) is str:
                measure(item, meter, depth + 1)


def string(value: Json, what: str) -> str:
    """``value`` itself, if it is a string."""
    if type(value) is not str:
        raise ExpressionError(f"{what} must be a string, not {kind(value)}")
    return value


def array(value: Json, what: str) -> list[Json]:
    """``value`` itself, if it is an array."""
    if type(value) is not list:
        raise ExpressionError(f"{what} must be an array, not {kind(value)}")
    return value


def integer(value: Json, what: str) -> int:
    """``value`` itself, if it is an integer."""
    if type(value) is not int:
        raise ExpressionError(f"{what} must be an integer, not {kind(value)}")
    return value


def _check_numbers(verb: str, one: Json, other: Json) -> None:
    if not (is_number(one) and is_number(other)):
        raise ExpressionError(f"cannot {verb} {kind(one)} and {kind(other)}")


def _check_not_zero(divisor: Json) -> None:
    if divisor == 0:
        raise ExpressionError("division by zero")
