"""The examples of docs/workflows.md are workflows, and their tables name the keys there are."""

import re
from pathlib import Path

import msgspec
import pytest
import yaml

from chalicelib.domain.workflow.definition import Definition, Task
from chalicelib.domain.workflow.parsing import parse

TEXT = (Path(__file__).parents[4] / "docs" / "workflows.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 8


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_taken_without_a_word(example: str) -> None:
    parsed = parse(yaml.safe_load(example))
    assert (parsed.problems, parsed.warnings) == ([], [])


@pytest.mark.parametrize("struct", [Definition, Task])
def test_every_key_is_explained(struct: type[msgspec.Struct]) -> None:
    ours = {"gathers"}  # follows from depends_on
    keys = {field.name for field in msgspec.structs.fields(struct)} - ours
    assert not [key for key in sorted(keys) if f"`{key}`" not in TEXT]
