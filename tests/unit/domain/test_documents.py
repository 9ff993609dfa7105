import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain import documents
from chalicelib.domain.documents import DocumentError


def refusal(text: str | bytes) -> DocumentError:
    with pytest.raises(DocumentError) as caught:
        documents.read(text.encode() if isinstance(text, str) else text)
    return caught.value


def test_plain_values() -> None:
    text = b"a: 1\nb: [true, null, 1.5, x]\nc: {d: 2026-01-01, e: 0x10}\n"
    assert documents.read(text).value == {"a": 1, "b": [True, None, 1.5, "x"], "c": {"d": "2026-01-01", "e": 16}}


def test_aliases_and_merges_work_within_reason() -> None:
    text = b"base: &b {x: 1, y: 2}\nmore: {<<: *b, y: 3}\nsame: *b\n"
    assert documents.read(text).value["more"] == {"x": 1, "y": 3}


def test_an_empty_file_is_null() -> None:
    assert documents.read(b"# nothing\n").value is None


@pytest.mark.parametrize(
    ("text", "reason", "line"),
    [
        ("a: [1\nb: 2\n", "not YAML", 2),
        ("ok: 1\n\tx: 2\n", "not YAML", 2),
        ("a: 1\n---\nb: 2\n", "not YAML", 2),
        ("a: 1\nb: 2\na: 3\n", "'a' is there twice", 3),
        ("a: 1\n2: x\n", "must be text", 2),
        ("a: 1\non: x\n", "must be text", 2),
        ("a: 1\n? [x, y]\n: z\n", "must be text", 2),
        ("a:\n- 1\n- .inf\n", "finite", 3),
        ("a: .nan", "finite", 1),
        ("a: 99999999999999999999", "64 bits", 1),
        ("a: !!int hello", "not a number", 1),
        ("a: 1\nb: !!binary aGk=", "'binary' is not taken", 2),
        ("a: !!set {x, y}", "'set' is not taken", 1),
        ("a: !!timestamp 2026-01-01", "'timestamp' is not taken", 1),
        ("a: !!python/object/apply:os.system [ls]", "not YAML", 1),
        ("a: *unknown", "not YAML", 1),
        ("a: &a [*a]", "contains itself", 1),
    ],
)
def test_what_is_not_json_in_yaml_is_refused_with_its_line(text: str, reason: str, line: int) -> None:
    error = refusal(text)
    assert reason in str(error)
    assert error.line == line


def test_deep_nesting_is_refused_before_libyaml_overflows_its_stack() -> None:
    assert "nested deeper" in str(refusal("[" * 200_000))
    assert "nested deeper" in str(refusal("a: " + "{b: " * 100 + "1" + "}" * 100))


def test_a_number_of_a_million_digits_costs_nothing() -> None:
    assert "not a number" in str(refusal("a: " + "1" * 1_000_000))


def test_billion_laughs() -> None:
    lines = ["l0: &l0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 30)]
    assert "values" in str(refusal("\n".join(lines)))


def test_a_billion_merges() -> None:
    lines = ["m0: &m0 {a: 1}"]
    lines += [f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}" for n in range(1, 30)]
    assert "values" in str(refusal("\n".join(lines)))


def test_aliases_cannot_nest_deeper_than_brackets_can() -> None:
    lines = ["d0: &d0 [x]"]
    lines += [f"d{n}: &d{n} [*d{n - 1}]" for n in range(1, 5000)]
    assert "nested deeper" in str(refusal("\n".join(lines)))


def test_size_and_encoding() -> None:
    assert "larger than" in str(refusal(b"a: " + b"x" * documents.MAX_BYTES))
    error = refusal(b"a: 1\nb: \xff\n")
    assert (str(error), error.line) == ("the file is not UTF-8", 2)


def test_a_path_finds_its_line() -> None:
    document = documents.read(b"ref: a\ngrants:\n- resource: x\n- resource: y\n  actions:\n  - read\n  - fly\n")
    assert document.line_of("$.grants[1].actions[1]") == 7
    assert document.line_of("$.grants[1].actions") == 5
    assert document.line_of("$.grants[1].missing.more") == 4
    assert document.line_of("$.grants[9]") == 2
    assert document.line_of("$") == 1


@given(st.text(alphabet=st.sampled_from("a1:- \n[]{}&*!<>|'\"#?,.~"), max_size=60))
def test_any_text_is_json_or_refused(text: str) -> None:
    try:
        value = documents.read(text.encode()).value
    except DocumentError:
        return
    msgspec.json.encode(value)
