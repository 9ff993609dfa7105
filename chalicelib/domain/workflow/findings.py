"""What is found while a definition is read, and the reading of its plain values.

Nothing here raises: a value that cannot be taken is a problem, reading goes on without it, and whoever wrote the
definition learns of everything at once.
"""

from collections.abc import Collection
from difflib import get_close_matches
from typing import Final

import msgspec

from chalicelib.domain.entities import Json

MAX_PROBLEMS: Final = 500  # told of one definition; nobody reads on
MAX_LENGTH: Final = 1_000  # characters of a path or a message: either may quote what somebody wrote

_CLOSE: Final = 0.75  # how alike two words must be for one to be a slip of the other
_COMPARISONS: Final = 50_000  # of words, in search of what was meant; each takes some 10 µs


class Problem(msgspec.Struct, frozen=True):
    """``path`` leads from ``$``, the definition, to what is wrong: ``$.tasks[2].next[0].do``. ``message`` says what is
    wrong and what to change."""

    path: str
    message: str


class Findings:
    """The problems, for which a definition is refused, and the warnings, with which it is taken."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._comparisons = _COMPARISONS

    def problem(self, path: str, message: str) -> None:
        _add(self.problems, path, message)

    def warning(self, path: str, message: str) -> None:
        _add(self.warnings, path, message)

    def whole(self, value: Json, path: str, least: int, most: int) -> int | None:
        """A whole number; one that is written as text is taken too."""
        number = self._number(value)
        if number is None or number != int(number) or not least <= number <= most:
            self.problem(path, f"must be a whole number from {least} to {most}, not {shown(value)}")
            return None
        return int(number)

    def number(self, value: Json, path: str, most: float) -> float | None:
        """A number from 0 on; one that is written as text is taken too."""
        number = self._number(value)
        if number is None or not 0 <= number <= most:
            self.problem(path, f"must be a number from 0 to {most:g}, not {shown(value)}")
            return None
        return number

    def _number(self, value: Json) -> float | None:
        if isinstance(value, str) and len(value) <= 20:
            try:
                value = float(value)
            except ValueError:
                return None
        if isinstance(value, bool) or not isinstance(value, int | float) or value - value != 0:
            return None
        return value

    def text(self, value: Json, path: str, most: int = 255) -> str | None:
        """A text that is not empty."""
        if not isinstance(value, str) or not value.strip() or len(value) > most:
            self.problem(path, f"must be a text of 1 to {most} characters, not {shown(value)}")
            return None
        return value.strip()

    def object(self, value: Json, path: str) -> dict[str, Json]:
        """An object; a list of objects stands for all of them together, as StackStorm writes it."""
        if isinstance(value, list) and all(isinstance(each, dict) for each in value):
            return {name: item for each in value for name, item in each.items()}
        if not isinstance(value, dict):
            self.problem(path, f"must be a map of names to values, not {shown(value)}")
            return {}
        return value

    def names(self, value: Json, path: str) -> list[str]:
        """Names of tasks: a list, or one text in which commas part them."""
        listed = value.split(",") if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(each, str) and each.strip() for each in listed):
            self.problem(path, f"must be the name of a task, or a list of names, not {shown(value)}")
            return []
        return list(dict.fromkeys(each.strip() for each in listed))

    def one_of(self, value: Json, path: str, choices: Collection[str]) -> str | None:
        """One of a few words."""
        if value not in choices:
            self.problem(path, f"must be {' or '.join(choices)}, not {shown(value)}")
            return None
        return str(value)

    def misspelled(self, raw: dict[str, Json], path: str, known: Collection[str]) -> None:
        """Warn of a key that nobody knows and that looks like one that is known; others may be somebody's own."""
        for key in raw:
            if key not in known and (meant := self.closest(key, known)):
                self.warning(f"{path}.{key}", f"the key {key!r} is not known and is ignored; did you mean {meant!r}?")

    def closest(self, word: str, words: Collection[str]) -> str | None:
        """The one of ``words`` that ``word`` is a slip of, if any, and if there has not been too much to look for."""
        self._comparisons -= len(words)
        if self._comparisons < 0 or len(word) > 100:
            return None
        return next(iter(get_close_matches(word, words, n=1, cutoff=_CLOSE)), None)

    def hint(self, word: str, words: Collection[str]) -> str:
        """A question to end a message with, or nothing."""
        meant = self.closest(word, words)
        return "" if meant is None else f"; did you mean {meant!r}?"


def _add(told: list[Problem], path: str, message: str) -> None:
    if len(told) < MAX_PROBLEMS:
        told.append(Problem(path[:MAX_LENGTH], message[:MAX_LENGTH]))


def shown(value: Json) -> str:
    """A value as a message has room for it."""
    match value:
        case None:
            return "nothing"
        case dict():
            return "a map"
        case list():
            return "a list"
        case bool():
            return "true" if value else "false"
        case str() if len(value) > 60:
            return repr(value[:60] + "…")
    return repr(value)
