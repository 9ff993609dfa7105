"""Taking secret values out of whatever leaves the platform (contract README 11), in every form that they usually take.

A value is looked for as it is, line by line, escaped as JSON (once and twice), percent-encoded for URLs, and inside
base64 of a longer text, where it looks different at each of three alignments. Occurrences that overlap are masked
together, so that of neither a part is left.
"""

import base64
import json
import string
from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import quote, quote_plus

Json = Any

MASK: Final = "********"

_SHORT: Final = 4  # characters below which a value is masked only where it stands as a word: it would be everywhere
_BASE64: Final = frozenset(string.ascii_letters + string.digits + "+/-_")


class Redactor:
    """Masks a set of values. Empty ones, and those that are nothing but mask, are left alone."""

    def __init__(self, values: Iterable[str]) -> None:
        self._words: set[str] = set()
        self._texts: set[str] = set()
        self._fragments: set[str] = set()
        for value in values:
            for part in _parts(value):
                if len(part) < _SHORT:
                    self._words.add(part)
                else:
                    self._texts.update(_spellings(part))
                    self._fragments.update(_base64_fragments(part))

    def text(self, text: str) -> str:
        """``text`` with every occurrence of every value replaced by the mask."""
        spans = sorted(self._spans(text))
        if not spans:
            return text
        pieces: list[str] = []
        done = 0
        start, end = spans[0]
        for next_start, next_end in [*spans[1:], (len(text) + 1, 0)]:
            if next_start <= end:
                end = max(end, next_end)
                continue
            pieces += (text[done:start], MASK)
            done, start, end = end, next_start, next_end
        return "".join(pieces) + text[done:]

    def json(self, value: Json) -> Json:
        """A JSON value with every string in it redacted, keys included, and numbers that print as a value."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key): self.json(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.json(each) for each in value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            printed = str(value)
            return value if self.text(printed) == printed else MASK
        return value

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        for literal in self._texts:
            yield from _occurrences(text, literal)
        for word in self._words:
            for start, end in _occurrences(text, word):
                if not (_is_word(text, start - 1) or _is_word(text, end)):
                    yield start, end
        for fragment in self._fragments:
            for start, end in _occurrences(text, fragment):
                # The neighbours hold the remaining bits of the value's first and last byte.
                first = start - 1 if start and text[start - 1] in _BASE64 else start
                last = end + 1 if end < len(text) and text[end] in _BASE64 else end
                while last < len(text) and text[last] == "=":
                    last += 1
                yield first, last


def _parts(value: str) -> set[str]:
    """The value, without the blanks around it, and each of its lines."""
    parts = {value, value.strip(), *(line.strip() for line in value.splitlines())}
    return {part for part in parts if part.strip("*").strip()}


def _spellings(value: str) -> Iterator[str]:
    yield value
    for ascii_only in (True, False):
        escaped = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        yield escaped
        yield escaped.replace("/", "\\/")
        yield json.dumps(escaped, ensure_ascii=ascii_only)[1:-1]
    raw = _bytes(value)
    for encoded in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        yield encoded
        yield _lower_percents(encoded)


def _base64_fragments(value: str) -> Iterator[str]:
    """What base64 of any text around the value must contain, at each alignment, in both alphabets."""
    raw = _bytes(value)
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + raw).decode().rstrip("=")
        first = -(-8 * before // 6)  # characters before this one also hold bits of what stands before
        last = 8 * (before + len(raw)) // 6  # and from this one on, of what follows
        fragment = encoded[first:last]
        if len(fragment) >= _SHORT:
            yield fragment
            yield fragment.translate({ord("+"): "-", ord("/"): "_"})


def _bytes(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def _lower_percents(encoded: str) -> str:
    head, *escapes = encoded.split("%")
    return "%".join([head, *(escape[:2].lower() + escape[2:] for escape in escapes)])


def _occurrences(text: str, literal: str) -> Iterator[tuple[int, int]]:
    """Every place where ``literal`` begins, overlapping ones included."""
    start = text.find(literal)
    while start >= 0:
        yield start, start + len(literal)
        start = text.find(literal, start + 1)


def _is_word(text: str, position: int) -> bool:
    return 0 <= position < len(text) and (text[position].isalnum() or text[position] == "_")
