"""Expressions (README 4): Jinja2's grammar, the contract's values (``workflow-language.md`` §7-8), bounded cost.

Jinja parses; what it parsed is compiled here, once, into closures over :mod:`chalicelib.domain.values`. Jinja's own
code generator is not used: it would give Python's meaning to ``==``, ``and`` and ``+``, reach Python's attributes, and
run loops that nobody counts. Here a node that is not in the table below does not compile, ``.name`` is a key of an
object and never anything else, and whatever loops or grows pays for it beforehand (see ``values.Meter``).
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

from jinja2 import Environment, nodes
from jinja2.exceptions import TemplateError
from jinja2.lexer import Lexer
from jinja2.parser import Parser

from chalicelib.domain import filters, values
from chalicelib.domain.caching import compiled_once
from chalicelib.domain.entities import Json
from chalicelib.domain.functions import FUNCTIONS
from chalicelib.domain.values import ExpressionError as ExpressionError
from chalicelib.domain.values import Keystore, Meter, MissingError, Secret

MAX_SOURCE = 20_000  # characters of one expression
MAX_TOKENS = 5_000  # of one source; Jinja takes some 20 µs for each
MAX_NESTING = 150  # levels of nodes within nodes; Python's stack takes more

Functions = Mapping[str, Callable[..., Json]]
Path = tuple[str | int, ...]

NO_FUNCTIONS: Final[Functions] = {}
# What Jinja's lexer would take for something else goes through it as code points that text does not have (see
# `_KeepsText`): carriage returns, and the shell's `${#name}`, in which it would see a comment begin.
_CARRIAGE_RETURN: Final = "\ufdd0"
_SHELL_LENGTH: Final = "\ufdd1"
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"'}
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)


class Frame:
    """One evaluation: what it can read, the functions that its surroundings add, and what it may still spend."""

    __slots__ = ("functions", "meter", "missing_is_null", "scope")

    def __init__(
        self, scope: Mapping[str, Any], functions: Functions, meter: Meter, *, missing_is_null: bool = False
    ) -> None:
        self.scope = scope
        self.functions = functions
        self.meter = meter
        self.missing_is_null = missing_is_null  # for templates of rules; see `templates`


Node = Callable[[Frame], Any]
Tree = TypeVar("Tree")


class Expression:
    """A compiled expression.

    ``names`` are the variables it reads, ``called`` the functions it calls that are not built in. ``path`` says whether
    it is nothing but a dotted path.
    """

    __slots__ = ("_node", "called", "names", "path", "source")

    def __init__(self, source: str, tree: nodes.Expr) -> None:
        compiler = Compiler()
        self.source = source
        self._node = compiler.compile(tree)
        self.names = frozenset(compiler.names)
        self.called = frozenset(compiler.called)
        self.path = path_of(tree) is not None

    def evaluate(self, scope: Mapping[str, Any], functions: Functions = NO_FUNCTIONS) -> Json:
        """Its value in ``scope``, or :class:`ExpressionError`."""
        value = self.run(Frame(scope, functions, Meter()))
        refuse_secrets(value)
        return value

    def run(self, frame: Frame) -> Any:
        """Its value in ``frame``, which may hold :class:`~chalicelib.domain.values.Secret` objects."""
        try:
            value = self._node(frame)
            if not self.path:
                values.measure(value, frame.meter)
        except ExpressionError as error:
            if self.path:
                raise
            raise type(error)(f"{error} in {shortened(self.source)!r}") from None
        except UNEXPECTED as error:
            raise ExpressionError(f"cannot evaluate {shortened(self.source)!r}: {reason(error)}") from None
        return value


UNEXPECTED: Final = (
    ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError,
)  # fmt: skip
"""What Python raises where a check of ours did not see an error coming."""


@compiled_once
def compile_expression(source: str) -> Expression:
    """The compiled expression, cached; one pair of surrounding ``{{ }}`` is stripped."""
    text = source.strip()
    if text.startswith("{{") and text.endswith("}}"):
        text = text[2:-2].strip().removeprefix("-").removesuffix("-").strip()
    if not text:
        raise ExpressionError("an expression must not be empty")
    if len(text) > MAX_SOURCE:
        raise ExpressionError(f"an expression may have at most {MAX_SOURCE} characters")
    return Expression(text, _parsed(text, _parse_expression))


def parse_template(source: str) -> nodes.Template:
    """Jinja's tree of a text with ``{{ }}`` and ``{% %}`` in it, or :class:`ExpressionError`."""
    return _parsed(source, lambda text: Parser(_ENVIRONMENT, text).parse())


def as_written(text: str) -> str:
    """A piece of a template's tree as it stood in the source."""
    return text.replace(_CARRIAGE_RETURN, "\r").replace(_SHELL_LENGTH, "${#")


def _parse_expression(text: str) -> nodes.Expr:
    parser = Parser(_ENVIRONMENT, text, state="variable")
    tree = parser.parse_expression()
    if not parser.stream.eos:
        token = parser.stream.current
        raise ExpressionError(f"unexpected {token.value!r} after the end of the expression {shortened(text)!r}")
    return tree


def _parsed(source: str, parse: Callable[[str], Tree]) -> Tree:
    if _CARRIAGE_RETURN in source or _SHELL_LENGTH in source:
        raise ExpressionError(f"{shortened(source)!r} has code points that are not characters")
    try:
        return parse(source.replace("\r", _CARRIAGE_RETURN).replace("${#", _SHELL_LENGTH))
    except TemplateError as error:
        line = getattr(error, "lineno", 1)
        where = f" on line {line}" if line > 1 else ""
        raise ExpressionError(f"{error.message or 'syntax error'}{where} in {shortened(source)!r}") from None
    except UNEXPECTED as error:
        raise ExpressionError(f"cannot parse {shortened(source)!r}: {reason(error)}") from None


def refuse_secrets(value: Any) -> None:
    """:class:`ExpressionError` if a secret is anywhere in ``value``."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if type(item) is Secret or type(item) is Keystore:
            raise ExpressionError("a secret cannot be read here")
        if type(item) is list:
            waiting.extend(item)
        elif type(item) is dict:
            waiting.extend(item.values())


def shortened(source: str) -> str:
    """As much of a source as an error message has room for."""
    return source if len(source) <= 200 else source[:200] + "…"


def reason(error: BaseException) -> str:
    """A short reason for an unexpected error, without anything of Python's insides."""
    match error:
        case RecursionError():
            return "it is nested too deeply"
        case MemoryError() | OverflowError():
            return "the result is too large"
    return str(error) or "it is not possible"


class _KeepsText(Lexer):
    """Jinja's lexer, without its rewriting of text.

    Jinja turns every ``\\r\\n`` into ``\\n``, which would corrupt a parameter; so carriage returns go through it
    disguised. And it reads strings with all of Python's escapes, which makes ``match("\\bx", s)`` look for a backspace;
    the language has six (§7), and ``\\uXXXX`` and ``\\xXX``. Any other backslash is a backslash.
    """

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        for state, rules in self.rules.items():
            self.rules[state] = [
                rule._replace(pattern=re.compile(rf"[\s{_CARRIAGE_RETURN}]+")) if rule.tokens == "whitespace" else rule
                for rule in rules
            ]

    def _normalize_newlines(self, value: str) -> str:
        return value

    def wrap(
        self, stream: Iterable[tuple[int, str, str]], name: str | None = None, filename: str | None = None
    ) -> Iterator[Any]:
        return super().wrap(_bounded(stream), name, filename)


def _bounded(stream: Iterable[tuple[int, str, str]]) -> Iterator[tuple[int, str, str]]:
    for count, (line, kind, value) in enumerate(stream):
        if count > MAX_TOKENS:
            raise ExpressionError(f"a source may have at most {MAX_TOKENS} tokens")
        yield line, kind, _reescaped(value) if kind == "string" else value


def _reescaped(literal: str) -> str:
    """A string literal that Python's escapes, which Jinja applies next, turn into what ours say."""
    text = _ESCAPE.sub(_unescape, as_written(literal[1:-1]))
    return f"'{text.encode('unicode-escape').decode()}'"


def _unescape(escape: re.Match[str]) -> str:
    code = escape[1] or escape[2]
    if code is None:
        return _ESCAPES.get(escape[3], escape[0])
    if 0xD800 <= (point := int(code, 16)) <= 0xDFFF:
        raise ValueError("a surrogate is not a character")
    return chr(point)


class _Environment(Environment):
    @property
    def lexer(self) -> Lexer:
        return _LEXER


# Only its lexer and parser are used: what is rendered is parameters of actions, not HTML, so nothing is escaped.
_ENVIRONMENT: Final = _Environment(keep_trailing_newline=True, autoescape=False)
_LEXER: Final = _KeepsText(_ENVIRONMENT)


def path_of(tree: nodes.Node) -> Path | None:
    """The parts of ``a.b["c"][0].d``, or None if the expression is more than that."""
    parts: list[str | int] = []
    while True:
        match tree:
            case nodes.Getattr(node=inner, attr=str(name)):
                parts.append(name)
            case nodes.Getitem(node=inner, arg=nodes.Const(value=str() | int() as key)) if type(key) is not bool:
                parts.append(key)
            case nodes.Name(name=str(name)) if name != "null":
                return (name, *reversed(parts))
            case _:
                return None
        tree = inner


def dashed_path_of(tree: nodes.Node) -> Path | None:
    """The path that ``payload.user-name`` stands for if there is nothing to subtract."""
    if not isinstance(tree, nodes.Sub):
        return path_of(tree)
    left, right = dashed_path_of(tree.left), path_of(tree.right)
    if right is None and isinstance(tree.right, nodes.Const) and type(tree.right.value) is int:
        right = (str(tree.right.value),)
    if left is None or len(left) < 2 or right is None:
        return None
    return (*left[:-1], f"{left[-1]}-{right[0]}", *right[1:])


class Compiler:
    """Compiles Jinja's nodes into closures, and notes what they read."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.called: set[str] = set()
        self.bound: set[str] = set()
        self.size = 0
        self._depth = 0

    def compile(self, tree: nodes.Node) -> Node:
        """The closure that evaluates ``tree``."""
        handler = self._HANDLERS.get(type(tree))
        if handler is None:
            raise ExpressionError(f"{type(tree).__name__.lower()} is not part of the language")
        self.size += 1
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise ExpressionError(f"an expression may be nested at most {MAX_NESTING} levels deep")
        node: Node = handler(self, tree)
        self._depth -= 1
        return node

    def compile_value(self, tree: nodes.Node) -> Node:
        """As :meth:`compile`, but a plain path that leads nowhere is null where the frame says so."""
        node = self.compile(tree)
        if dashed_path_of(tree) is None:
            return node

        def lenient(frame: Frame) -> Any:
            try:
                return node(frame)
            except MissingError:
                if frame.missing_is_null:
                    return None
                raise

        return lenient

    def _name(self, tree: nodes.Name) -> Node:
        name = tree.name
        if name == "null":
            return lambda _: None
        read = self._variable(name)

        def read_value(frame: Frame) -> Any:
            value = read(frame)
            if type(value) is Keystore:
                raise ExpressionError("name one key of the keystore: keystore.<ref>")
            return value

        return read_value

    def _variable(self, name: str) -> Node:
        if name not in self.bound:
            self.names.add(name)

        def read(frame: Frame) -> Any:
            try:
                return frame.scope[name]
            except KeyError:
                raise MissingError(f"there is no variable {name!r}") from None

        return read

    def _const(self, tree: nodes.Const) -> Node:
        value = tree.value
        if values.is_number(value):
            values.checked(value)
        elif value is not None and type(value) not in (str, bool):
            raise ExpressionError(f"{value!r} is not part of the language")
        return lambda _: value

    def _list(self, tree: nodes.List | nodes.Tuple) -> Node:
        items = [self.compile(item) for item in tree.items]

        def build(frame: Frame) -> Any:
            frame.meter.spend(len(items))
            return [item(frame) for item in items]

        return build

    def _dict(self, tree: nodes.Dict) -> Node:
        pairs = [(self.compile(pair.key), self.compile(pair.value)) for pair in tree.items]

        def build(frame: Frame) -> Any:
            frame.meter.spend(len(pairs))
            return {values.string(key(frame), "an object's key"): value(frame) for key, value in pairs}

        return build

    def _getattr(self, tree: nodes.Getattr | nodes.Getitem) -> Node:
        if (path := path_of(tree)) is not None:
            return self._path(path)
        if isinstance(tree, nodes.Getitem) and isinstance(tree.arg, nodes.Slice):
            return self._slice(tree, tree.arg)
        container = self.compile(tree.node)
        if isinstance(tree, nodes.Getattr):
            name = tree.attr
            return lambda frame: values.item_of(container(frame), name)
        index = self.compile(tree.arg)
        return lambda frame: values.item_of(container(frame), index(frame))

    def _path(self, path: Path) -> Node:
        root, *parts = path
        read = self._variable(str(root))
        reference = ".".join(str(part) for part in parts)
        item_of = values.item_of

        def follow(frame: Frame) -> Any:
            value = read(frame)
            if type(value) is Keystore:
                return value.read(reference)
            for position, part in enumerate(parts):
                try:
                    value = item_of(value, part)
                except MissingError as error:
                    where = ".".join(str(each) for each in path[: position + 1])
                    raise MissingError(f"{error} in {where}") from None
            return value

        return follow

    def _slice(self, tree: nodes.Getitem, bounds: nodes.Slice) -> Node:
        container = self.compile(tree.node)
        parts = [None if part is None else self.compile(part) for part in (bounds.start, bounds.stop, bounds.step)]

        def cut(frame: Frame) -> Any:
            value = container(frame)
            start, stop, step = (
                None if part is None else values.integer(part(frame), "a slice's bound") for part in parts
            )
            if step == 0:
                raise ExpressionError("a slice's step must not be zero")
            if type(value) is str:
                frame.meter.spend_text(len(value))
            else:
                frame.meter.spend(len(values.array(value, "what is sliced")))
            return value[start:stop:step]

        return cut

    def _subtract(self, tree: nodes.Sub) -> Node:
        one, other = self.compile(tree.left), self.compile(tree.right)
        subtract = values.subtract
        path = dashed_path_of(tree)
        if path is None:
            return lambda frame: subtract(one(frame), other(frame))
        follow, root = self._path(path), str(path[0])

        def subtract_or_follow(frame: Frame) -> Any:
            # `event.payload.user-name` parses as a difference; it is one only if both sides are there.
            if type(frame.scope.get(root)) is Keystore:
                return follow(frame)
            try:
                return subtract(one(frame), other(frame))
            except MissingError:
                return follow(frame)

        return subtract_or_follow

    def _arithmetic(self, tree: nodes.BinExpr) -> Node:
        operation = _ARITHMETIC[type(tree)]
        one, other = self.compile(tree.left), self.compile(tree.right)
        return lambda frame: operation(one(frame), other(frame))

    def _add(self, tree: nodes.Add) -> Node:
        one, other = self.compile(tree.left), self.compile(tree.right)
        add = values.add
        return lambda frame: add(one(frame), other(frame), frame.meter)

    def _and(self, tree: nodes.And) -> Node:
        one, other = self.compile(tree.left), self.compile(tree.right)
        return lambda frame: bool(one(frame)) and bool(other(frame))

    def _or(self, tree: nodes.Or) -> Node:
        one, other = self.compile(tree.left), self.compile(tree.right)
        return lambda frame: bool(one(frame)) or bool(other(frame))

    def _not(self, tree: nodes.Not) -> Node:
        inner = self.compile(tree.node)
        return lambda frame: not inner(frame)

    def _negate(self, tree: nodes.Neg) -> Node:
        inner = self.compile(tree.node)
        return lambda frame: values.negate(inner(frame))

    def _plus(self, tree: nodes.Pos) -> Node:
        inner = self.compile(tree.node)
        return lambda frame: values.add(0, inner(frame), frame.meter)

    def _concatenate(self, tree: nodes.Concat) -> Node:
        parts = [self.compile(part) for part in tree.nodes]

        def join(frame: Frame) -> Any:
            texts = [values.to_text(part(frame), frame.meter) for part in parts]
            frame.meter.spend_text(sum(map(len, texts)))
            return "".join(texts)

        return join

    def _compare(self, tree: nodes.Compare) -> Node:
        first = self.compile(tree.expr)
        operands = [(_COMPARISONS[operand.op], self.compile(operand.expr)) for operand in tree.ops]
        if len(operands) == 1:
            ((holds, second),) = operands
            return lambda frame: holds(first(frame), second(frame), frame.meter)

        def chain(frame: Frame) -> bool:
            left = first(frame)
            for holds, operand in operands:
                right = operand(frame)
                if not holds(left, right, frame.meter):
                    return False
                left = right
            return True

        return chain

    def _condition(self, tree: nodes.CondExpr) -> Node:
        test, then = self.compile(tree.test), self.compile(tree.expr1)
        otherwise: Node = (lambda _: None) if tree.expr2 is None else self.compile(tree.expr2)
        return lambda frame: then(frame) if test(frame) else otherwise(frame)

    def _call(self, tree: nodes.Call) -> Node:
        if not isinstance(tree.node, nodes.Name):
            raise ExpressionError("only functions can be called: values have no methods")
        name = tree.node.name
        if tree.kwargs or tree.dyn_args is not None or tree.dyn_kwargs is not None:
            raise ExpressionError(f"{name}() takes its arguments by position")
        arguments = [self.compile(argument) for argument in tree.args]
        function = FUNCTIONS.get(name)
        if function is not None:
            function.check_arguments(len(arguments))
            call = function.call

            def built_in(frame: Frame) -> Any:
                frame.meter.spend(1)
                return call(frame.meter, *[argument(frame) for argument in arguments])

            return built_in
        self.called.add(name)

        def surrounding(frame: Frame) -> Any:
            if name not in frame.functions:
                raise ExpressionError(f"there is no function {name!r}")
            return frame.functions[name](*[argument(frame) for argument in arguments])

        return surrounding

    def _filter(self, tree: nodes.Filter) -> Node:
        if tree.node is None:
            raise ExpressionError("filter blocks are not part of the language")
        name, inner = tree.name, self.compile(tree.node)
        arguments, named = self._arguments(tree)
        if name in ("default", "d"):
            inner = _lenient(inner)
        what = f"filter {name!r}"
        if name == "map":
            return lambda frame: filters.map_items(
                frame.meter, inner(frame), [item(frame) for item in arguments], _evaluated(named, frame)
            )
        if name in _SELECTIONS:
            wanted, by_attribute = _SELECTIONS[name]
            return lambda frame: filters.select_items(
                frame.meter,
                inner(frame),
                [item(frame) for item in arguments],
                wanted=wanted,
                by_attribute=by_attribute,
            )
        function = filters.FILTERS.get(name)
        if function is None:
            raise ExpressionError(f"there is no filter {name!r}")
        if name in ("default", "d"):
            return _default(function, inner, arguments, named)
        call = filters.call
        return lambda frame: call(
            what, function, frame.meter, inner(frame), [item(frame) for item in arguments], _evaluated(named, frame)
        )

    def _test(self, tree: nodes.Test) -> Node:
        name, inner = tree.name, self.compile(tree.node)
        if name in ("defined", "undefined"):
            present = _lenient(inner)
            return lambda frame: (present(frame) is not _MISSING) is (name == "defined")
        function = filters.TESTS.get(name)
        if function is None:
            raise ExpressionError(f"there is no test {name!r}")
        arguments, named = self._arguments(tree)
        return lambda frame: bool(
            filters.call(
                f"test {name!r}",
                function,
                frame.meter,
                inner(frame),
                [item(frame) for item in arguments],
                _evaluated(named, frame),
            )
        )

    def _arguments(self, tree: nodes.Filter | nodes.Test) -> tuple[list[Node], list[tuple[str, Node]]]:
        if tree.dyn_args is not None or tree.dyn_kwargs is not None:
            raise ExpressionError("* and ** arguments are not part of the language")
        named = [(str(pair.key), self.compile(pair.value)) for pair in tree.kwargs]
        return [self.compile(argument) for argument in tree.args], named

    _HANDLERS: Final[dict[type[nodes.Node], Callable[..., Node]]] = {
        nodes.Name: _name,
        nodes.Const: _const,
        nodes.List: _list,
        nodes.Tuple: _list,
        nodes.Dict: _dict,
        nodes.Getattr: _getattr,
        nodes.Getitem: _getattr,
        nodes.Add: _add,
        nodes.Sub: _subtract,
        nodes.Mul: _arithmetic,
        nodes.Div: _arithmetic,
        nodes.FloorDiv: _arithmetic,
        nodes.Mod: _arithmetic,
        nodes.Pow: _arithmetic,
        nodes.Neg: _negate,
        nodes.Pos: _plus,
        nodes.Not: _not,
        nodes.And: _and,
        nodes.Or: _or,
        nodes.Concat: _concatenate,
        nodes.Compare: _compare,
        nodes.CondExpr: _condition,
        nodes.Call: _call,
        nodes.Filter: _filter,
        nodes.Test: _test,
    }


_MISSING: Final = object()
_SELECTIONS: Final = {
    "select": (True, False),
    "reject": (False, False),
    "selectattr": (True, True),
    "rejectattr": (False, True),
}
_ARITHMETIC: Final[dict[type[nodes.Node], Callable[[Any, Any], Any]]] = {
    nodes.Mul: values.multiply,
    nodes.Div: values.divide,
    nodes.FloorDiv: values.floor_divide,
    nodes.Mod: values.remainder,
    nodes.Pow: values.power,
}
_COMPARISONS: Final[dict[str, Callable[[Any, Any, Meter], bool]]] = {
    "eq": values.equal,
    "ne": lambda one, other, meter: not values.equal(one, other, meter),
    "lt": lambda one, other, meter: values.compare(one, other, meter) < 0,
    "lteq": lambda one, other, meter: values.compare(one, other, meter) <= 0,
    "gt": lambda one, other, meter: values.compare(one, other, meter) > 0,
    "gteq": lambda one, other, meter: values.compare(one, other, meter) >= 0,
    "in": lambda one, other, meter: values.contains(other, one, meter),
    "notin": lambda one, other, meter: not values.contains(other, one, meter),
}


def _lenient(node: Node) -> Node:
    def evaluate(frame: Frame) -> Any:
        try:
            return node(frame)
        except MissingError:
            return _MISSING

    return evaluate


def _default(function: Callable[..., Any], inner: Node, arguments: list[Node], named: list[tuple[str, Node]]) -> Node:
    def evaluate(frame: Frame) -> Any:
        value = inner(frame)
        given, by_name = [item(frame) for item in arguments], _evaluated(named, frame)
        if value is not _MISSING:
            return filters.call("filter 'default'", function, frame.meter, value, given, by_name)
        # With `boolean` set, any falsy value gives the default; that is how to ask for it.
        return filters.call("filter 'default'", function, frame.meter, None, [*given[:1]], {**by_name, "boolean": True})

    return evaluate


def _evaluated(named: list[tuple[str, Node]], frame: Frame) -> dict[str, Json]:
    return {name: node(frame) for name, node in named}
