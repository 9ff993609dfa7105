import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chalicelib.security.redaction import MASK, Redactor

# A value that the mask itself contains could never be seen to be gone.
VALUES = st.text(min_size=4, max_size=30).filter(lambda value: value.strip() and "*" not in value)
AROUND = st.text(alphabet=st.characters(exclude_characters="*"), max_size=10)
RAW_AROUND = st.binary(max_size=7)


@given(value=VALUES, before=AROUND, after=AROUND)
def test_the_value_is_gone_and_the_rest_is_not(value: str, before: str, after: str) -> None:
    redacted = Redactor([value]).text(before + value + after)
    assert value not in redacted
    assert MASK in redacted


@given(value=VALUES, before=RAW_AROUND, after=RAW_AROUND, urlsafe=st.booleans())
@example(value="é漢字💥", before=b"a", after=b"", urlsafe=True)
def test_base64_at_every_alignment(value: str, before: bytes, after: bytes, *, urlsafe: bool) -> None:
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    encoded = encode(before + value.encode() + after).decode()
    redacted = Redactor([value]).text(encoded)
    assert MASK in redacted
    # What is left decodes to nothing that touches the value.
    head, _, tail = redacted.partition(MASK)
    assert len(head) <= 8 * len(before) // 6
    assert len(tail.rstrip("=")) <= -(-8 * len(after) // 6) + 1


@given(value=VALUES)
@example(value='a"b\\c/d\n e')
@example(value="p+q/r?s&t=ü")
def test_escaped_forms(value: str) -> None:
    redactor = Redactor([value])
    once = json.dumps({"k": value})
    forms = [
        once,
        json.dumps({"k": value}, ensure_ascii=False),
        json.dumps(once),
        quote(value),
        quote(value, safe=""),
        quote_plus(value),
        quote(value, safe="").lower() if value.lower() == value else quote(value),
    ]
    for form in forms:
        redacted = redactor.text(form)
        assert MASK in redacted
        assert json.dumps(value)[1:-1] not in redacted
        assert quote(value, safe="") not in redacted


@given(lines=st.lists(VALUES.filter(lambda value: len(value.splitlines()) == 1), min_size=2, max_size=4))
def test_each_line_of_a_value(lines: list[str]) -> None:
    redactor = Redactor(["\n".join(lines)])
    for line in lines:
        stripped = line.strip()
        if len(stripped) >= 4:
            assert stripped not in redactor.text(f"> {line} <")


@given(text=st.text(), values=st.lists(VALUES, max_size=3))
def test_no_text_keeps_a_value(text: str, values: list[str]) -> None:
    redactor = Redactor(values)
    redacted = redactor.text(text)
    for value in values:
        assert value not in redacted


def test_overlapping_values_leave_no_part() -> None:
    assert Redactor(["abcdef", "defghi"]).text("<abcdefghi>") == f"<{MASK}>"
    assert Redactor(["aXaX"]).text("aXaXaX") == MASK


def test_two_values_are_two_masks() -> None:
    assert Redactor(["alpha", "bravo"]).text("alpha, bravo and charlie") == f"{MASK}, {MASK} and charlie"


@pytest.mark.parametrize("text", ["", "nothing here", "a*b", MASK])
def test_nothing_to_mask(text: str) -> None:
    assert Redactor(["secret", "", "   ", "****"]).text(text) == text


def test_short_values_only_as_words() -> None:
    redactor = Redactor(["42"])
    assert redactor.text("pin=42, port=4242, x42") == f"pin={MASK}, port=4242, x42"


def test_json() -> None:
    redactor = Redactor(["hunter22", "1234"])
    value = {"hunter22": ["x hunter22 y", 1234, 12345.5, True, None, {"n": 7}]}
    assert redactor.json(value) == {MASK: [f"x {MASK} y", MASK, MASK, True, None, {"n": 7}]}
