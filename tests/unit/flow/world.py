"""A tenant with a pack, a trigger and an action, and fakes of what the boxes send to."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from chalicelib.domain.entities import Action, Identity, Key, Pack, PermissionAssignment, Rule, Trigger
from chalicelib.flow import rules
from chalicelib.protocol import Build, EnvironmentRequested, EventAccepted, ExecutionRequested, PolicyChanged, Run, Wake
from chalicelib.services import Services
from chalicelib.store.registry import Put


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **delta: float) -> None:
        self.now += timedelta(**delta)


@dataclass
class FakeQueues:
    """Keeps what is sent; fails on demand, as a sender whose process is cut off."""

    events: list[EventAccepted] = field(default_factory=list)
    requested: list[tuple[ExecutionRequested, int]] = field(default_factory=list)
    environments: list[tuple[EnvironmentRequested, int]] = field(default_factory=list)
    wakes: list[tuple[Wake, int]] = field(default_factory=list)
    policies: list[PolicyChanged] = field(default_factory=list)
    failing: bool = False

    def wake(self, message: Wake, *, delay: int = 0) -> None:
        if self.failing:
            raise ConnectionError("queue out of reach")
        self.wakes.append((message, delay))

    def policy_changed(self, message: PolicyChanged) -> None:
        self.policies.append(message)

    def environment_requested(self, message: EnvironmentRequested, *, delay: int = 0) -> None:
        self.environments.append((message, delay))

    def event_accepted(self, message: EventAccepted) -> None:
        if self.failing:
            raise ConnectionError("queue out of reach")
        self.events.append(message)

    def executions_requested(self, messages: Sequence[ExecutionRequested], *, delay: int = 0) -> None:
        if self.failing:
            raise ConnectionError("queue out of reach")
        self.requested += [(message, delay) for message in messages]


@dataclass
class FakeRunner:
    """Keeps the runs it is given; ``error`` is raised instead."""

    runs: list[Run] = field(default_factory=list)
    builds: list[Build] = field(default_factory=list)
    error: Exception | None = None

    def build(self, build: Build) -> None:
        if self.error is not None:
            raise self.error
        self.builds.append(build)

    def start(self, run: Run) -> None:
        if self.error is not None:
            raise self.error
        self.runs.append(run)


class World:
    """One tenant of ``deployment``, and what surrounds the boxes."""

    def __init__(self, deployment: Services) -> None:
        self.clock = Clock()
        self.queues = FakeQueues()
        self.runner = FakeRunner()
        self.tenant = f"t-{secrets.token_hex(6)}"
        self.services = replace(
            deployment,
            clock=self.clock,
            queues=self.queues,
            invoker=self.runner,
            settings=msgspec.structs.replace(deployment.settings, default_tenant=self.tenant),
        )
        self.store = self.services.store.tenant(self.tenant)
        self.activity = self.store.activity
        self.pack = self.put(Pack, "p", label="P", version="1.0.0")
        self.trigger = self.put(Trigger, "p.hook", label="Hook", pack=self.pack.id, pack_ref="p")
        self.action = self.put_action("p.act")
        granted = PermissionAssignment(id=self.services.new_id(), permission_set_ref="core.admin", created=self.clock())
        self.owner = self.put(Identity, "owner@example.org", assignments=[granted])

    def put(self, type_: Any, ref: str, **fields: Any) -> Any:
        now = self.clock()
        entity = type_(id=self.services.new_id(), ref=ref, created=now, updated=now, **fields)
        self.store.registry.commit(Put(entity, new=True))
        return entity

    def put_action(self, ref: str, **fields: Any) -> Action:
        fields = {"label": ref, "runtime_ref": "core.shell", "entrypoint": "echo hi"} | fields
        action: Action = self.put(Action, ref, pack=self.pack.id, pack_ref="p", **fields)
        return action

    def put_rule(self, ref: str, **fields: Any) -> Rule:
        fields = {"label": ref, "action_ref": "p.act", "owner_identity": self.owner.id} | fields
        rule: Rule = self.put(Rule, ref, pack=self.pack.id, pack_ref="p", trigger_ref="p.hook", **fields)
        return rule

    def put_key(self, ref: str, value: Any, **fields: Any) -> Key:
        sealed = self.services.cipher.seal(self.tenant, ref, value)
        fields = {"owner_type": "system", "name": ref.rpartition(".")[2]} | fields
        key: Key = self.put(Key, ref, sealed=sealed, **fields)
        return key

    def accepted(self, payload: Any = None, **fields: Any) -> EventAccepted:
        return EventAccepted(
            tenant=self.tenant,
            id=self.services.new_id(),
            key=secrets.token_hex(4),
            trigger_ref="p.hook",
            payload=payload,
            **fields,
        )

    def happen(self, *messages: EventAccepted) -> list[int]:
        return rules.handle(self.services, messages)

    @property
    def requests(self) -> list[ExecutionRequested]:
        """What was asked of the executor for this tenant; the sweeper also asks for others'."""
        return [message for message, _ in self.queues.requested if message.tenant == self.tenant]
