"""Jinja's filters and tests, held against Jinja itself where both have an opinion."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment

from chalicelib.domain.expressions import ExpressionError, compile_expression

ITEMS: list[Any] = [
    {"n": 2, "k": "b", "d": {"x": 1}},
    {"n": 1, "k": "A", "d": {"x": 2}},
    {"n": 2, "k": "c", "d": {"x": 3}},
]
SCOPE: dict[str, Any] = {
    "items": ITEMS,
    "words": ["b", "A", "c", "a"],
    "numbers": [3, 1, 2, 3],
    "text": "the quick brown fox",
    "size": 1234.5678,
    "object": {"b": 2, "A": 1},
    "empty": [],
    "nothing": None,
}

AS_IN_JINJA = [
    "text | capitalize",
    "text | title",
    "text | upper",
    "'ABC' | lower",
    "text | wordcount",
    "text | length",
    "items | count",
    "text | center(30)",
    "text | truncate(12)",
    "text | truncate(12, true)",
    "text | truncate(18)",
    "text | truncate(9, false, '…', 0)",
    "' x ' | trim",
    "'xxax' | trim('x')",
    "text | replace('quick', 'slow')",
    "'aaa' | replace('a', 'b', 2)",
    "text | reverse | list | join",
    "'a\\nb\\n\\nc' | indent",
    "'a\\nb' | indent(2, true)",
    "'a\\n\\nb' | indent('> ', true, true)",
    "'%s-%03d-%.2f' | format('a', 7, 1.5)",
    "numbers | first",
    "numbers | last",
    "numbers | sum",
    "numbers | max",
    "numbers | min",
    "words | max",
    "words | min(case_sensitive=true)",
    "items | max(attribute='n') | tojson | length > 0",
    "numbers | sort",
    "numbers | sort(reverse=true)",
    "words | sort",
    "words | sort(case_sensitive=true)",
    "items | sort(attribute='n') | map(attribute='k') | list",
    "items | sum(attribute='n')",
    "items | map(attribute='d.x') | list",
    "items | map(attribute='zz', default=0) | list",
    "words | map('upper') | list",
    "words | map('replace', 'a', 'z') | list",
    "numbers | select('odd') | list",
    "numbers | reject('odd') | list",
    "numbers | select('gt', 2) | list",
    "numbers | select | list",
    "items | selectattr('n', 'eq', 2) | map(attribute='k') | list",
    "items | rejectattr('n', 'in', [2]) | map(attribute='k') | list",
    "items | selectattr('k') | list | length",
    "items | selectattr('zz', 'defined') | list",
    "items | selectattr('zz', 'undefined') | list | length",
    "items | rejectattr('zz') | list | length",
    "words | unique | list",
    "words | unique(case_sensitive=true) | list",
    "items | unique(attribute='n') | map(attribute='k') | list",
    "numbers | join('-')",
    "words | join",
    "items | join(',', attribute='k')",
    "numbers | batch(3) | map('list') | list",
    "numbers | batch(3, 0) | map('list') | list",
    "numbers | slice(3) | map('list') | list",
    "numbers | slice(3, 0) | map('list') | list",
    "object | dictsort | map('list') | list",
    "object | dictsort(by='value') | map('list') | list",
    "object | dictsort(true, reverse=true) | map('list') | list",
    "object | items | map('list') | list",
    "object | length",
    "object | list",
    "'abc' | list",
    "items | groupby('n') | map('first') | list",
    "items | groupby('k') | map('first') | list",
    "items | groupby('n') | map('last') | map('length') | list",
    "2.7 | round",
    "2.345 | round(2)",
    "2.1 | round(method='ceil')",
    "2.9 | round(0, 'floor')",
    "1234 | round(-2)",
    "'42' | int",
    "'x' | int",
    "'x' | int(7)",
    "'ff' | int(0, 16)",
    "'4.2' | int",
    "'4.2' | float",
    "'x' | float(1.5)",
    "-3 | abs",
    "size | abs",
    "1000000 | filesizeformat",
    "nothing | default('d')",
    "nothing | default('d', true)",
    "missing | default('d')",
    "'' | d('e', boolean=true)",
    "'a b&c/d' | urlencode",
    "{'a': 'x y', 'b': 2} | urlencode",
    "'<a>' | e | string",
    "'a' | safe",
    "words | reverse | list",
    "1 is odd",
    "2 is even",
    "4 is divisibleby(2)",
    "1 is number",
    "'a' is string",
    "[] is iterable",
    "{} is mapping",
    "[] is sequence",
    "none is none",
    "true is boolean",
    "true is true",
    "1 is integer",
    "1.0 is float",
    "'a' is lower",
    "'A' is upper",
    "1 is eq(1)",
    "1 is ne(2)",
    "1 is lt(2)",
    "2 is ge(2)",
    "1 is in([1])",
    "missing is undefined",
    "1 is sameas(1)",
]


@pytest.mark.parametrize("source", AS_IN_JINJA)
def test_agrees_with_jinja(source: str) -> None:
    theirs = Environment(autoescape=False).compile_expression(source)(**SCOPE)
    ours = compile_expression(source).evaluate(SCOPE)
    assert ours == theirs
    assert type(ours) is type(theirs) or isinstance(theirs, str)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("object | tojson", '{"b":2,"A":1}'),
        ("'<é>' | tojson", '"<é>"'),
        ("[1] | tojson(indent=2)", "[\n  1\n]"),
        ("nothing | string", ""),
        ("true | string", "true"),
        ("[1] | string", "[1]"),
        ("true | upper", "TRUE"),
        ("[1, true, 1.0] | unique", [1, True]),
        ("[[1], [1]] | unique", [[1]]),
        ("nothing is null", True),
        ("items | groupby('n') | map('first')", [1, 2]),
    ],
)
def test_speaks_json_where_jinja_speaks_python(source: str, expected: Any) -> None:
    assert compile_expression(source).evaluate(SCOPE) == expected


@pytest.mark.parametrize(
    "source",
    [
        "empty | first",
        "empty | max",
        "missing | upper",
        "items | map(attribute='zz') | list",
        "[1, 'a'] | sort",
        "[1, 'a'] | max",
        "numbers | map",
        "numbers | map('nope')",
        "numbers | map('map', 'upper')",
        "numbers | select('nope') | list",
        "items | selectattr",
        "1 | list",
        "nothing | list",
        "1 | length",
        "'a' | abs",
        "'a' | round",
        "numbers | batch(0)",
        "numbers | slice(0)",
        "text | center(-1)",
        "'%r' | format(1)",
        "'%s %s' | format(1)",
        "'%d' | format('a')",
        "'%q' | format(1)",
        "text | truncate(2)",
        "object | dictsort(by='moon')",
        "1.5 | round(1, 'up')",
        "text | nope",
        "text | upper(1)",
        "text | replace('a')",
        "'a' | trim('x' | center(200))",
        "1 is divisibleby(0)",
        "'a' is odd",
        "numbers | random",
        "text | urlize",
        "text | xmlattr",
        "text | pprint",
        "text | attr('upper')",
        "text | truncate(*numbers)",
    ],
)
def test_refuses(source: str) -> None:
    with pytest.raises(ExpressionError):
        compile_expression(source).evaluate(SCOPE)


@given(st.text(max_size=40), st.integers(3, 30), st.integers(0, 9))
def test_truncate_agrees_with_jinja_on_any_text(text: str, length: int, leeway: int) -> None:
    source = f"t | truncate({length}, leeway={leeway})"
    theirs = Environment(autoescape=False).compile_expression(source)(t=text)
    assert compile_expression(source).evaluate({"t": text}) == theirs


@given(st.lists(st.integers(-9, 9), max_size=12), st.integers(1, 5))
def test_slice_and_batch_agree_with_jinja_on_any_array(items: list[int], count: int) -> None:
    for name in ("slice", "batch"):
        source = f"x | {name}({count}, 0) | map('list') | list"
        theirs = Environment(autoescape=False).compile_expression(source)(x=items)
        assert compile_expression(source).evaluate({"x": items}) == theirs
