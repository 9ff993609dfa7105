"""Compile once, within bounds.

Sources come from tenants, so a cache that counts entries alone could be filled with the largest ones allowed. Many
small compiled things are kept, and few large ones.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Protocol, TypeVar

SMALL = 1_024  # bytes or characters of a source
MANY, FEW = 2_048, 32


class Sized(Protocol):
    """A source that can be told from others, and measured."""

    def __len__(self) -> int: ...
    def __hash__(self) -> int: ...


Source = TypeVar("Source", bound=Sized)
Compiled = TypeVar("Compiled")


def compiled_once(compile_: Callable[[Source], Compiled]) -> Callable[[Source], Compiled]:
    """``compile_``, remembering what it gave; what it raised is not remembered."""
    small, large = lru_cache(maxsize=MANY)(compile_), lru_cache(maxsize=FEW)(compile_)

    def look_up(source: Source) -> Compiled:
        return small(source) if len(source) <= SMALL else large(source)

    look_up.__doc__ = compile_.__doc__
    return look_up
