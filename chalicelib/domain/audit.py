"""Audit records: who did what to which thing, and how it ended. What they may say of things that hold secrets.

A record is a fact: it is stored once and never changes. The start of an execution needs no record of its own, because
its row says all of it and never loses it: :func:`of_execution` reads the record off the row.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from chalicelib.domain.entities import Definition, Execution, Json

AuditCategory = Literal["api", "auth", "rbac", "secret", "admin", "execution", "pack"]
AuditOutcome = Literal["success", "failure", "denied"]
Operation = Literal["create", "update", "delete"]

MASK: Final = "********"

# Fields of definitions that hold a secret, its ciphertext, or what opens a door. They are masked whole.
SECRET_FIELDS: Final = frozenset({"sealed", "password_hash", "webhook_key", "attempt_token"})
# Fields that say nothing to people, or change with every write.
_LEFT_OUT: Final = frozenset({"revision", "updated", "purged", "manifests", "content", "manifest"})
# Names in free JSON (a configuration, attributes) whose values are masked whatever the schema calls them.
_SECRET_NAMES: Final = re.compile(
    r"pass(word|wd|phrase|code)?$|secret|token|credential|authorization|cookie|sealed|salt|signature"
    r"|(api|private|access|signing|encryption|webhook)[_-]?key|^key$|_key$|^auth$|^pin$|^dsn$|connection_?string",
    re.IGNORECASE,
)
_URL_PASSWORD: Final = re.compile(r"(://[^\s/:@]*):[^\s/@]+@")

_LONG_TEXT: Final = 500  # characters of one text in a record
_SHOWN: Final = 100  # of a longer one
_LONG_VALUE: Final = 2_000  # bytes of one field's value
_CHANGES: Final = 25  # changes of one request that are told in full
_BYTES: Final = 24_000  # of all that a record says of its changes

_encode = msgspec.json.Encoder(order="deterministic").encode


class AuditEvent(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One record; the fields are the contract's (http-api part 2, ``audit.rs``)."""

    id: int
    created: datetime
    category: AuditCategory
    event_type: str
    outcome: AuditOutcome
    actor_identity: int | None = None
    actor_login: str | None = None
    actor_token_type: str | None = None
    actor_ip: str | None = None
    actor_user_agent: str | None = None
    request_id: str | None = None
    resource_type: str | None = None
    resource_id: int | None = None
    resource_ref: str | None = None
    http_method: str | None = None
    http_path: str | None = None
    http_status: int | None = None
    duration_ms: int | None = None
    details: Json = None
    correlation_chain: Json = None


class Change(msgspec.Struct, kw_only=True, frozen=True):
    """One definition as it was before a request and as it was afterwards; ``before`` is None when nobody read it."""

    kind: str
    operation: Operation
    ref: str
    before: Definition | None = None
    after: Definition | None = None


def told(changes: Iterable[Change]) -> list[Json]:
    """What a record says of changes: all fields of what is new or gone, of the rest those that changed. Bounded: past
    some number or size, only which thing it was."""
    said: list[Json] = []
    size = 0
    for change in changes:
        told_ = _told(change)
        size += len(_encode(told_))
        if len(said) >= _CHANGES or size > _BYTES:
            told_ = {name: told_[name] for name in ("kind", "operation", "id", "ref")}
            size += 100
        if len(said) >= 10 * _CHANGES:
            break
        said.append(told_)
    return said


def _told(change: Change) -> dict[str, Json]:
    before, after = shown(change.before), shown(change.after)
    thing = change.after or change.before
    if change.before is not None and change.after is not None:
        raw_before, raw_after = msgspec.structs.asdict(change.before), msgspec.structs.asdict(change.after)
        # Whether a secret changed is told, although both sides look alike.
        differing = {name for name in raw_after if raw_before.get(name) != raw_after[name]}
        before = {name: value for name, value in (before or {}).items() if name in differing}
        after = {name: value for name, value in (after or {}).items() if name in differing}
    return {
        "kind": change.kind,
        "operation": change.operation,
        "id": None if thing is None else thing.id,
        # An integration token's ref is what the store looks the token up by.
        "ref": None if change.kind == "integration_token" else change.ref,
        "before": before,
        "after": after,
    }


def shown(thing: Definition | None) -> dict[str, Json] | None:
    """A definition's fields as a record may hold them: secrets masked, long values as a digest."""
    if thing is None:
        return None
    fields: dict[str, Json] = msgspec.to_builtins(thing)
    if "token_prefix" in fields:
        fields.pop("ref")
    return {name: _field(name, value) for name, value in fields.items() if name not in _LEFT_OUT}


def _field(name: str, value: Json) -> Json:
    if name in SECRET_FIELDS:
        return MASK if value else value
    if name == "secrets":  # ciphertexts by name; of an action, the names of keys
        return dict.fromkeys(value, MASK) if isinstance(value, dict) else value
    return _bounded(masked(value))


def masked(value: Json) -> Json:
    """JSON without the values of names that sound like secrets, and without passwords in URLs."""
    if isinstance(value, Mapping):
        return {
            str(name): MASK if _SECRET_NAMES.search(str(name)) and each not in (None, "", {}, []) else masked(each)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [masked(each) for each in value]
    if isinstance(value, str):
        return shortened(_URL_PASSWORD.sub(rf"\1:{MASK}@", value))
    return value


def shortened(text: str) -> str:
    """The text, or its beginning with the length and digest of the whole."""
    if len(text) <= _LONG_TEXT:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{text[:_SHOWN]}… ({len(text)} characters, sha256 {digest})"


def _bounded(value: Json) -> Json:
    if not isinstance(value, dict | list):
        return value
    encoded = _encode(value)
    if len(encoded) <= _LONG_VALUE:
        return value
    return {"bytes": len(encoded), "sha256": hashlib.sha256(encoded).hexdigest()}


def of_execution(execution: Execution, login: str | None = None) -> AuditEvent:
    """The record of an execution's start. ``login`` is its executor's, as far as it is known."""
    chain = {
        "enforcement": execution.enforcement,
        "rule_ref": execution.rule_ref,
        "trigger_ref": execution.trigger_ref,
        "parent": execution.parent,
        "root": execution.root,
        "original_execution": execution.original_execution,
    }
    said = {name: value for name, value in chain.items() if value is not None}
    return AuditEvent(
        id=execution.id,
        created=execution.created,
        category="execution",
        event_type="execution.started",
        outcome="success",
        actor_identity=execution.executor,
        actor_login=login,
        resource_type="execution",
        resource_id=execution.id,
        resource_ref=execution.action_ref,
        correlation_chain=said or None,
    )


class Wanted(msgspec.Struct, kw_only=True, frozen=True):
    """Every given field must equal; ``http_path`` may end in ``*``. Times are bounds, the earlier one included."""

    category: AuditCategory | None = None
    event_type: str | None = None
    outcome: AuditOutcome | None = None
    actor_identity: int | None = None
    actor_login: str | None = None
    resource_type: str | None = None
    resource_id: int | None = None
    resource_ref: str | None = None
    request_id: str | None = None
    http_status: int | None = None
    http_method: str | None = None
    http_path: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None

    @property
    def executions(self) -> bool:
        """Whether starts of executions can be among what is wanted."""
        return (
            self.category in (None, "execution")
            and self.event_type in (None, "execution.started")
            and self.outcome in (None, "success")
            and self.resource_type in (None, "execution")
            and not any((self.request_id, self.http_status, self.http_method, self.http_path))
        )

    @property
    def stored(self) -> bool:
        """Whether stored records can be among what is wanted."""
        return self.category != "execution"

    def matches(self, event: AuditEvent) -> bool:
        """Whether ``event`` is wanted."""
        if self.created_after is not None and event.created < self.created_after:
            return False
        if self.created_before is not None and event.created >= self.created_before:
            return False
        for name in _EQUAL:
            value = getattr(self, name)
            if value is not None and getattr(event, name) != value:
                return False
        if self.http_method is not None and event.http_method != self.http_method.upper():
            return False
        if self.http_path is None:
            return True
        if self.http_path.endswith("*"):
            return (event.http_path or "").startswith(self.http_path[:-1])
        return event.http_path == self.http_path


_EQUAL: Final = (
    "category",
    "event_type",
    "outcome",
    "actor_identity",
    "actor_login",
    "resource_type",
    "resource_id",
    "resource_ref",
    "request_id",
    "http_status",
)


def singular(noun: str) -> str:
    """The kind of thing that a path's segment names: ``integration-tokens`` are ``integration_token``."""
    noun = _NAMED.get(noun, noun).replace("-", "_")
    if noun.endswith("ies"):
        return f"{noun[:-3]}y"
    return noun.removesuffix("s")


_NAMED: Final[dict[str, Any]] = {"sets": "permission-sets", "assignments": "permission-assignments"}
