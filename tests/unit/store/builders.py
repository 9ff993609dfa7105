"""Things to store, with only what a test cares about spelled out."""

from datetime import UTC, datetime
from typing import Any

from chalicelib.domain import ids
from chalicelib.domain.entities import Action, Enforcement, Event, Execution, Key, Pack, Rule, Trigger

NOW = datetime(2026, 11, 22, 15, 34, 56, 789012, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)

_sequence = ids.Sequence(entropy=7)


def new_id(at_ms: int = NOW_MS) -> int:
    return _sequence.draw(at_ms)


def a_pack(ref: str = "demo", **fields: Any) -> Pack:
    return Pack(
        **{"id": new_id(), "ref": ref, "created": NOW, "updated": NOW, "label": ref, "version": "1.0.0"} | fields
    )


def an_action(ref: str = "demo.act", **fields: Any) -> Action:
    given = {"id": new_id(), "ref": ref, "created": NOW, "updated": NOW, "label": ref, "pack": 1}
    return Action(**given | {"pack_ref": ref.partition(".")[0], "entrypoint": "echo"} | fields)


def a_trigger(ref: str = "demo.hook", **fields: Any) -> Trigger:
    return Trigger(**{"id": new_id(), "ref": ref, "created": NOW, "updated": NOW, "label": ref} | fields)


def a_rule(ref: str = "demo.rule", **fields: Any) -> Rule:
    given = {"id": new_id(), "ref": ref, "created": NOW, "updated": NOW, "label": ref, "pack": 1, "pack_ref": "demo"}
    return Rule(**given | {"action_ref": "demo.act", "trigger_ref": "demo.hook"} | fields)


def a_key(ref: str = "db.password", **fields: Any) -> Key:
    given = {"id": new_id(), "ref": ref, "created": NOW, "updated": NOW, "name": ref, "sealed": "sealed"}
    return Key(**given | {"owner_type": "system"} | fields)


def an_event(**fields: Any) -> Event:
    given = {"id": new_id(), "trigger_ref": "demo.hook", "created": NOW, "payload": {"count": 1}}
    return Event(**given | fields)


def an_enforcement(event: Event, **fields: Any) -> Enforcement:
    given = {"id": event.id, "rule": 5, "rule_ref": "demo.rule", "trigger_ref": event.trigger_ref, "event": event.id}
    more = {"status": "processed", "created": NOW, "payload": event.payload, "resolved_at": NOW}
    return Enforcement(**given | more | {"conditions": {"expression": "event.payload.count == 1"}} | fields)


def an_execution(**fields: Any) -> Execution:
    given = {"id": new_id(), "created": NOW, "updated": NOW, "action_ref": "demo.act", "status": "requested"}
    return Execution(**given | {"config": {"message": "hello"}} | fields)


def a_pair(event: Event, key: str | None = None, **fields: Any) -> tuple[Enforcement, Execution, str]:
    """An enforcement of ``event`` with its execution, and their key."""
    enforcement = an_enforcement(event)
    execution = an_execution(id=event.id, enforcement=event.id, rule_ref="demo.rule", trigger_ref="demo.hook", **fields)
    return enforcement, execution, key or f"5/{event.id}"
