"""A stranger's YAML file as a JSON value that knows its lines.

PyYAML's safe loader keeps code out. What it does not keep out is stopped here, before it costs anything: nesting deep
enough to overflow the C stack of libyaml's composer, aliases that multiply ("billion laughs"), keys that are given
twice, and values that are no JSON (dates, sets, binary, infinite or huge numbers, keys that are not text).
"""

import math
import re
from collections.abc import Iterator
from typing import Final

import yaml

from chalicelib.domain.entities import Json

MAX_BYTES: Final = 1 << 20  # workflow-language.md §1: the limit for workflow files, here for all
MAX_DEPTH: Final = 64
MAX_NODES: Final = 100_000  # with every alias counted as what it stands for

_STR: Final = "tag:yaml.org,2002:str"
_MERGE: Final = "tag:yaml.org,2002:merge"
_PATH: Final = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")


class DocumentError(Exception):
    """Not one harmless YAML document. ``line`` counts from 1."""

    def __init__(self, reason: str, line: int = 1) -> None:
        super().__init__(reason)
        self.line = line


class Document:
    """``value`` is JSON; where each part of it stands can be asked for."""

    def __init__(self, value: Json, node: yaml.Node | None) -> None:
        self.value = value
        self._node = node

    def line_of(self, path: str) -> int:
        """The line of what ``path`` (``$.grants[0].actions``) leads to, or of the deepest part of it that exists."""
        node = self._node
        line = 1
        for key, index in _PATH.findall(path):
            match node:
                case yaml.MappingNode():
                    found = next(((k, v) for k, v in node.value if k.value == key), None)
                    if found is None:
                        return line
                    line, node = _line(found[0]), found[1]
                case yaml.SequenceNode() if index and int(index) < len(node.value):
                    node = node.value[int(index)]
                    line = _line(node)
                case _:
                    return line
        return line


def read(data: bytes) -> Document:
    """The one document in ``data``, which must be UTF-8. Raises :class:`DocumentError`."""
    if len(data) > MAX_BYTES:
        raise DocumentError(f"the file is larger than {MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError("the file is not UTF-8", data[: error.start].count(b"\n") + 1) from None
    try:
        _check_events(text)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return Document(None, None)
        _check_nodes(node)
        return Document(loader.construct_document(node), node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise DocumentError(f"not YAML: {error.problem or error.context}", mark.line + 1 if mark else 1) from None
    except yaml.YAMLError as error:
        raise DocumentError(f"not YAML: {error}") from None


class _Loader(yaml.CSafeLoader):
    """Safe YAML whose scalars are JSON: what YAML would make a date stays the text it is."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML reads this class attribute
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        try:
            number = self.construct_yaml_int(node)
        except ValueError:  # also Python's own limit on the digits of a number
            raise _not_a_number(node) from None
        if number.bit_length() > 63:
            raise DocumentError("a whole number must fit 64 bits", _line(node))
        return number

    def construct_real(self, node: yaml.ScalarNode) -> float:
        try:
            number = self.construct_yaml_float(node)
        except (ValueError, OverflowError):
            raise _not_a_number(node) from None
        if not math.isfinite(number):
            raise DocumentError("a number must be finite", _line(node))
        return number

    def refuse(self, node: yaml.Node) -> Json:
        raise DocumentError(f"the tag {node.tag.removeprefix('tag:yaml.org,2002:')!r} is not taken", _line(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_real)
for _kind in ("binary", "timestamp", "set", "omap", "pairs"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.refuse)


def _check_events(text: str) -> None:
    """Depth is checked on events, for libyaml's composer recurses on the C stack: 200,000 brackets end the process."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                mark = event.start_mark
                raise DocumentError(f"nested deeper than {MAX_DEPTH}", mark.line + 1 if mark else 1)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_nodes(root: yaml.Node) -> None:
    """Raise for duplicate or non-text keys and for a size that only aliases can make; costs the unexpanded size."""
    sizes: dict[int, int] = {}
    depths: dict[int, int] = {}
    open_: set[int] = set()

    def measure(node: yaml.Node) -> tuple[int, int]:
        key = id(node)
        if key in open_:
            raise DocumentError("an alias contains itself", _line(node))
        if key not in sizes:
            open_.add(key)
            size = depth = 1
            for child in _children(node):
                child_size, child_depth = measure(child)
                size += child_size
                depth = max(depth, child_depth + 1)
            open_.discard(key)
            if size > MAX_NODES or depth > MAX_DEPTH:
                raise DocumentError(f"more than {MAX_NODES} values, or nested deeper than {MAX_DEPTH}", _line(node))
            sizes[key], depths[key] = size, depth
        return sizes[key], depths[key]

    measure(root)


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    match node:
        case yaml.SequenceNode():
            yield from node.value
        case yaml.MappingNode():
            seen: set[str] = set()
            for key, value in node.value:
                if key.tag != _MERGE:
                    if key.tag != _STR or not isinstance(key, yaml.ScalarNode):
                        raise DocumentError("a key must be text: put it in quotes", _line(key))
                    if key.value in seen:
                        raise DocumentError(f"the key {key.value!r} is there twice", _line(key))
                    seen.add(key.value)
                yield value


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1 if node.start_mark else 1


def _not_a_number(node: yaml.ScalarNode) -> DocumentError:
    return DocumentError(f"{node.value[:40]!r} is not a number", _line(node))
