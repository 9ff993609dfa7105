"""What the tests of packs' components start from: a pack, a runtime, an action, a trigger, a rule."""

from typing import Any

from chalicelib.domain.entities import Pack, Runtime, Visibility
from chalicelib.store.registry import Put


def make_pack(
    api: Any, ref: str = "mine", *, visibility: Visibility = "tenant", installed_by: int | None = None
) -> Pack:
    """A pack of the client's tenant, put there directly."""
    now = api.services.clock()
    pack = Pack(
        id=api.services.new_id(),
        ref=ref,
        created=now,
        updated=now,
        label=ref,
        version="1.0.0",
        visibility=visibility,
        installed_by=installed_by,
    )
    api.registry.commit(Put(pack, new=True))
    return pack


def make_runtime(api: Any, ref: str = "mine.shell") -> Runtime:
    now = api.services.clock()
    runtime = Runtime(id=api.services.new_id(), ref=ref, created=now, updated=now, name="Shell", pack_ref="mine")
    api.registry.commit(Put(runtime, new=True))
    return runtime


def created(answer: Any) -> Any:
    """The thing that a POST made."""
    assert answer.status == 201, answer.json
    return answer.data


def make_action(api: Any, ref: str = "mine.greet", **fields: Any) -> Any:
    body = {"ref": ref, "pack_ref": ref.partition(".")[0], "label": "Greet", "entrypoint": "echo hello", **fields}
    return created(api.post("/api/v1/actions", json=body))


def make_trigger(api: Any, ref: str = "mine.called", **fields: Any) -> Any:
    body = {"ref": ref, "pack_ref": ref.partition(".")[0], "label": "Called", **fields}
    return created(api.post("/api/v1/triggers", json=body))


def rule_body(ref: str = "mine.answer", **fields: Any) -> dict[str, Any]:
    return {
        "ref": ref,
        "pack_ref": ref.partition(".")[0],
        "label": "Answer",
        "action_ref": "mine.greet",
        "trigger_ref": "mine.called",
        **fields,
    }


def make_rule(api: Any, ref: str = "mine.answer", **fields: Any) -> Any:
    return created(api.post("/api/v1/rules", json=rule_body(ref, **fields)))
