"""How histories of runs are recorded and replayed: what the conductor was told, and the states that this led to.

A history holds its own definition, inputs and outcomes, so that the states of runs which are under way while a new
version is deployed go on as they would have.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml
from unit.domain.workflow.runs import Run

from chalicelib.domain.entities import Json
from chalicelib.domain.workflow import conductor
from chalicelib.domain.workflow.definition import Definition
from chalicelib.domain.workflow.parsing import parse
from chalicelib.domain.workflow.state import State
from chalicelib.domain.workflow.steps import Event, Step

FOLDER = Path(__file__).parent / "histories"

Script = Callable[["Recorder"], None]


class Recorder(Run):
    """A run that keeps every step. ``written`` is its definition as a user writes it."""

    def __init__(self, written: Json, parameters: dict[str, Json]) -> None:
        definition = _read(written)
        super().__init__(definition, **parameters)
        self.origin = msgspec.structs.replace(self.origin, timeout=definition.timeout)
        self.history: dict[str, Json] = {"definition": written, "parameters": parameters, "steps": []}
        self._told: dict[str, Json] = {}
        self._known: set[int] = set()

    def begin(self) -> "Recorder":
        self._told = {"begin": True}
        super().begin()
        return self

    def again(self, before: State, *tasks: str, reset: bool = False) -> "Recorder":
        self._told = {"again": {"before": msgspec.to_builtins(before), "tasks": list(tasks), "reset": reset}}
        super().again(before, *tasks, reset=reset)
        return self

    def advance(self, *events: Event) -> "Recorder":
        self._told = {"events": msgspec.to_builtins(list(events))}
        super().advance(*events)
        return self

    def _took(self, step: Step) -> "Recorder":
        new = {str(id_): result for id_, result in self.results.items() if id_ not in self._known}
        self._known.update(self.results)
        told = {"at": self.now.isoformat(), "results": new, **self._told}
        self.history["steps"].append({"told": told, "led_to": _outcome_of(step)})
        super()._took(step)
        return self


def record(name: str, about: str, written: str, parameters: dict[str, Json], script: Script) -> None:
    """Play a script, and keep what happened as the history ``name``."""
    recorder = Recorder(yaml.safe_load(written), parameters)
    script(recorder)
    text = json.dumps({"about": about, **recorder.history}, indent=1, ensure_ascii=False)
    (FOLDER / f"{name}.json").write_text(text + "\n")


def replay(history: dict[str, Any]) -> Iterator[tuple[Json, Json]]:
    """What each step led to then, and what it leads to now, from the state before it as it was then."""
    run = Recorder(history["definition"], history["parameters"])
    state = State()
    for each in history["steps"]:
        told = each["told"]
        run.now = msgspec.convert(told["at"], type(run.now))
        run.results.update({int(id_): result for id_, result in told["results"].items()})
        if "begin" in told:
            step = conductor.begin(run.graph, run.world)
        elif "again" in told:
            again = told["again"]
            before = msgspec.convert(again["before"], State, str_keys=True)
            step = conductor.begin_again(run.graph, before, again["tasks"], run.world, reset=again["reset"])
        else:
            step = conductor.advance(run.graph, state, msgspec.convert(told["events"], list[Event]), run.world)
        yield each["led_to"], _outcome_of(step)
        run.results.update({start.execution.id: start.execution.result for start in step.starts})
        state = msgspec.convert(each["led_to"]["state"], State, str_keys=True)


def _outcome_of(step: Step) -> Json:
    said = {
        "state": step.state,
        "starts": [
            {
                "execution": start.execution.id,
                "action": start.execution.action_ref,
                "status": start.execution.status,
                "config": start.execution.config,
                "workflow_task": start.execution.workflow_task,
                "not_before": start.not_before,
            }
            for start in step.starts
        ],
        "stop": step.stop,
        "end": step.end,
        "notes": step.notes,
        "more": step.more,
    }
    known = {name: value for name, value in msgspec.to_builtins(said).items() if value not in (None, [], False)}
    return json.loads(json.dumps(known))


def _read(written: Json) -> Definition:
    parsed = parse(written)
    assert parsed.problems == []
    assert parsed.definition is not None
    return parsed.definition
