"""Recorded histories lead to the same states as when they were recorded.

A difference means that runs under way would go on differently after a deployment. If that is meant, record anew::

    RECORD_HISTORIES=1 python -m pytest -q tests/unit/domain/workflow/test_histories.py

and read the difference in the files before committing it.
"""

import json
import os

import pytest
from unit.domain.workflow.recording import FOLDER, record, replay
from unit.domain.workflow.scenarios import SCENARIOS

from chalicelib.domain.workflow.state import State

if os.environ.get("RECORD_HISTORIES"):
    for _name, _scenario in SCENARIOS.items():
        record(_name, _scenario.about, _scenario.written, _scenario.parameters, _scenario.script)


def test_each_scenario_is_recorded() -> None:
    assert {file.stem for file in FOLDER.glob("*.json")} == set(SCENARIOS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_history_repeats_itself(name: str) -> None:
    history = json.loads((FOLDER / f"{name}.json").read_text())
    then: State | None = None
    for step, (then, now) in enumerate(replay(history)):
        assert now == then, f"{name}, step {step}"
    assert then is not None
    assert "end" in then or then["state"]["over"], "a history goes to its end"
