"""Takes the values of secrets out of everything that leaves the runner, in whatever form they appear (README 11)."""

import base64
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import quote, quote_plus

Json = Any

MASK: Final = "********"
SHORTEST: Final = 4  # characters; below that a value is masked where it stands alone, not inside of other text


class Redactor:
    """Knows the forms of some secrets: as they are, base64 at every alignment, URL-encoded, JSON-escaped, hexadecimal,
    and line by line."""

    def __init__(self, secrets: Iterable[str]) -> None:
        values = {secret for secret in secrets if secret}
        self._alone = values
        forms = {form for value in values for form in _forms(value) if len(form) >= SHORTEST}
        # The longest first finds a secret before the shorter one inside it; sorted, so that runs are alike.
        self._forms = sorted(forms, key=lambda form: (-len(form), form))

    @property
    def longest(self) -> int:
        """Characters of the longest form: so much of one may be left at a cut."""
        return len(self._forms[0]) if self._forms else 0

    def text(self, text: str) -> str:
        """The text with every form of every secret replaced by :data:`MASK`; overlapping ones become one mask."""
        if text in self._alone:
            return MASK
        parts: list[str] = []
        done = 0
        for start, end in self.found_in(text):
            parts += (text[done:start], MASK)
            done = end
        return "".join([*parts, text[done:]])

    def begun_at_end_of(self, text: str) -> int:
        """How many characters at the end of ``text`` may be the beginning of something to mask."""
        return max((_begun(form, text) for form in self._forms), default=0)

    def found_in(self, text: str) -> list[tuple[int, int]]:
        """Where there is something to mask: spans in order, overlapping ones as one."""
        merged: list[tuple[int, int]] = []
        for start, end in sorted(span for form in self._forms for span in _occurrences(form, text)):
            if merged and start < merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], end))
            else:
                merged.append((start, end))
        return merged

    def json(self, value: Json) -> Json:
        """The value with its strings, keys included, and the numbers that are a secret redacted."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(name): self.json(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.json(inner) for inner in value]
        if isinstance(value, (int, float)) and not isinstance(value, bool) and str(value) in self._alone:
            return MASK
        return value


class RedactedStream:
    """Redacts text that comes in pieces, of which a secret may span several.

    >>> stream = RedactedStream(Redactor(["hunter22"]))
    >>> stream.add("my hunt"), stream.add("er22!"), stream.rest()
    ('', 'my ********', '!')
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = ""

    def add(self, text: str) -> str:
        """As much of what has come so far as nothing that follows can change."""
        self._held += text
        certain = len(self._held) - self._redactor.begun_at_end_of(self._held)
        for start, end in self._redactor.found_in(self._held):
            if start < certain < end:
                certain = start
        return self._release(certain)

    def rest(self) -> str:
        """What was held back: nothing follows."""
        return self._release(len(self._held))

    def _release(self, certain: int) -> str:
        text, self._held = self._held[:certain], self._held[certain:]
        return self._redactor.text(text)


def _begun(form: str, text: str) -> int:
    tail = text[max(0, len(text) - len(form) + 1) :]
    at = tail.find(form[0])
    while at >= 0:
        if form.startswith(tail[at:]):
            return len(tail) - at
        at = tail.find(form[0], at + 1)
    return 0


def _occurrences(form: str, text: str) -> Iterator[tuple[int, int]]:
    at = text.find(form)
    while at >= 0:
        yield at, at + len(form)
        at = text.find(form, at + len(form))


def _forms(value: str) -> Iterator[str]:
    raw = value.encode("utf-8", "surrogatepass")
    yield value
    yield value.strip()
    for line in value.splitlines():
        yield line.strip()
    yield from (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1])
    for encoded in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        yield from (encoded, encoded.lower())
    yield from (raw.hex(), raw.hex().upper())
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield _inside_base64(encode(b"\0" * before + raw).decode(), before, len(raw))


def _inside_base64(encoded: str, before: int, length: int) -> str:
    """The characters of ``encoded`` that depend on the value alone, and not on what stands before or behind it."""
    first = (8 * before + 5) // 6
    last = 8 * (before + length) // 6
    return encoded[first:last]
