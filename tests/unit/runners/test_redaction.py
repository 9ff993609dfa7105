"""Whatever an action does to a secret on its way out."""

import base64
import json
from itertools import pairwise
from urllib.parse import quote, quote_plus

from hypothesis import given
from hypothesis import strategies as st

from runners.redaction import MASK, RedactedStream, Redactor

# The mask cannot hide what looks like itself.
characters = st.characters(codec="utf-8", exclude_characters="*")
secrets = st.text(characters, min_size=8, max_size=40).filter(lambda text: len(text.strip()) >= 8)
anything = st.text(characters, max_size=30)


@given(secrets, anything, anything)
def test_the_value_is_gone_and_the_rest_stays(secret: str, before: str, behind: str) -> None:
    text = Redactor([secret]).text(f"{before}{secret}{behind}")

    assert secret not in text
    assert MASK in text


@given(anything)
def test_text_without_a_secret_is_as_it_was(text: str) -> None:
    assert Redactor(["a-secret-that-is-not-in-it"]).text(text) == text


@given(secrets, st.binary(max_size=7), st.binary(max_size=7))
def test_base64_at_any_alignment_leaves_no_six_characters(secret: str, before: bytes, behind: bytes) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        alone = encode(secret.encode()).decode()
        text = Redactor([secret]).text(encode(before + secret.encode() + behind).decode())

        assert MASK in text
        assert alone[: len(alone) - 3] not in text


@given(secrets)
def test_other_spellings(secret: str) -> None:
    redactor = Redactor([secret])

    for spelled in (
        quote(secret), quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1], secret.encode().hex(), secret.encode().hex().upper(),
    ):  # fmt: skip
        assert spelled not in redactor.text(f"<{spelled}>")


def test_every_line_of_a_key_is_a_secret() -> None:
    key = "-----BEGIN KEY-----\n  MIIEowIBAAKCAQEA\n}\n-----END KEY-----"
    text = Redactor([key]).text("line: MIIEowIBAAKCAQEA, brace: }")

    assert text == f"line: {MASK}, brace: }}"


def test_overlapping_secrets_leave_nothing_between_them() -> None:
    assert Redactor(["abcdef", "defghi"]).text("<abcdefghi>") == f"<{MASK}>"


def test_json_is_redacted_in_keys_values_and_numbers() -> None:
    redactor = Redactor(["hunter22", "4711"])

    assert redactor.json({"hunter22": ["x hunter22", 4711, True, None, 1.5, {"a": "4711"}]}) == {
        MASK: [f"x {MASK}", MASK, True, None, 1.5, {"a": MASK}]
    }


def test_a_short_secret_is_masked_where_it_stands_alone() -> None:
    redactor = Redactor(["no", ""])

    assert redactor.json(["no", "nothing", ""]) == [MASK, "nothing", ""]


def test_the_longest_form_is_known() -> None:
    assert Redactor([]).longest == 0
    assert Redactor(["abcdefgh"]).longest == 16  # hexadecimal


@given(st.text("ab-", max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_a_stream_hides_what_the_whole_text_would(text: str, cuts: list[int]) -> None:
    redactor = Redactor(["abba-bab", "b-ab"])
    stream = RedactedStream(redactor)
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})

    said = "".join(stream.add(text[start:end]) for start, end in pairwise(edges)) + stream.rest()

    assert "abba-bab" not in said
    assert "b-ab" not in said
    assert said.replace(MASK, "") == redactor.text(text).replace(MASK, "")
