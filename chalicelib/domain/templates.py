"""Templates: ``{{ expression }}`` inside the strings of a JSON value (README 4, ``workflow-language.md`` §5).

A string that is one ``{{ … }}`` becomes the expression's value, whatever its type; any other is a text, with the values
written into it. Jinja's ``{% if %}``, ``{% for %}`` and ``{% set %}`` work too, metered like everything else.

Secrets never pass through a text. An expression that reads one yields a :class:`~chalicelib.domain.values.Secret`, an
object that no event can bring along, and a text is collected as a list of parts, so that what is stored says *where* a
secret goes and :func:`put_secrets` puts it there just before the run.
"""

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

import msgspec
from jinja2 import nodes

from chalicelib.domain.caching import compiled_once
from chalicelib.domain.entities import Event, Json, Pack, Rule
from chalicelib.domain.expressions import (
    NO_FUNCTIONS,
    UNEXPECTED,
    Compiler,
    Frame,
    Functions,
    Node,
    as_written,
    parse_template,
    path_of,
    reason,
    refuse_secrets,
    shortened,
)
from chalicelib.domain.schemas import SchemaError, compile_schema
from chalicelib.domain.values import (
    KEYSTORE_REFERENCES,
    ExpressionError,
    Keystore,
    Meter,
    Secret,
    array,
    measure,
    to_text,
    truthy,
)

MAX_SOURCE = 262_144  # characters of one template: a script with a few values in it
MAX_OUTPUT = 8 << 20  # bytes of JSON that one rendering may pass on, twice the largest event

Missing = Literal["error", "null"]
Kind = Literal["literal", "value", "text"]
Part = str | dict[str, str]

REDACTED: Final = {"$attune_secret": True, "redacted": True}  # semantics.md §2.3: what is stored where a secret goes

_Statement = Callable[[Frame, list[Any]], None]
_Pointer = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered value, with :data:`REDACTED` where a secret goes.

    ``secrets`` says what goes there, by JSON pointer (RFC 6901): the parts of a text, each a string or the source of a
    secret: ``{"key": ref}``, or ``{"pack": ref, "config": where}`` for a value of a pack's configuration, which
    :func:`at_pointer` finds. A lone source stands for the secret's value as it is, whatever its type.
    """

    value: Json
    secrets: dict[str, list[Part]] = field(default_factory=dict)


class Template:
    """A compiled string. ``names`` are the variables it reads, ``called`` the functions it calls that are not built in;
    ``kind`` says what it renders to."""

    __slots__ = ("_body", "_node", "called", "kind", "names", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        body = parse_template(source).body
        compiler = _TemplateCompiler()
        self._node: Node | None = None
        self._body: list[_Statement] = []
        match body:
            case [nodes.Output(nodes=[tree])] if not isinstance(tree, nodes.TemplateData):
                self.kind: Kind = "value"
                self._node = _measured(compiler, tree)
            case _:
                self.kind = "text"
                self._body = compiler.statements(body)
        self.names = frozenset(compiler.names)
        self.called = frozenset(compiler.called)

    def run(self, frame: Frame) -> Any:
        """Its value; for a text with secrets in it, a :class:`_Parts`."""
        try:
            if self._node is not None:
                return self._node(frame)
            written: list[Any] = []
            for statement in self._body:
                statement(frame, written)
        except ExpressionError as error:
            raise ExpressionError(f"{error} in {shortened(self.source)!r}") from None
        except UNEXPECTED as error:
            raise ExpressionError(f"cannot render {shortened(self.source)!r}: {reason(error)}") from None
        return _Parts(written) if any(type(part) is Secret for part in written) else "".join(written)

    def run_plainly(self, frame: Frame) -> Json:
        """As :meth:`run`, where a secret is an :class:`ExpressionError`."""
        value = self.run(frame)
        if type(value) is _Parts:
            raise ExpressionError(f"a secret cannot be used in {shortened(self.source)!r}")
        refuse_secrets(value)
        return value


class _Parts:
    """A text that is not whole yet."""

    __slots__ = ("parts",)

    def __init__(self, written: list[Any]) -> None:
        self.parts: list[Part] = []
        for part in written:
            for each in part.parts if type(part) is Secret else (part,):
                if type(each) is str and self.parts and type(last := self.parts[-1]) is str:
                    self.parts[-1] = last + each
                elif each:
                    self.parts.append(each)


@compiled_once
def compile_template(source: str) -> Template:
    """The compiled template, cached; or :class:`ExpressionError`."""
    if len(source) > MAX_SOURCE:
        raise ExpressionError(f"a template may have at most {MAX_SOURCE} characters")
    try:
        return Template(source)
    except UNEXPECTED as error:
        raise ExpressionError(f"cannot compile {shortened(source)!r}: {reason(error)}") from None


def is_template(text: str) -> bool:
    """Whether there is anything to render in ``text``."""
    return "{{" in text or "{%" in text


def kind_of(text: str) -> Kind:
    """Whether a string stays as it is, becomes a value of any type, or some other text."""
    return compile_template(text).kind if is_template(text) else "literal"


def check_templates(value: Json) -> list[str]:
    """What keeps the templates in ``value`` from compiling, one sentence each; empty when nothing does."""
    problems: list[str] = []
    waiting: list[tuple[_Pointer, Json]] = [((), value)]
    while waiting:
        path, item = waiting.pop()
        if isinstance(item, dict):
            waiting.extend(((*path, name), each) for name, each in item.items())
        elif isinstance(item, list):
            waiting.extend(((*path, str(index)), each) for index, each in enumerate(item))
        elif isinstance(item, str) and is_template(item):
            try:
                compile_template(item)
            except ExpressionError as error:
                problems.append(f"'{'.'.join(path)}': {error}")
    return problems


def render(value: Json, scope: Mapping[str, Any], *, missing: Missing, functions: Functions = NO_FUNCTIONS) -> Json:
    """``value`` with every template in it evaluated in ``scope``.

    ``missing="null"`` makes a plain dotted path that leads nowhere null, as in rules (``semantics.md`` §2.3). Whatever
    else goes wrong is an :class:`ExpressionError`, which names the place.
    """
    rendering = _Rendering(scope, missing, functions)
    rendered = rendering.rendered(value)
    if rendering.secrets:
        raise ExpressionError(f"{_place(next(iter(rendering.secrets)))}a secret cannot be used here")
    return rendered


def render_with_secrets(
    value: Json, scope: Mapping[str, Any], *, missing: Missing, functions: Functions = NO_FUNCTIONS
) -> Rendered:
    """As :func:`render`, but ``{{ keystore.<ref> }}`` and the scope's secrets may be used; they are put in later.

    Anything but passing a secret on, whole or inside a text, is an :class:`ExpressionError`.
    """
    rendering = _Rendering({**scope, "keystore": KEYSTORE_REFERENCES}, missing, functions)
    return Rendered(rendering.rendered(value), rendering.secrets)


def put_secrets(value: Json, secrets: Mapping[str, Sequence[Part]], read: Callable[[dict[str, str]], Json]) -> Json:
    """``value`` with its secrets in it: what :func:`render_with_secrets` left open, ``read`` gives.

    ``value`` itself is not changed.
    """
    for pointer, parts in secrets.items():
        match parts:
            case [dict(source)]:
                secret: Json = read(source)
            case _:
                secret = "".join(part if isinstance(part, str) else to_text(read(part), Meter()) for part in parts)
        value = _put(value, _path_of(pointer), secret)
    return value


def hide_secrets(value: Json, secrets: Mapping[str, Sequence[Part]]) -> Json:
    """``value``, rendered before, with a :class:`~chalicelib.domain.values.Secret` for each secret that it waits for,
    so that it can be rendered into something else."""
    for pointer, parts in secrets.items():
        value = _put(value, _path_of(pointer), Secret(*parts))
    return value


def pointer_to(*path: str) -> str:
    """The JSON pointer (RFC 6901) that leads along ``path``."""
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)


def at_pointer(value: Json, pointer: str) -> Json:
    """The part of ``value`` that a JSON pointer, or the plain name of a field, leads to; None if there is none."""
    for part in _path_of(pointer) if pointer.startswith("/") else [pointer]:
        match value:
            case dict():
                value = value.get(part)
            case list() if part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            case _:
                return None
    return value


def rule_scope(event: Event, rule: Rule, pack: Pack | None, now: datetime) -> dict[str, Any]:
    """What a rule's conditions and ``action_params`` can read (``semantics.md`` §2.3, README 4).

    ``trigger.payload``, ``trigger.data`` and ``event.payload`` are one value. Values that the pack's ``conf_schema``
    marks secret are :class:`~chalicelib.domain.values.Secret`.
    """
    return {
        "event": {
            "id": event.id,
            "trigger": event.trigger,
            "trigger_ref": event.trigger_ref,
            "payload": event.payload,
            "created": msgspec.to_builtins(event.created),
        },
        "trigger": {
            "payload": event.payload,
            "data": event.payload,
            "ref": event.trigger_ref,
            "type": event.trigger_ref,
        },
        "pack": {"ref": rule.pack_ref, "config": {} if pack is None else pack_config(pack)},
        "system": {"timestamp": msgspec.to_builtins(now), "rule": {"id": rule.id, "ref": rule.ref}},
    }


def pack_config(pack: Pack) -> Json:
    """A pack's configuration as expressions see it, with a ``Secret`` for every value that is one."""
    try:
        schema = compile_schema(pack.conf_schema).schema
    except SchemaError:
        # Nobody can tell any more which values are secret, so all of them are.
        return {name: Secret(pack=pack.ref, config=name) for name in pack.config or {}}
    return _hide(pack.config or {}, schema, pack.ref, ())


def _hide(value: Json, schema: Any, pack_ref: str, path: _Pointer) -> Json:
    if not isinstance(schema, dict):
        return value
    if schema.get("secret") is True and path:
        return None if value is None else Secret(pack=pack_ref, config=path[0] if len(path) == 1 else pointer_to(*path))
    if isinstance(value, dict) and (properties := schema.get("properties")):
        return {name: _hide(item, properties.get(name), pack_ref, (*path, name)) for name, item in value.items()}
    if isinstance(value, list) and (items := schema.get("items")):
        return [_hide(item, items, pack_ref, (*path, str(index))) for index, item in enumerate(value)]
    return value


class _Rendering:
    """One call of :func:`render`: its frame, what it has passed on, and the secrets that it met."""

    def __init__(self, scope: Mapping[str, Any], missing: Missing, functions: Functions) -> None:
        self.secrets: dict[str, list[Part]] = {}
        self._scope = scope
        self._functions = functions
        self._lenient = missing == "null"
        self._meter = Meter()
        self._size = 0

    def rendered(self, value: Json) -> Json:
        try:
            return self.render(value, ())
        except RecursionError:
            raise ExpressionError("the templates are nested too deeply") from None

    def render(self, value: Json, path: _Pointer) -> Json:
        match value:
            case str():
                return self._string(value, path) if is_template(value) else value
            case dict():
                return {name: self.render(item, (*path, name)) for name, item in value.items()}
            case list():
                return [self.render(item, (*path, str(index))) for index, item in enumerate(value)]
        return value

    def _string(self, source: str, path: _Pointer) -> Json:
        try:
            value = compile_template(source).run(
                Frame(self._scope, self._functions, self._meter, missing_is_null=self._lenient)
            )
            return self._passed_on(value, path)
        except ExpressionError as error:
            raise ExpressionError(f"{_place(pointer_to(*path))}{error}") from None
        except UNEXPECTED as error:
            raise ExpressionError(f"{_place(pointer_to(*path))}cannot pass this value on: {reason(error)}") from None

    def _passed_on(self, value: Any, path: _Pointer) -> Json:
        if type(value) is str:
            self._grow(len(value))
        elif type(value) is list or type(value) is dict:
            # An event's values may be large, so they are measured in C, which also says whether a secret is inside.
            secrets: list[Any] = []
            self._grow(len(msgspec.json.Encoder(enc_hook=secrets.append).encode(value)))
            if secrets:
                return self._without_secrets(value, path)
        elif type(value) is Secret or type(value) is Keystore or type(value) is _Parts:
            return self._without_secrets(value, path)
        return value

    def _without_secrets(self, value: Any, path: _Pointer) -> Json:
        match value:
            case Secret():
                self.secrets[pointer_to(*path)] = list(value.parts)
                return dict(REDACTED)
            case _Parts():
                self.secrets[pointer_to(*path)] = value.parts
                return dict(REDACTED)
            case dict():
                return {name: self._without_secrets(item, (*path, name)) for name, item in value.items()}
            case list():
                return [self._without_secrets(item, (*path, str(index))) for index, item in enumerate(value)]
            case Keystore():
                raise ExpressionError("name one key of the keystore: keystore.<ref>")
        return value

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > MAX_OUTPUT:
            raise ExpressionError(f"the result is larger than {MAX_OUTPUT} bytes")


class _TemplateCompiler(Compiler):
    """Compiles statements too: closures that write the parts of a text."""

    def statements(self, body: Sequence[nodes.Node]) -> list[_Statement]:
        compiled: list[_Statement] = []
        for tree in body:
            match tree:
                case nodes.Output():
                    compiled.extend(self._output(part) for part in tree.nodes)
                case nodes.If():
                    compiled.append(self._if(tree))
                case nodes.For():
                    compiled.append(self._for(tree))
                case nodes.Assign():
                    compiled.append(self._set(tree))
                case _:
                    name = type(tree).__name__.lower()
                    raise ExpressionError(f"{{% {name} %}} is not part of the language; if, for and set are")
        return compiled

    def _output(self, tree: nodes.Node) -> _Statement:
        if isinstance(tree, nodes.TemplateData):
            data = as_written(tree.data)

            def write_data(frame: Frame, written: list[Any]) -> None:
                frame.meter.spend_text(len(data))
                written.append(data)

            return write_data
        node = self.compile_value(tree)

        def write(frame: Frame, written: list[Any]) -> None:
            value = node(frame)
            if type(value) is not Secret:
                value = to_text(value, frame.meter)
                frame.meter.spend_text(len(value))
            written.append(value)

        return write

    def _if(self, tree: nodes.If) -> _Statement:
        branches = [(self.compile_value(branch.test), self.statements(branch.body)) for branch in (tree, *tree.elif_)]
        otherwise = self.statements(tree.else_)

        def choose(frame: Frame, written: list[Any]) -> None:
            body = next((body for test, body in branches if truthy(test(frame))), otherwise)
            for statement in body:
                statement(frame, written)

        return choose

    def _for(self, tree: nodes.For) -> _Statement:
        if tree.recursive:
            raise ExpressionError("recursive loops are not part of the language")
        iterated = self.compile_value(tree.iter)
        targets, outer = self._targets(tree.target), set(self.bound)
        self.bound |= {*targets, "loop"}
        test = None if tree.test is None else self.compile_value(tree.test)
        size = self.size
        body = self.statements(tree.body)
        cost = 2 + self.size - size
        self.bound = outer
        otherwise = self.statements(tree.else_)
        unpacks = not isinstance(tree.target, nodes.Name)

        def loop(frame: Frame, written: list[Any]) -> None:
            value = iterated(frame)
            items = list(value) if type(value) is dict or type(value) is str else array(value, "what a loop goes over")
            frame.meter.spend(len(items))
            scopes = [_bound(targets, item, unpacks=unpacks) for item in items]
            if test is not None:
                scopes = [scope for scope in scopes if truthy(test(_inner(frame, scope)))]
            for index, scope in enumerate(scopes):
                frame.meter.spend(cost)
                inner = _inner(frame, {**scope, "loop": _loop(index, len(scopes))})
                for statement in body:
                    statement(inner, written)
            if not scopes:
                for statement in otherwise:
                    statement(frame, written)

        return loop

    def _set(self, tree: nodes.Assign) -> _Statement:
        node = self.compile_value(tree.node)
        targets, unpacks = self._targets(tree.target), not isinstance(tree.target, nodes.Name)
        self.bound |= set(targets)

        def assign(frame: Frame, _: list[Any]) -> None:
            if not isinstance(frame.scope, ChainMap):
                frame.scope = ChainMap({}, frame.scope)  # type: ignore[arg-type]
            frame.scope.maps[0].update(_bound(targets, node(frame), unpacks=unpacks))

        return assign

    def _targets(self, tree: nodes.Node) -> list[str]:
        match tree:
            case nodes.Name():
                return [tree.name]
            case nodes.Tuple() if all(isinstance(item, nodes.Name) for item in tree.items):
                return [item.name for item in tree.items if isinstance(item, nodes.Name)]
        raise ExpressionError("only plain names can be set")


def _measured(compiler: Compiler, tree: nodes.Node) -> Node:
    node = compiler.compile_value(tree)
    if path_of(tree) is not None:
        return node

    def evaluate(frame: Frame) -> Any:
        value = node(frame)
        measure(value, frame.meter)
        return value

    return evaluate


def _inner(frame: Frame, scope: dict[str, Any]) -> Frame:
    scopes: ChainMap[str, Any] = ChainMap(scope, frame.scope)  # type: ignore[arg-type]
    return Frame(scopes, frame.functions, frame.meter, missing_is_null=frame.missing_is_null)


def _bound(targets: list[str], item: Any, *, unpacks: bool) -> dict[str, Any]:
    if not unpacks:
        return {targets[0]: item}
    if type(item) is not list or len(item) != len(targets):
        raise ExpressionError(f"there are {len(targets)} names for something else than an array of {len(targets)}")
    return dict(zip(targets, item, strict=True))


def _loop(index: int, length: int) -> dict[str, Json]:
    return {
        "index": index + 1,
        "index0": index,
        "revindex": length - index,
        "revindex0": length - index - 1,
        "first": index == 0,
        "last": index == length - 1,
        "length": length,
    }


def _path_of(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _put(value: Json, path: Sequence[str], secret: Json) -> Json:
    if not path:
        return secret
    match value:
        case dict():
            return {**value, path[0]: _put(value.get(path[0]), path[1:], secret)}
        case list():
            index = int(path[0])
            return [*value[:index], _put(value[index], path[1:], secret), *value[index + 1 :]]
    raise ExpressionError(f"there is no place {path[0]!r} to put a secret in")


def _place(pointer: str) -> str:
    return f"{pointer}: " if pointer else ""
