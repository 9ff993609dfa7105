from time import process_time

import pytest

from chalicelib.domain.patterns import MAX_PATTERN, PatternError, compile_pattern


def test_finds_anywhere_and_by_case() -> None:
    assert compile_pattern("b+").found_in("abbc")
    assert not compile_pattern("^b").found_in("abc")
    assert not compile_pattern("B").found_in("abc")
    assert compile_pattern("É", ignore_case=True).found_in("née")


@pytest.mark.parametrize("source", ["(", "(?=a)", r"(a)\1", "a{1001}", "x" * (MAX_PATTERN + 1), "\ud800"])
def test_refuses_what_it_cannot_run(source: str) -> None:
    with pytest.raises(PatternError):
        compile_pattern(source)


@pytest.mark.parametrize("source", ["(a+)+$", "(a|aa)+$", "(.*a){20}$", "(x+x+)+y"])
def test_a_catastrophic_pattern_answers_at_once(source: str) -> None:
    start = process_time()
    compile_pattern(source).found_in("a" * 5_000 + "!")
    assert process_time() - start < 0.5


def test_refuses_a_text_that_would_take_too_long() -> None:
    with pytest.raises(PatternError, match="too long"):
        compile_pattern("(a|b|.)*.{400}c$").found_in("ab" * 500_000)


def test_refuses_text_that_is_not_unicode() -> None:
    with pytest.raises(PatternError, match="Unicode"):
        compile_pattern("a").found_in("\ud800")
