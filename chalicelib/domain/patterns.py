"""Regular expressions that cannot hang.

Patterns and the texts they meet are written by tenants and by whoever posts to a webhook, and a backtracking engine can
be kept busy for hours by forty characters. RE2 runs in time linear in the text and within a fixed memory, whatever the
pattern is. Its syntax is that of the engine existing Attune rules were written for (Rust's ``regex``): Perl's without
look-around and back-references.
"""

from functools import lru_cache
from typing import Any

MAX_PATTERN = 1_000  # characters
MAX_MEMORY = 1 << 20  # bytes of compiled program and cache, per pattern
MAX_WORK = 10_000_000  # bytes of text times instructions of the program: 50 ms at the very worst


class PatternError(ValueError):
    """A pattern that RE2 does not take; the message says why."""


class Pattern:
    """A compiled pattern."""

    def __init__(self, source: str, *, ignore_case: bool = False) -> None:
        # RE2 is loaded by those who need it: most rules have no pattern, and a cold start counts milliseconds.
        import re2  # type: ignore[import-untyped]

        if len(source) > MAX_PATTERN:
            raise PatternError(f"a pattern may have at most {MAX_PATTERN} characters")
        options = re2.Options()
        options.max_mem = MAX_MEMORY
        options.log_errors = False
        options.case_sensitive = not ignore_case
        self.source = source
        try:
            self._compiled: Any = re2.compile(source, options=options)
        except (re2.error, UnicodeError) as error:
            reason = error.args[0] if error.args else error
            raise PatternError(f"pattern {source!r} is not valid: {_text(reason)}") from None
        self._size: int = self._compiled.programsize

    def work_on(self, text: str) -> int:
        """The most steps that a search in ``text`` can take."""
        return (len(text) + 1) * self._size

    def found_in(self, text: str) -> bool:
        """Whether the pattern matches anywhere in ``text``; :class:`PatternError` if it could take too long to say."""
        if self.work_on(text) > MAX_WORK:
            raise PatternError(f"the text is too long for the pattern {self.source!r}")
        try:
            return self._compiled.search(text) is not None
        except UnicodeError:
            raise PatternError("the text is not valid Unicode") from None


@lru_cache(maxsize=128)
def compile_pattern(source: str, *, ignore_case: bool = False) -> Pattern:
    """The compiled pattern, or :class:`PatternError`."""
    return Pattern(source, ignore_case=ignore_case)


def _text(reason: object) -> str:
    return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
