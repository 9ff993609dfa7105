"""Rendering: types, texts, statements, what is missing, and secrets that no event can forge or read."""

from datetime import UTC, datetime
from time import process_time
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chalicelib.domain.entities import Event, Pack, Rule
from chalicelib.domain.templates import (
    REDACTED,
    ExpressionError,
    Rendered,
    at_pointer,
    check_templates,
    compile_template,
    kind_of,
    pack_config,
    put_secrets,
    render,
    render_with_secrets,
    rule_scope,
)

NOW = datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=UTC)
PAYLOAD: dict[str, Any] = {
    "n": 5,
    "s": "text",
    "none": None,
    "yes": True,
    "f": 1.0,
    "list": [1, "é"],
    "object": {"a": 1},
    "user-name": "bob",
    "people": [{"name": "Ann", "age": 30}, {"name": "Bo", "age": 4}],
}


def pack(**fields: Any) -> Pack:
    base: dict[str, Any] = {"id": 1, "ref": "mine", "label": "", "version": "1.0.0", "created": NOW, "updated": NOW}
    return Pack(**base | fields)


def scope(payload: Any = PAYLOAD, **pack_fields: Any) -> dict[str, Any]:
    event = Event(id=11, trigger_ref="mine.hook", created=NOW, trigger=3, payload=payload)
    rule = Rule(
        id=7,
        ref="mine.rule",
        pack=1,
        pack_ref="mine",
        label="",
        action_ref="a.b",
        trigger_ref="mine.hook",
        created=NOW,
        updated=NOW,
    )
    return rule_scope(event, rule, pack(**pack_fields) if pack_fields else None, NOW)


def rendered(value: Any, **pack_fields: Any) -> Any:
    return render(value, scope(**pack_fields), missing="null")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ event.payload.n }}", 5),
        ("{{event.payload.list}}", [1, "é"]),
        ("{{ event.payload.none }}", None),
        ("{{ event.payload.yes }}", True),
        ("{{ event.payload.n + 1 }}", 6),
        ("{{ [event.payload.n, {'a': event.payload.s}] }}", [5, {"a": "text"}]),
        ("{{- event.payload.n -}}", 5),
        ("{{ event.payload.list.0 }}", 1),
        ("{{ event.payload.user-name }}", "bob"),
        ("{{ '5' }}", "5"),
        ("{{ '[1]' }}", "[1]"),
        ("{{ '{{ 1 }}' }}", "{{ 1 }}"),
        ("{{ event.id }}", 11),
        ("{{ event.trigger }}", 3),
        ("{{ event.trigger_ref }}", "mine.hook"),
        ("{{ event.created }}", "2026-03-01T12:30:15.250000Z"),
        ("{{ trigger.payload.n }}", 5),
        ("{{ trigger.data.n }}", 5),
        ("{{ trigger.ref }}", "mine.hook"),
        ("{{ trigger.type }}", "mine.hook"),
        ("{{ system.timestamp }}", "2026-03-01T12:30:15.250000Z"),
        ("{{ system.rule.id }}", 7),
        ("{{ system.rule.ref }}", "mine.rule"),
        ("{{ pack.ref }}", "mine"),
    ],
)
def test_one_expression_keeps_its_type(template: str, expected: Any) -> None:
    value = rendered(template)
    assert value == expected
    assert type(value) is type(expected)
    assert kind_of(template) == "value"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("n={{ event.payload.n }}", "n=5"),
        (" {{ event.payload.n }}", " 5"),
        ("{{ event.payload.n }}\n", "5\n"),
        ("{{ event.payload.s }}{{ event.payload.s }}", "texttext"),
        ("<{{ event.payload.none }}>", "<>"),
        ("{{ event.payload.yes }}!", "true!"),
        ("{{ event.payload.f }}!", "1.0!"),
        ("{{ event.payload.list }}!", '[1,"é"]!'),
        ("{{ event.payload.object }}!", '{"a":1}!'),
        ("a\r\nb {{ event.payload.n }}\r\n", "a\r\nb 5\r\n"),
        ("a\rb{{ 1 }}", "a\rb1"),
        ("{% if event.payload.n > 3 %}big{% elif false %}x{% else %}small{% endif %}", "big"),
        ("{% if event.payload.nope %}a{% endif %}b", "b"),
        (
            "{% for p in event.payload.people %}{{ loop.index }}{{ p.name }}{{ '' if loop.last else ',' }}{% endfor %}",
            "1Ann,2Bo",
        ),
        ("{% for p in event.payload.people if p.age > 9 %}{{ p.name }}{% endfor %}", "Ann"),
        ("{% for x in [] %}a{% else %}none{% endfor %}", "none"),
        ("{% for k, v in event.payload.object | items %}{{ k }}={{ v }}{% endfor %}", "a=1"),
        ("{% for k in event.payload.object %}{{ k }}{% endfor %}", "a"),
        ("{% set x = event.payload.n %}{{ x + 1 }}", "6"),
        ("{% for i in [1] %}{% set y = 2 %}{{ y }}{% endfor %}{{ y }}", "2"),
        ("{% set a, b = [1, 2] %}{{ a }}{{ b }}", "12"),
        ("x{{ 1 }}{# a comment #}", "x1"),
        ("echo ${#list[@]} {{ 1 }}", "echo ${#list[@]} 1"),
        ("{% raw %}{{ no }}{% endraw %}{{ 1 }}", "{{ no }}1"),
        ("a {{- 1 -}} b", "a1b"),
    ],
)
def test_anything_else_is_a_text(template: str, expected: str) -> None:
    assert rendered(template) == expected
    assert kind_of(template) == "text"


@pytest.mark.parametrize("literal", ["", "plain", "{ }", "}}", "${#list[@]}", "{#", "$(date +%Y)", "100%", "a\r\nb"])
def test_a_string_without_templates_stays_as_it_is(literal: str) -> None:
    assert rendered(literal) == literal
    assert kind_of(literal) == "literal"


def test_renders_whole_values_but_not_names() -> None:
    value = {"{{ 1 }}": ["{{ event.payload.n }}", {"a": "{{ event.payload.s }}!"}], "b": 1.5, "c": None, "d": True}
    assert rendered(value) == {"{{ 1 }}": [5, {"a": "text!"}], "b": 1.5, "c": None, "d": True}
    assert value["b"] == 1.5


def test_a_payload_is_never_rendered_again() -> None:
    evil = {"s": "{{ 7 * 7 }}", "k": "{{ keystore.db }}", "m": dict(REDACTED)}
    result = render_with_secrets(
        {"a": "{{ event.payload }}", "b": "x{{ event.payload.k }}"}, scope(evil), missing="null"
    )
    assert result == Rendered({"a": evil, "b": "x{{ keystore.db }}"}, {})


@pytest.mark.parametrize(
    "template",
    [
        "{{ event.payload.nope }}",
        "{{ event.payload.nope.deeper }}",
        "{{ event.payload.s.first }}",
        "{{ nope }}",
        "{{ pack.config.nope }}",
        "{{ event.payload.list.9 }}",
        "{{ event.payload.not-here }}",
    ],
)
def test_a_missing_path_is_null_in_rules_and_an_error_in_workflows(template: str) -> None:
    assert render(template, scope(), missing="null") is None
    assert render(f"<{template}>", scope(), missing="null") == "<>"
    with pytest.raises(ExpressionError):
        render(template, scope(), missing="error")
    with pytest.raises(ExpressionError):
        render(f"<{template}>", scope(), missing="error")


@pytest.mark.parametrize(
    "template", ["{{ event.payload.nope + 1 }}", "{{ event.payload.nope | upper }}", "{{ 1 / 0 }}", "{{ nope() }}"]
)
def test_more_than_a_missing_path_is_an_error_everywhere(template: str) -> None:
    with pytest.raises(ExpressionError):
        rendered(template)


def test_an_error_names_the_place() -> None:
    with pytest.raises(ExpressionError, match=r"^/a~1b/1: division by zero"):
        rendered({"a/b": [1, "{{ 1 / 0 }}"]})


@pytest.mark.parametrize(
    "template",
    [
        "{{",
        "{{ }}",
        "{{ 1",
        "{% if 1 %}",
        "{% endif %}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% extends 'x' %}",
        "{% block a %}{% endblock %}",
        "{% macro f() %}{% endmacro %}",
        "{% call f() %}{% endcall %}",
        "{% filter upper %}a{% endfilter %}",
        "{% set x %}a{% endset %}",
        "{% set a.b = 1 %}",
        "{% for a.b in [] %}{% endfor %}",
        "{% for x in [] recursive %}{% endfor %}",
        "{% do 1 %}",
        "{% with a = 1 %}{% endwith %}",
        "{% autoescape true %}{% endautoescape %}",
        "{{ 1 }}" * 70_000,
    ],
)
def test_does_not_compile(template: str) -> None:
    with pytest.raises(ExpressionError):
        compile_template(template)
    assert len(check_templates({"a": [template]})) == 1


@pytest.mark.parametrize(
    "code", ["+".join(["1"] * 50_000), "1," * 50_000, "a." * 50_000 + "b", "x" + "|upper" * 30_000]
)
def test_a_source_that_would_take_long_to_parse_is_refused_at_once(code: str) -> None:
    start = process_time()
    with pytest.raises(ExpressionError, match="at most 5000 tokens"):
        compile_template(f"{{{{ {code} }}}}")
    assert process_time() - start < 1


def test_deep_values_are_passed_on_or_refused() -> None:
    deep: Any = []
    for _ in range(5_000):
        deep = [deep]
    for template in ("{{ deep }}", "{{ deep == deep }}", "{{ [deep] }}", "<{{ deep }}>"):
        with pytest.raises(ExpressionError, match="deep"):
            render(template, {"deep": deep}, missing="error")


def test_a_reach_for_pythons_attributes_is_an_error_even_where_missing_paths_are_null() -> None:
    for template in ("{{ event.__class__ }}", "{{ event.payload.s.__class__.__mro__ }}"):
        with pytest.raises(ExpressionError):
            rendered(template)


def test_right_templates_have_no_problems() -> None:
    assert check_templates({"a": ["{{ 1 }}", "plain", "{% if x %}{% endif %}", 1]}) == []


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(10**9) %}x{% endfor %}",
        "{% for i in range(300) %}{% for j in range(300) %}{{ i }}{% endfor %}{% endfor %}",
        "{% for i in range(20000) %}{{ '" + "x" * 400 + "' }}{% endfor %}",
        "{% for i in range(9000) %}" + "x" * 9000 + "{% endfor %}",
        "{% for i in range(20000) %}{% if big == other %}a{% endif %}{% endfor %}",
        "{% for i in range(20000) %}{% if big < other %}a{% endif %}{% endfor %}",
        "{% for i in range(20000) %}{% if [big] | sort %}a{% endif %}{% endfor %}",
        "{% for i in range(9000) %}{{ " + " + ".join(["i"] * 100) + " }}{% endfor %}",
        "{% set a = range(300) %}{% for i in a %}{% for j in a %}{% for k in a %}{% endfor %}{% endfor %}{% endfor %}",
        "{% for i in range(9000) %}{{ big | float }}{{ big | int }}{{ big | title }}{% endfor %}",
        "{% for i in range(9000) %}{{ big | upper | length }}{% endfor %}",
        "{% for i in range(9000) %}{% if match('(a|b)*c', big) %}{% endif %}{% endfor %}",
        "{% for i in range(9000) %}{% if [big, 'a'] | map('lower') | unique %}{% endif %}{% endfor %}",
        "{{ 'a' * 10**9 }}",
        "{% for c in big %}{% for d in big %}x{% endfor %}{% endfor %}",
        "{{ big | list | join('" + "x" * 900 + "') }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}",
        "{{ self.__init__.__globals__ }}!",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ loop }}{{ lipsum.__globals__['os'] }}",
    ],
)
def test_what_loops_grows_or_reaches_for_attributes_is_an_error_at_once(template: str) -> None:
    scope = {"big": "x" * 50_000 + "a", "other": "x" * 50_000 + "b"}
    start = process_time()
    with pytest.raises(ExpressionError):
        render(template, scope, missing="error")
    assert process_time() - start < 1


def test_many_templates_share_one_budget() -> None:
    with pytest.raises(ExpressionError, match="too much work"):
        render(["{{ range(1000) }}"] * 200, {}, missing="error")


def test_what_is_passed_on_is_bounded_too() -> None:
    with pytest.raises(ExpressionError, match="larger than"):
        render(["{{ big }}"] * 10, {"big": ["x" * 1_000_000]}, missing="error")
    assert render("{{ big }}", {"big": "x" * 4_000_000}, missing="error") == "x" * 4_000_000


def test_variables_of_one_template_do_not_leak_into_the_next() -> None:
    assert render(["{% set x = 1 %}{{ x }}", "<{{ x }}>"], {}, missing="null") == ["1", "<>"]


def test_secrets_leave_marks_and_say_where_they_go() -> None:
    value = {
        "token": "{{ keystore.db.password }}",
        "headers": {"Authorization": "Bearer {{ keystore.token }}{{ event.payload.n }} {{ keystore.b }}"},
        "list": ["{{ [1, keystore.my-key] }}"],
        "plain": "{{ event.payload.n }}",
    }
    assert render_with_secrets(value, scope(), missing="null") == Rendered(
        {"token": REDACTED, "headers": {"Authorization": REDACTED}, "list": [[1, REDACTED]], "plain": 5},
        {
            "/token": [{"key": "db.password"}],
            "/headers/Authorization": ["Bearer ", {"key": "token"}, "5 ", {"key": "b"}],
            "/list/0/1": [{"key": "my-key"}],
        },
    )


def test_a_secret_can_be_chosen_but_not_computed_with() -> None:
    chosen = "{{ keystore.a if event.payload.n > 3 else keystore.b }}"
    assert render_with_secrets(chosen, scope(), missing="null").secrets == {"": [{"key": "a"}]}
    for computed in (
        "{{ keystore.a | upper }}",
        "{{ keystore.a ~ '' }}",
        "{{ keystore.a == 'x' }}",
        "{{ keystore }}",
        "{{ keystore[event.payload.s] }}",
        "{% if keystore.a %}{% endif %}",
        "{% for x in keystore.a %}{% endfor %}",
        "{{ {'a': keystore.a} | tojson }}",
        "x{{ [keystore.a] }}",
    ):
        with pytest.raises(ExpressionError):
            render_with_secrets(computed, scope(), missing="null")


def test_secrets_have_no_place_in_a_plain_rendering() -> None:
    with pytest.raises(ExpressionError, match="/a: a secret cannot be used here"):
        rendered(
            {"a": "x{{ pack.config.token }}"},
            conf_schema={"token": {"type": "string", "secret": True}},
            config={"token": "t"},
        )
    assert rendered("{{ keystore.a }}") is None


CONF_SCHEMA = {
    "url": {"type": "string"},
    "token": {"type": "string", "secret": True},
    "db": {
        "type": "object",
        "properties": {"host": {"type": "string"}, "pass/word": {"type": "string", "secret": True}},
    },
    "hosts": {"type": "array", "items": {"type": "object", "properties": {"key": {"type": "string", "secret": True}}}},
}
CONFIG = {"url": "u", "token": "t", "db": {"host": "h", "pass/word": "p"}, "hosts": [{"key": "k"}], "more": 1}


def test_secret_configuration_is_left_to_be_put_in() -> None:
    mine = pack(conf_schema=CONF_SCHEMA, config=CONFIG)
    value = {
        "all": "{{ pack.config }}",
        "url": "{{ pack.config.url }}",
        "header": "Token {{ pack.config.token }}",
        "db": "{{ pack.config.db['pass/word'] }}",
    }
    result = render_with_secrets(value, scope(conf_schema=CONF_SCHEMA, config=CONFIG), missing="null")
    assert result.value["url"] == "u"
    assert "t" not in msgspec.json.encode(result.value["all"]["token"]).decode().split('"')
    assert result.secrets == {
        "/all/token": [{"pack": "mine", "config": "token"}],
        "/all/db/pass~1word": [{"pack": "mine", "config": "/db/pass~1word"}],
        "/all/hosts/0/key": [{"pack": "mine", "config": "/hosts/0/key"}],
        "/header": ["Token ", {"pack": "mine", "config": "token"}],
        "/db": [{"pack": "mine", "config": "/db/pass~1word"}],
    }
    whole = put_secrets(result.value, result.secrets, lambda source: at_pointer(mine.config, source["config"]))
    assert whole == {"all": CONFIG, "url": "u", "header": "Token t", "db": "p"}


def test_all_configuration_is_secret_under_a_schema_that_cannot_be_read() -> None:
    config = pack_config(pack(conf_schema={"a": {"type": "moon"}}, config={"a": 1}))
    with pytest.raises(ExpressionError):
        render("{{ pack.config.a }}", {"pack": {"config": config}}, missing="null")


def test_putting_secrets_in_keeps_types_and_changes_nothing_else() -> None:
    value = {"a": [dict(REDACTED), 1], "b": dict(REDACTED)}
    secrets: Any = {"/a/0": [{"key": "object"}], "/b": ["<", {"key": "object"}, {"key": "none"}, ">"]}
    values = {"object": {"x": 1}, "none": None}
    assert put_secrets(value, secrets, lambda source: values[source["key"]]) == {"a": [{"x": 1}, 1], "b": '<{"x":1}>'}
    assert value == {"a": [REDACTED, 1], "b": REDACTED}
    assert put_secrets(dict(REDACTED), {"": [{"key": "object"}]}, lambda source: values[source["key"]]) == {"x": 1}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_whatever_an_event_brings_passes_through_unchanged(payload: Any) -> None:
    result = render_with_secrets(
        {"a": "{{ event.payload }}", "b": ["{{ trigger.data }}"]}, scope(payload), missing="null"
    )
    assert result == Rendered({"a": payload, "b": [payload]}, {})


@given(st.text(alphabet="{}%#'\"$ab.\r\n keystore|()[]-+1", max_size=30), JSON)
def test_any_template_renders_or_is_an_expression_error(template: str, payload: Any) -> None:
    try:
        result = render_with_secrets([template], scope(payload), missing="null")
    except ExpressionError:
        return
    msgspec.json.encode(result)


@given(st.text(alphabet="ab {}%#\r\n'é", max_size=30))
def test_text_around_templates_is_kept_to_the_letter(text: str) -> None:
    assume(not any(mark in text + "{" for mark in ("{{", "{%", "{#")))
    assert render(f"<{text}{{{{ 1 }}}}{text}>", {}, missing="error") == f"<{text}1{text}>"
