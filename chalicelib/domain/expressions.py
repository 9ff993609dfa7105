"""Expressions (README 4, ``workflow-language.md`` §7-8): Jinja2's grammar, the contract's values, bounded cost."""

from collections.abc import Callable, Mapping
from functools import lru_cache

from chalicelib.domain.entities import Json

Functions = Mapping[str, Callable[..., Json]]


class ExpressionError(Exception):
    """An expression that does not compile or evaluate; the message says what is wrong and where."""


class Expression:
    """A compiled expression."""

    source: str
    names: frozenset[str]

    def __init__(self, source: str) -> None:
        self.source = source
        self.names = frozenset()

    def evaluate(self, scope: Mapping[str, Json], functions: Functions | None = None) -> Json:
        """Its value in ``scope``, or :class:`ExpressionError`."""
        raise ExpressionError(self.source)


@lru_cache(maxsize=2048)
def compile_expression(source: str) -> Expression:
    """The compiled expression; one pair of surrounding ``{{ }}`` is stripped."""
    return Expression(source)
