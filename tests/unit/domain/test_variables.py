"""Environment variables of executions."""

import pytest

from chalicelib.domain.variables import MAX_BYTES, VariableError, checked


@pytest.mark.parametrize("nothing", [None, {}])
def test_nothing_is_nothing(nothing: dict[str, str] | None) -> None:
    assert checked(nothing) is None


def test_values_are_text_whatever_json_they_were() -> None:
    given = {"TEXT": "a b", "NUMBER": 3, "FLAG": True, "NONE": None, "LIST": [1, "é"], "_x1": ""}
    text = {"TEXT": "a b", "NUMBER": "3", "FLAG": "true", "NONE": "null", "LIST": '[1,"é"]', "_x1": ""}
    assert checked(given) == text


@pytest.mark.parametrize("name", ["ATTUNE_API_TOKEN", "ATTUNE_", "attune_action"])
def test_the_platforms_names_are_reserved(name: str) -> None:
    with pytest.raises(VariableError, match="reserved"):
        checked({"GOOD": "x", name: "y"})


@pytest.mark.parametrize(
    "name",
    ["LD_PRELOAD", "PYTHONPATH", "PYTHONSTARTUP", "NODE_OPTIONS", "BASH_ENV", "PATH", "ENV", "IFS"],
)
def test_what_would_run_something_else_is_refused(name: str) -> None:
    with pytest.raises(VariableError, match="what runs"):
        checked({name: "x"})


@pytest.mark.parametrize("name", ["PATHS", "ENVIRONMENT", "HOMEPAGE", "LDAP_URL", "MY_PATH"])
def test_names_that_only_look_like_it_pass(name: str) -> None:
    assert checked({name: "x"}) == {name: "x"}


@pytest.mark.parametrize("name", ["", "no name", "1ST", "A=B", "A\0", "ü", "x" * 256])
def test_a_name_is_one_that_every_system_takes(name: str) -> None:
    with pytest.raises(VariableError, match="letters, digits and underscores"):
        checked({name: "x"})


def test_values_have_no_nul_and_an_end() -> None:
    with pytest.raises(VariableError, match="NUL"):
        checked({"A": "b\0c"})
    assert checked({"A": "x" * (MAX_BYTES - 1)})
    with pytest.raises(VariableError, match="the most is"):
        checked({"A": "é" * (MAX_BYTES // 2)})
