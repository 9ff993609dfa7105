"""The language of workflow-language.md §7, value by value, and what keeps it from doing harm."""

from time import process_time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chalicelib.domain.expressions import ExpressionError, compile_expression
from chalicelib.domain.values import KEYSTORE_REFERENCES, Keystore, MissingError, Secret

SCOPE: dict[str, Any] = {
    "event": {
        "id": 1,
        "payload": {
            "size": 5,
            "name": "héllo",
            "none": None,
            "yes": True,
            "items": [{"n": 1, "k": "a"}, {"n": 2, "k": "b"}],
            "keys": "not a method",
            "user-name": "bob",
            "x-request-id": "r1",
            "if": "a keyword",
            "0": "a numeric key",
        },
    },
    "size": 3,
}


def value_of(source: str, **more: Any) -> Any:
    return compile_expression(source).evaluate({**SCOPE, **more})


def same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        # literals
        ("1", 1),
        ("1.5", 1.5),
        ("'a'", "a"),
        ('"a"', "a"),
        ("true", True),
        ("false", False),
        ("null", None),
        ("none", None),
        ("[1, 'a', null]", [1, "a", None]),
        ("[]", []),
        ("{'a': 1}", {"a": 1}),
        ("(1, 2)", [1, 2]),
        (r"'a\n\t\r\\\'b'", "a\n\t\r\\'b"),
        (r'"a\"b"', 'a"b'),
        (r"'\d+\b'", r"\d+\b"),
        (r"'\u00e9'", "é"),
        ("'é\r\nb'", "é\r\nb"),
        ("{{ 1 + 1 }}", 2),
        ("{{- size -}}", 3),
        ("  size\r\n", 3),
        # booleans, not operands
        ("1 and 'a'", True),
        ("1 and ''", False),
        ("0 or ''", False),
        ("0 or [0]", True),
        ("not 0", True),
        ("not ''", True),
        ("not {}", True),
        ("not 'false'", False),
        ("false and missing", False),
        ("true or missing", True),
        ("not 1 == 2", True),
        ("1 == 1 and not false or false", True),
        # equality: deep, numeric, never across types
        ("1 == 1.0", True),
        ("1 == true", False),
        ("0 == false", False),
        ("'1' == 1", False),
        ("null == 0", False),
        ("null == null", True),
        ("null == false", False),
        ("[1, [2]] == [1.0, [2]]", True),
        ("[true] == [1]", False),
        ("{'a': 1} == {'a': 1.0}", True),
        ("{'a': true} == {'a': 1}", False),
        ("'a' != 'b'", True),
        ("1 != '1'", True),
        ("[] == {}", False),
        # order
        ("1 < 1.5", True),
        ("2 >= 2.0", True),
        ("'a' < 'b'", True),
        ("[1, 2] < [1, 3]", True),
        ("[1] < [1, 0]", True),
        ("['a', [2]] > ['a', [1]]", True),
        ("1 < 2 < 3", True),
        ("1 < 3 < 2", False),
        # membership
        ("2 in [1, 2.0]", True),
        ("true in [1]", False),
        ("'a' in {'a': null}", True),
        ("'ell' in 'hello'", True),
        ("3 not in [1, 2]", True),
        ("[1] in [[1]]", True),
        # arithmetic
        ("1 + 2", 3),
        ("1 + 2.0", 3.0),
        ("'a' + 'b'", "ab"),
        ("[1] + [2]", [1, 2]),
        ("6 / 3", 2),
        ("7 / 2", 3.5),
        ("6.0 / 3", 2.0),
        ("-7 / 2", -3.5),
        ("7 % 4", 3),
        ("7 // 2", 3),
        ("2 ** 10", 1024),
        ("2 ** -1", 0.5),
        ("2 + 3 * 4", 14),
        ("(2 + 3) * 4", 20),
        ("-size", -3),
        ("--size", 3),
        ("10 - 2 - 3", 5),
        ("size-1", 2),
        ("event.payload.size - 1", 4),
        # access
        ("event.payload.size", 5),
        ("event['payload']['size']", 5),
        ("event.payload.items[0].n", 1),
        ("event.payload.items.1.n", 2),
        ("event.payload.items[-1].k", "b"),
        ("event.payload.name[1]", "é"),
        ("event.payload.name[-1]", "o"),
        ("event.payload.keys", "not a method"),
        ("event.payload.if", "a keyword"),
        ("event.payload.0", "a numeric key"),
        ("event.payload.none", None),
        ("{'a': {'b': 2}}.a.b", 2),
        ("event.payload.name[1:3]", "él"),
        ("[1, 2, 3][::-1]", [3, 2, 1]),
        ("event.payload.user-name", "bob"),
        ("event.payload.x-request-id", "r1"),
        # Jinja on top
        ("'big' if size > 2 else 'small'", "big"),
        ("'x' if false", None),
        ("'a' ~ 1 ~ null ~ true ~ [1]", "a1true[1]"),
        ("'a' | upper", "A"),
        ("event.payload.items | map(attribute='n') | sum", 3),
        ("size is odd", True),
        ("size is not odd", False),
        ("missing is defined", False),
        ("size is defined", True),
        ("event.payload.missing.deeper | default('d')", "d"),
        ("event.payload.none | default('d')", None),
        ("event.payload.none | default('d', true)", "d"),
        ("missing | d", ""),
    ],
)
def test_evaluates_to(source: str, expected: Any) -> None:
    assert same(value_of(source), expected)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing", "there is no variable 'missing'"),
        ("event.payload.missing", "there is no field 'missing' in event.payload"),
        ("event.payload.name.first", "string has no field 'first' in event.payload.name"),
        ("event.payload.none.x", "null has no field 'x'"),
        ("event.payload.items[5]", "position 5 is out of range, there are 2"),
        ("event.payload.items['n']", "array has no field 'n'"),
        ("event.payload.items[true]", "a position is an integer, not bool"),
        ("event.payload.missing-field", "there is no field 'missing-field' in event.payload"),
        ("1 + 'a'", "cannot add number and string"),
        ("'a' + 1", "cannot add string and number"),
        ("true + 1", "cannot add bool and number"),
        ("[1] + 1", "cannot add array and number"),
        ("'a' * 3", "cannot multiply string and number"),
        ("'%d' % 3", "cannot divide string and number"),
        ("-'a'", "cannot negate string"),
        ("1 / 0", "division by zero"),
        ("1.0 % 0", "division by zero"),
        ("1 // 0.0", "division by zero"),
        ("0 ** -1", "division by zero"),
        ("1 < 'a'", "number and string have no order"),
        ("true < 2", "bool and number have no order"),
        ("null < 1", "null and number have no order"),
        ("{} < {}", "object and object have no order"),
        ("1 in 1", "'in' needs an array, object or string on its right, not number"),
        ("1 in '1'", "must be a string, not number"),
        ("(-8) ** 0.5", "no fractional power"),
    ],
)
def test_says_what_is_wrong(source: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        value_of(source)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "  ",
        "{{ }}",
        "1 =2",
        "!x",
        "a b",
        "1 +",
        "(1",
        "[1",
        "'a",
        "a.",
        "1 ** ",
        "{{ a }} and {{ b }}",
        "x | nofilter",
        "x is notest",
        "x | attr('y')",
        "f(*x)",
        "f(a=1)",
        "length()",
        "length(1, 2)",
        r"'\ud800'",
        "1e999",
        "1 if",
    ],
)
def test_does_not_compile(source: str) -> None:
    with pytest.raises(ExpressionError):
        compile_expression(source)


@pytest.mark.parametrize(
    "source",
    [
        "''.__class__",
        "event.__class__",
        "event.payload.__class__.__mro__",
        "event.items()",
        "event.payload.keys()",
        "'a'.upper()",
        "''.__class__.__mro__[1].__subclasses__()",
        "event['__class__']",
        "(1).real",
        "[].append(1)",
        "length.__globals__",
        "range.__self__",
        "self",
        "self.__init__",
        "lipsum",
        "cycler.__init__",
        "namespace()",
        "dict()",
        "joiner()",
        "config",
        "request",
        "loop",
        "caller()",
        "varargs",
        "super()",
        "event | map(attribute='__class__')",
        "[''] | map(attribute='__class__') | list",
        "['a'] | map('attr', '__class__')",
        "'{0.__class__}'.format(1)",
        "'{0.__class__}' | format(1) | length > 20 and missing",
        "[1] | groupby('__class__')",
        "[''] | sum('__class__')",
        "[''] | selectattr('__class__') | first",
        "__import__('os')",
        "event.payload.items.__len__",
    ],
)
def test_reaches_for_no_attribute(source: str) -> None:
    with pytest.raises(ExpressionError):
        value_of(source)


@pytest.mark.parametrize(
    "source",
    [
        "'a' * 10**9",
        "[0] * 10**9",
        "range(10**12)",
        "range(0, 10**9, 3)",
        "range(-(10**9), 0)",
        "10**10**10",
        "2**9999",
        "9**9**9**9",
        "(" * 500 + ")" * 500,
        "[" * 500 + "]" * 500,
        "-" * 5000 + "1",
        "not " * 5000 + "true",
        "'%1000000000d' | format(1)",
        "'%.1000000000f' | format(1.0)",
        "'%*d' | format(1000000000, 1)",
        "'a' | center(10**9)",
        "'a' | indent(10**9, true)",
        "[1] | batch(10**9, 'x') | list",
        "[1] | slice(10**9) | list",
        "1.5 | round(10**9)",
        "'a' | replace('', 'b' | center(9999))| replace('', 'b' | center(9999))",
        "range(90000) | join('b' | center(9999))",
        "[[]] | sum(start=range(60000) + range(60000))",
        "{'a': range(99999)} | tojson(indent=9999)",
        "match('(a|b|.)*.{400}c$', 'b' | center(9999) | replace(' ', 'ab' | center(999)))",
        "zip(range(50000), range(50000))",
        "range(40000) | sort",
        "sort(range(40000))",
        "1e308 * 10",
        "-(1e308) - 1e308",
        "9223372036854775807 * 4",
        "number('9' + '9' | center(999))",
        "int('1e999')",
        "'9' * 5000",
        "1" * 5000,
        "range(30000) | map('string') | map('center', 9999) | list",
        "unique(range(60000) | map('list'))",
        "+".join(["1"] * 5000),
        "x" * 30_000,
        "event" + "[0]" * 5_000,
        "range(400) | map('replace', '', 'x' | center(9999)) | list",
    ],
)
def test_what_loops_or_grows_is_an_error_at_once(source: str) -> None:
    start = process_time()
    with pytest.raises(ExpressionError):
        value_of(source)
    assert process_time() - start < 0.5


def test_a_result_that_repeats_itself_is_measured_before_it_is_written_out() -> None:
    ten = "[" + ",".join(["{}"] * 10) + "]"
    source = ten.format(*["big"] * 10)
    value: Any = [0] * 1_000
    for _ in range(6):
        value = [value] * 10
    start = process_time()
    with pytest.raises(ExpressionError, match="too much work"):
        value_of(source, big=value)
    with pytest.raises(ExpressionError, match="too much work"):
        value_of("big ~ ''", big=value)
    assert process_time() - start < 0.5


def test_a_result_may_not_be_deep() -> None:
    value: Any = []
    for _ in range(80):
        value = [value]
    with pytest.raises(ExpressionError, match="levels deep"):
        value_of("[deep]", deep=value)


def test_work_is_counted_and_not_timed() -> None:
    expression = compile_expression("range(300) | map('string') | map('length') | sum")
    assert [expression.evaluate({}) for _ in range(3)] == [790, 790, 790]


def test_names_the_variables_it_reads() -> None:
    expression = compile_expression("event.payload.x + length(y) if task.a.b is defined else keystore['k'] ~ null")
    assert expression.names == {"event", "y", "task", "keystore"}
    assert expression.called == frozenset()


def test_surrounding_functions_are_called_with_values() -> None:
    expression = compile_expression("result().code == 200 and succeeded()")
    assert expression.called == {"result", "succeeded"}
    assert expression.evaluate({}, {"result": lambda: {"code": 200}, "succeeded": lambda: True}) is True
    with pytest.raises(ExpressionError, match="there is no function 'result'"):
        expression.evaluate({})


def test_is_compiled_once() -> None:
    assert compile_expression("1 + 41") is compile_expression("1 + 41")


def test_missing_is_told_from_other_errors() -> None:
    with pytest.raises(MissingError):
        value_of("event.payload.nope")
    with pytest.raises(ExpressionError) as caught:
        value_of("(1 + 'a') | default(2)")
    assert not isinstance(caught.value, MissingError)


SECRET = Secret(key="db.password")


@pytest.mark.parametrize(
    "source",
    [
        "secret",
        "[secret]",
        "{'a': [secret]}",
        "secret == 'x'",
        "'x' == secret",
        "secret != secret",
        "[secret] == ['x']",
        "secret < 'x'",
        "'x' in secret",
        "secret in ['x']",
        "secret in 'x'",
        "secret + 'x'",
        "'x' + secret",
        "'x' ~ secret",
        "not secret",
        "secret and true",
        "true and secret",
        "1 if secret else 2",
        "secret | upper",
        "secret | length",
        "secret | tojson",
        "[secret] | join(',')",
        "secret | int",
        "secret | float",
        "secret | string",
        "secret | list",
        "secret is string",
        "secret is none",
        "type_of(secret)",
        "length(secret)",
        "string(secret)",
        "bool(secret)",
        "[secret, secret] | unique",
        "[secret] | sort | first",
        "unique([secret, 'x'])",
        "match('a', secret)",
        "secret[0]",
        "secret.x",
        "secret | default('x', true)",
        "[secret] | map('upper')",
        "'%s' | format(secret)",
        "[1] | map('default', secret) | first ~ secret",
        "keystore",
        "keystore | length",
        "keystore[event.payload.name]",
        "keystore == keystore",
        "[keystore]",
        "[secret] | select('string')",
        "index_of([secret], 'x')",
        "[secret] | min",
    ],
)
def test_a_secret_is_not_looked_at(source: str) -> None:
    with pytest.raises(ExpressionError):
        value_of(source, secret=SECRET, keystore=KEYSTORE_REFERENCES)


def test_a_keystore_may_also_give_values() -> None:
    keystore = Keystore({"db.password": "s3cret", "my-key": "k"}.__getitem__)
    assert value_of("keystore.db.password == 's3cret'", keystore=keystore) is True
    assert value_of("keystore['db.password']", keystore=keystore) == "s3cret"
    assert value_of("keystore.my-key", keystore=keystore) == "k"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("ab.{}", max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "items"]), inner, max_size=3)
    ),
    max_leaves=6,
)
PIECES = """
a b x event .payload .a [0] ['a'] ( ) [ ] { } , : | == != < <= in not and or + - * / // % ** ~ is if else 1 2.5 'a' "b"
true null default defined map selectattr join tojson range( length( match( split( sort( zip( range(9999999) .__class__
keystore '(a+)+$' format center replace('','aaaaaaaaaaaaaaaaaaaa') 99999999 {% %} {{ }} \\
"""


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.sampled_from(PIECES.split()), max_size=14).map(" ".join) | st.text(max_size=30), JSON)
def test_any_text_is_a_value_or_an_expression_error(source: str, payload: Any) -> None:
    try:
        value = compile_expression(source).evaluate({"event": {"payload": payload}, "a": payload, "x": 1})
    except ExpressionError:
        return
    assert_is_json(value)


def assert_is_json(value: Any) -> None:
    assert type(value) in (type(None), bool, int, float, str, list, dict)
    if type(value) is list:
        for item in value:
            assert_is_json(item)
    if type(value) is dict:
        for name, item in value.items():
            assert type(name) is str
            assert_is_json(item)


@given(JSON, JSON)
def test_equality_is_symmetric_and_knows_types(one: Any, other: Any) -> None:
    scope = {"one": one, "other": other}
    assert compile_expression("one == other").evaluate(scope) is compile_expression("other == one").evaluate(scope)
    assert compile_expression("one == one").evaluate(scope) is True
    if compile_expression("type_of(one) != type_of(other)").evaluate(scope):
        assert compile_expression("one == other").evaluate(scope) is False
