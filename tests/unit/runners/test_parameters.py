"""The documents of semantics §2.6, read back by what reads them."""

import json
import subprocess

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.protocol import Run
from runners.child import FOLDER
from runners.parameters import deliver, document, shell_variables

PARAMETERS = {"b": {"y": "it's", "x": [1, {"z": None}]}, "a": None, "c": True, "d": 1.5, "e": {}, "ü": "ß"}

names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


def run(**fields: object) -> Run:
    given = {"tenant": "t", "execution": 1, "attempt": 1, "token": "t", "action_ref": "a.b", "runner": "python"}
    return Run(**given | {"entrypoint": "", "parameters": PARAMETERS} | fields)  # type: ignore[arg-type]


def test_dotenv_is_flat_sorted_and_quoted_for_a_shell() -> None:
    assert document(PARAMETERS, "dotenv") == (
        "a=''\nb.x='[1,{\"z\":null}]'\nb.y='it'\\''s'\nc='true'\nd='1.5'\ne='{}'\nü='ß'\n"
    )


def test_json_is_one_line() -> None:
    text = document({"a": "two\nlines"}, "json")

    assert (text.count("\n"), json.loads(text)) == (1, {"a": "two\nlines"})


@given(st.dictionaries(names, json_values))
def test_yaml_reads_back(parameters: dict[str, object]) -> None:
    assert yaml.safe_load(document(parameters, "yaml")) == parameters


@pytest.mark.parametrize(("parameter_format", "name"), [("json", "json"), ("dotenv", "env"), ("yaml", "yaml")])
def test_a_file_is_named_and_standard_input_empty(parameter_format: str, name: str) -> None:
    delivered = deliver(run(parameter_delivery="file", parameter_format=parameter_format))

    assert delivered.stdin == b""
    assert delivered.files == {f"parameters.{name}": document(PARAMETERS, parameter_format)}
    assert delivered.environment == {
        "ATTUNE_PARAMETER_DELIVERY": "file",
        "ATTUNE_PARAMETER_FORMAT": parameter_format,
        "ATTUNE_PARAMETER_FILE": f"{FOLDER}/parameters.{name}",
    }


def test_standard_input_is_the_default() -> None:
    delivered = deliver(run())

    assert json.loads(delivered.stdin) == PARAMETERS
    assert delivered.files == {}
    assert "ATTUNE_PARAMETER_FILE" not in delivered.environment


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
def test_no_value_breaks_out_of_its_variable(value: str) -> None:
    script = shell_variables({"value": value}) + 'printf %s "$value"'
    said = subprocess.run(["bash", "-c", script], capture_output=True, check=True, timeout=10)

    assert said.stdout.decode() == value


@pytest.mark.parametrize("name", ["a b", "a-b", "1st", "x;rm -rf /", "$(id)", "a=b", "", "ä", "x\ny"])
def test_no_name_breaks_out_either(name: str) -> None:
    script = shell_variables({name: "v"}) + "set -o posix; set | grep -c '^PARAM_'"
    said = subprocess.run(["bash", "-ec", script], capture_output=True, check=True, timeout=10)

    assert (said.stdout, said.stderr) == (b"1\n", b"")
