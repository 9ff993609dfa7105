"""When a rule fires (README 4 and 5, ``semantics.md`` §2.2).

Conditions come in two forms that may be mixed: an expression, ``{"expression": "event.payload.size > 3"}``, and
clauses, ``[{"field": "size", "operator": "gt", "value": 3}]``, all of which must hold; ``{"any": […]}`` and
``{"all": […]}`` nest.

A clause that cannot be evaluated neither holds nor fails. It decides nothing where another clause does so alone: a
false one among ``all``, a true one among ``any``. Where it would decide, the rule does not fire and the outcome says
why.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from chalicelib.domain import values
from chalicelib.domain.caching import compiled_once
from chalicelib.domain.entities import Json
from chalicelib.domain.expressions import UNEXPECTED, Expression, Frame, compile_expression, reason, refuse_secrets
from chalicelib.domain.functions import matches
from chalicelib.domain.patterns import PatternError, compile_pattern
from chalicelib.domain.templates import compile_template, is_template
from chalicelib.domain.values import ExpressionError, Meter, MissingError, Secret

MAX_BYTES = 65_536
MAX_CLAUSES = 200
MAX_NESTING = 10
MAX_FIELD = 1_000  # characters

_PAYLOAD_PREFIXES: Final = (("payload",), ("event", "payload"), ("trigger", "payload"), ("trigger", "data"))


class CriteriaError(Exception):
    """Conditions that no event could be held against; the message says where and what to write instead."""


@dataclass(frozen=True, slots=True)
class Clause:
    """One condition, as ``source`` says it.

    ``matched`` is None where it could not be evaluated, and ``error`` says why. ``value`` is what it looked at: the
    field's value, or what the expression came to.
    """

    source: str
    matched: bool | None
    value: Json
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether the rule fires, with every clause in the order it is written; ``error`` is why that could not be told."""

    matched: bool
    error: str | None = None
    clauses: list[Clause] = field(default_factory=list)


_Test = Callable[[Json, Json, Meter], bool]
_Result = bool | str  # whether it holds, or why that could not be told
_Node = Callable[[Frame, list[Clause]], _Result]


class Criteria:
    """Compiled conditions. ``names`` are the variables they read."""

    __slots__ = ("_node", "names")

    def __init__(self, node: _Node, names: frozenset[str]) -> None:
        self._node = node
        self.names = names

    def evaluate(self, scope: Mapping[str, Any]) -> Outcome:
        """Hold them against the scope of one event (``templates.rule_scope``). Never raises."""
        clauses: list[Clause] = []
        result = self._node(Frame(scope, {}, Meter()), clauses)
        if isinstance(result, str):
            return Outcome(matched=False, error=result, clauses=clauses)
        return Outcome(matched=result, clauses=clauses)


def compile_criteria(conditions: Json) -> Criteria:
    """The compiled conditions, cached; or :class:`CriteriaError`. None, ``{}`` and ``[]`` match every event."""
    if conditions is None or conditions in ({}, []):
        return _EVERYTHING
    try:
        text = msgspec.json.encode(conditions)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CriteriaError(f"conditions must be JSON: {error}") from None
    if len(text) > MAX_BYTES:
        raise CriteriaError(f"conditions may have at most {MAX_BYTES} bytes")
    return _compile(text)


@compiled_once
def _compile(text: bytes) -> Criteria:
    compiler = _Compiler()
    node = compiler.compile(msgspec.json.decode(text), "conditions", 0)
    return Criteria(node, frozenset(compiler.names))


class _Compiler:
    def __init__(self) -> None:
        self.names: set[str] = set()
        self._clauses = 0

    def compile(self, conditions: Json, where: str, depth: int) -> _Node:
        if depth > MAX_NESTING:
            raise CriteriaError(f"{where}: conditions may be nested at most {MAX_NESTING} levels deep")
        match conditions:
            case str():
                return self._expression(conditions, where)
            case list():
                return self._group(conditions, where, depth, decisive=False)
            case {"expression": expression}:
                if not isinstance(expression, str):
                    raise CriteriaError(f"{where}.expression must be a string")
                return self._expression(expression, f"{where}.expression")
            case {"any": list() as parts}:
                return self._group(parts, f"{where}.any", depth, decisive=True)
            case {"all": list() as parts}:
                return self._group(parts, f"{where}.all", depth, decisive=False)
            case {"field": _}:
                return self._clause(conditions, where)
        raise CriteriaError(
            f"{where} must be an expression, a list of conditions, {{'field', 'operator', 'value'}}, "
            "or {'any': […]} or {'all': […]}"
        )

    def _group(self, parts: Sequence[Json], where: str, depth: int, *, decisive: bool) -> _Node:
        """``any`` is decided by one true part, ``all`` by one false part."""
        if not parts and decisive:
            raise CriteriaError(f"{where} must not be empty: it could never hold")
        compiled = [self.compile(part, f"{where}[{index}]", depth + 1) for index, part in enumerate(parts)]

        def evaluate(frame: Frame, clauses: list[Clause]) -> _Result:
            results = [part(frame, clauses) for part in compiled]
            if decisive in results:
                return decisive
            return next((result for result in results if isinstance(result, str)), not decisive)

        return evaluate

    def _count(self, where: str) -> None:
        self._clauses += 1
        if self._clauses > MAX_CLAUSES:
            raise CriteriaError(f"{where}: there may be at most {MAX_CLAUSES} conditions")

    def _expression(self, source: str, where: str) -> _Node:
        self._count(where)
        try:
            expression = compile_expression(source)
        except ExpressionError as error:
            raise CriteriaError(f"{where}: {error}") from None
        if expression.called:
            raise CriteriaError(f"{where}: there is no function {', '.join(sorted(expression.called))}")
        self.names |= expression.names
        return _noted(source, lambda frame: _evaluated(expression, frame))

    def _clause(self, clause: Mapping[str, Json], where: str) -> _Node:
        self._count(where)
        name, wanted = clause.get("operator", "equals"), clause.get("value")
        operator = OPERATORS.get(_normalized(name)) if isinstance(name, str) else None
        if operator is None:
            raise CriteriaError(f"{where}.operator: {name!r} is not an operator; there are {', '.join(_PRINCIPAL)}")
        path = _path_of(clause["field"], f"{where}.field")
        self._check_value(operator, wanted, f"{where}.value")
        source = f"{clause['field']} {name}" if operator.presence else f"{clause['field']} {name} {_shown(wanted)}"
        if operator.presence:
            expected = operator.presence == "present" if wanted is None else operator.presence == "present" and wanted
            return _noted(source, lambda frame: _present(path, expected=bool(expected), frame=frame))
        value = self._value(wanted, f"{where}.value")
        test = operator.test

        def hold(frame: Frame) -> tuple[bool, Json]:
            found = _field(path, frame)
            refuse_secrets(found)
            return test(found, value(frame), frame.meter), found

        return _noted(source, hold)

    def _check_value(self, operator: "Operator", wanted: Json, where: str) -> None:
        if operator.presence and wanted is not None and not isinstance(wanted, bool):
            raise CriteriaError(f"{where}: must be true, false or absent")
        if operator.is_pattern and not (isinstance(wanted, str) and is_template(wanted)):
            if not isinstance(wanted, str):
                raise CriteriaError(f"{where}: must be a regular expression")
            try:
                compile_pattern(wanted)
            except PatternError as error:
                raise CriteriaError(f"{where}: {error}") from None

    def _value(self, wanted: Json, where: str) -> Callable[[Frame], Json]:
        if not isinstance(wanted, str) or not is_template(wanted):
            return lambda _: wanted
        try:
            template = compile_template(wanted)
        except ExpressionError as error:
            raise CriteriaError(f"{where}: {error}") from None
        self.names |= template.names
        return template.run_plainly


def _noted(source: str, evaluate: Callable[[Frame], tuple[bool, Json]]) -> _Node:
    def node(frame: Frame, clauses: list[Clause]) -> _Result:
        try:
            matched, value = evaluate(frame)
        except ExpressionError as error:
            clauses.append(Clause(source, None, None, str(error)))
            return str(error)
        except UNEXPECTED as error:
            clauses.append(Clause(source, None, None, reason(error)))
            return reason(error)
        clauses.append(Clause(source, matched, value))
        return matched

    return node


def _evaluated(expression: Expression, frame: Frame) -> tuple[bool, Json]:
    value = expression.run(frame)
    refuse_secrets(value)
    return values.truthy(value), value


def _path_of(text: Json, where: str) -> tuple[str | int, ...]:
    if not isinstance(text, str) or not text or len(text) > MAX_FIELD:
        raise CriteriaError(f"{where}: must be a dotted path into the event's payload, such as 'user.name'")
    parts = text.split(".")
    if "" in parts:
        raise CriteriaError(f"{where}: {text!r} has an empty part")
    return tuple(int(part) if part.isascii() and part.isdecimal() else part for part in parts)


def _field(path: tuple[str | int, ...], frame: Frame) -> Json:
    """The value that a field names: in the payload, or below the name of the payload (§2.2 and README 5)."""
    payload = _followed(("event", "payload"), frame.scope)
    try:
        return _followed(path, payload)
    except MissingError:
        for prefix in _PAYLOAD_PREFIXES:
            if path[: len(prefix)] == prefix and len(path) > len(prefix):
                return _followed(path[len(prefix) :], payload)
        raise


def _followed(path: Sequence[str | int], value: Json) -> Json:
    for position, part in enumerate(path):
        try:
            value = values.item_of(value, part)
        except MissingError as error:
            where = ".".join(map(str, path[:position])) or "the payload"
            raise MissingError(f"{error} in {where}") from None
    return value


def _present(path: tuple[str | int, ...], *, expected: bool, frame: Frame) -> tuple[bool, Json]:
    try:
        value = _field(path, frame)
    except MissingError:
        return not expected, None
    return expected, value


def _shown(value: Json) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 200 else text[:200] + "…"


def _normalized(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")


@dataclass(frozen=True, slots=True)
class Operator:
    """How a field's value is held against a clause's; ``presence`` operators only ask whether there is one."""

    test: _Test
    is_pattern: bool = False
    presence: str | None = None


def _not(test: _Test) -> _Test:
    return lambda found, wanted, meter: not test(found, wanted, meter)


def _folded(test: _Test) -> _Test:
    return lambda found, wanted, meter: test(_fold(found, meter), _fold(wanted, meter), meter)


def _fold(value: Json, meter: Meter) -> Json:
    match value:
        case str():
            meter.spend_text(len(value))
            return value.casefold()
        case list():
            meter.spend(len(value))
            return [_fold(item, meter) for item in value]
        case dict():
            meter.spend(len(value))
            return {_fold(name, meter): _fold(item, meter) for name, item in value.items()}
        case Secret():
            raise ExpressionError("a secret cannot be compared")
    return value


def _ordered(holds: Callable[[int], bool]) -> _Test:
    return lambda found, wanted, meter: holds(values.compare(found, wanted, meter))


def _is_in(found: Json, wanted: Json, meter: Meter) -> bool:
    return values.contains(wanted, found, meter)


def _begins(found: Json, wanted: Json, _: Meter) -> bool:
    return values.string(found, "the field").startswith(values.string(wanted, "the value"))


def _ends(found: Json, wanted: Json, _: Meter) -> bool:
    return values.string(found, "the field").endswith(values.string(wanted, "the value"))


def _matches(found: Json, wanted: Json, meter: Meter) -> bool:
    return matches(meter, wanted, found)


def _matches_any_case(found: Json, wanted: Json, meter: Meter) -> bool:
    return matches(meter, wanted, found, ignore_case=True)


def _named(operator: Operator, *names: str) -> dict[str, Operator]:
    return dict.fromkeys(names, operator)


_NEVER: Final[_Test] = lambda *_: False  # noqa: E731 - operators of presence have no test

OPERATORS: Final[Mapping[str, Operator]] = {
    **_named(Operator(values.equal), "equals", "eq", "=", "==", "is"),
    **_named(Operator(_not(values.equal)), "not_equals", "neq", "ne", "!=", "nequals", "notequals", "is_not"),
    **_named(Operator(_ordered(lambda order: order > 0)), "gt", ">", "greater_than", "greaterthan"),
    **_named(Operator(_ordered(lambda order: order >= 0)), "gte", ">=", "ge", "greater_than_or_equal"),
    **_named(Operator(_ordered(lambda order: order < 0)), "lt", "<", "less_than", "lessthan"),
    **_named(Operator(_ordered(lambda order: order <= 0)), "lte", "<=", "le", "less_than_or_equal"),
    **_named(Operator(_is_in), "in"),
    **_named(Operator(_not(_is_in)), "not_in", "nin", "notin"),
    **_named(Operator(values.contains), "contains"),
    **_named(Operator(_not(values.contains)), "not_contains", "ncontains"),
    **_named(Operator(_begins), "startswith", "starts_with"),
    **_named(Operator(_ends), "endswith", "ends_with"),
    **_named(Operator(_matches, is_pattern=True), "matches", "match", "regex", "matchregex"),
    **_named(Operator(_NEVER, presence="present"), "exists"),
    **_named(Operator(_NEVER, presence="absent"), "not_exists", "nexists"),
    **_named(Operator(_folded(values.equal)), "iequals", "ieq"),
    **_named(Operator(_not(_folded(values.equal))), "inot_equals", "not_iequals", "ineq", "inequals"),
    **_named(Operator(_folded(_is_in)), "iin"),
    **_named(Operator(_not(_folded(_is_in))), "inot_in", "not_iin"),
    **_named(Operator(_folded(values.contains)), "icontains"),
    **_named(Operator(_not(_folded(values.contains))), "inot_contains", "not_icontains", "incontains"),
    **_named(Operator(_folded(_begins)), "istartswith", "istarts_with"),
    **_named(Operator(_folded(_ends)), "iendswith", "iends_with"),
    **_named(Operator(_matches_any_case, is_pattern=True), "imatches", "imatch", "iregex"),
}
"""Every operator by every spelling; names are compared in lower case, with ``-`` and space as ``_``."""

_PRINCIPAL: Final = (
    "equals", "not_equals", "gt", "gte", "lt", "lte", "in", "not_in", "contains", "not_contains", "startswith",
    "endswith", "matches", "exists", "not_exists", "iequals", "icontains", "istartswith", "iendswith", "imatches",
)  # fmt: skip

_EVERYTHING: Final = Criteria(lambda *_: True, frozenset())
