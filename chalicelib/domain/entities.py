"""The platform's things, as the store keeps them and the domain reasons about them.

Field names are the contract's (``semantics.md`` part 3). Times are aware UTC datetimes. ``Json`` values are what
``msgspec`` decodes from JSON. ``revision`` counts the writes of a registry row and guards its next one.

What a client sees is another matter: the views of ``chalicelib.api`` choose and rename.
"""

import hashlib
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from chalicelib.protocol import Container

Json = Any

SYSTEM_TENANT = "system"  # owns the standard packs: visible in every tenant, writable in none

ExecutionStatus = Literal[
    "requested", "scheduling", "scheduled", "running", "completed", "failed",
    "canceling", "cancelled", "timeout", "abandoned",
]  # fmt: skip
EnforcementStatus = Literal["created", "processed", "disabled"]
OwnerType = Literal["system", "identity", "pack", "action", "sensor"]
Visibility = Literal["standard", "tenant", "private"]
ParameterDelivery = Literal["stdin", "file"]
ParameterFormat = Literal["json", "dotenv", "yaml"]
OutputFormat = Literal["text", "json", "yaml", "jsonl"]
LibraryRuntime = Literal["python", "node"]  # runtimes that have an installer of libraries
EnvironmentState = Literal["pending", "ready", "failed"]
RetentionPolicy = Literal["versions", "days", "hours", "minutes"]
InquiryStatus = Literal["pending", "responded", "timeout", "cancelled"]
MissedRuns = Literal["skip", "fire_once", "fire_all"]  # what becomes of a timer's firings that were missed (README 8)
PolicyMethod = Literal["enqueue", "cancel"]


class Row(msgspec.Struct, kw_only=True, frozen=True):
    """What every stored thing has."""

    id: int
    created: datetime
    updated: datetime


class Definition(Row, kw_only=True, frozen=True):
    """A named thing of the registry; ``ref`` is unique per kind and tenant."""

    ref: str
    revision: int = 0


class Tenant(Definition, kw_only=True, frozen=True):
    """Whose everything else is; ``ref`` is its slug. The system tenant keeps all of them.

    ``id`` tells it from an earlier tenant of that slug: tokens carry it. ``quotas`` has what differs from the defaults
    (``domain.quotas``). ``purged`` says how far its deletion has come (``store.removal``).
    """

    label: str = ""
    suspended: bool = False
    deleting: bool = False
    self_registration: bool = False
    quotas: dict[str, int] = {}
    purged: Json = None


class Pack(Definition, kw_only=True, frozen=True):
    label: str
    version: str
    description: str | None = None
    conf_schema: Json = {}
    config: Json = {}
    secrets: dict[str, str] = {}  # ciphertexts of what is secret in `config`, by place (flow.configuration)
    meta: Json = {}
    tags: list[str] = []
    runtime_deps: list[str] = []
    dependencies: list[str] = []
    visibility: Visibility = "tenant"
    installed_by: int | None = None
    content: str | None = None  # SHA-256 of the archive its files came in; None: made by API, has no files
    manifests: dict[LibraryRuntime, str] = {}  # what its files ask for, as a digest (domain.dependencies)

    @property
    def is_standard(self) -> bool:
        return self.visibility == "standard"


class Concurrency(msgspec.Struct, kw_only=True, frozen=True):
    """At most ``threshold`` executions of an action at a time or, with ``parameters``, as many for each combination of
    the values of these. What is too much waits its turn, or is cancelled (``semantics.md`` §2.7, the entity Policy)."""

    threshold: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    parameters: Annotated[list[str], msgspec.Meta(max_length=10)] = []
    method: PolicyMethod = "enqueue"


class Action(Definition, kw_only=True, frozen=True):
    pack: int
    pack_ref: str
    label: str
    entrypoint: str
    description: str | None = None
    runtime: int | None = None
    runtime_ref: str | None = None
    runtime_version_constraint: str | None = None
    required_worker_runtimes: dict[str, str] = {}
    worker_selector: dict[str, str] = {}
    worker_tolerations: list[Json] = []
    worker_affinity: Json = {}
    param_schema: Json = None
    out_schema: Json = None
    workflow_def: int | None = None
    is_adhoc: bool = False
    accesses_mcp: bool = False
    default_execution_permission_set_refs: list[str] = []
    artifact_retention_policy: RetentionPolicy | None = None
    artifact_retention_limit: int | None = None
    log_retention_policy: RetentionPolicy | None = None
    log_retention_limit: int | None = None
    secrets: list[str] = []  # refs of keys that it asks for, beyond those of its pack and its own (README 11)
    parameter_delivery: ParameterDelivery = "stdin"
    parameter_format: ParameterFormat = "json"
    output_format: OutputFormat = "text"
    timeout: int | None = None  # seconds; None: the default of 300
    concurrency: Concurrency | None = None
    content: str | None = None  # the pack archive its file is in; None: `entrypoint` is the code itself
    container: Container | None = None  # of actions that core.container runs
    manifest: str | None = None  # digest of what that archive asks for; None: the runtime's own libraries will do


class Environment(Definition, kw_only=True, frozen=True):
    """The libraries that a manifest asks for, installed once for all packs of a tenant with the same manifest.

    ``pending`` with ``attempt`` 0: not begun; else the attempt has until ``deadline`` to report with its token.
    """

    runtime: LibraryRuntime
    manifest: str  # the file's name
    pack_ref: str  # the pack it is built from
    pack_content: str
    state: EnvironmentState = "pending"
    attempt: int = 0
    attempt_token: str | None = None  # hash of the one-time token a report must carry
    deadline: datetime | None = None
    archive: str | None = None  # blob of the attempt: a tar.gz
    content: str | None = None  # its SHA-256
    size: int = 0
    log: str = ""  # the installer's last lines
    runtime_version: str = ""


class Trigger(Definition, kw_only=True, frozen=True):
    label: str
    pack: int | None = None
    pack_ref: str | None = None
    description: str | None = None
    enabled: bool = True
    param_schema: Json = None
    out_schema: Json = None
    webhook_enabled: bool = False
    webhook_key: str | None = None
    webhook_config: Json = {}
    is_adhoc: bool = False
    sensor: int | None = None
    sensor_ref: str | None = None


class Sensor(Definition, kw_only=True, frozen=True):
    pack: int | None = None
    pack_ref: str | None = None
    label: str
    entrypoint: str
    runtime: int
    runtime_ref: str
    description: str | None = None
    enabled: bool = True
    trigger_refs: list[str] = []
    param_schema: Json = None
    config: Json = None
    worker_selector: dict[str, str] = {}
    worker_tolerations: list[Json] = []
    worker_affinity: Json = {}
    artifact_retention_policy: RetentionPolicy | None = None
    artifact_retention_limit: int | None = None
    log_retention_policy: RetentionPolicy | None = None
    log_retention_limit: int | None = None
    is_adhoc: bool = False
    poll_interval: float | None = None  # seconds; None: `domain.sensors.DEFAULT_INTERVAL`
    content: str | None = None  # as of an action
    manifest: str | None = None  # as of an action


class Rule(Definition, kw_only=True, frozen=True):
    pack: int
    pack_ref: str
    label: str
    action_ref: str
    trigger_ref: str
    description: str | None = None
    action: int | None = None
    trigger: int | None = None
    conditions: Json = {}
    action_params: Json = {}
    secrets: dict[str, str] = {}  # ciphertexts of `action_params` that the action's schema calls secret, by name
    trigger_params: Json = {}
    permission_set_refs: list[str] | None = None
    enabled: bool = True
    is_adhoc: bool = False
    owner_identity: int | None = None
    missed_run_policy: MissedRuns = "skip"


class Runtime(Definition, kw_only=True, frozen=True):
    name: str
    pack: int | None = None
    pack_ref: str | None = None
    description: str | None = None
    aliases: list[str] = []
    distributions: Json = {}
    installation: Json = None
    execution_config: Json = {}


class Key(Definition, kw_only=True, frozen=True):
    """A secret or a datastore value. ``sealed`` is the value's ciphertext (README 11: always encrypted)."""

    owner_type: OwnerType
    name: str
    sealed: str
    encrypted: bool = True
    owner: str | None = None
    owner_identity: int | None = None
    owner_pack: int | None = None
    owner_pack_ref: str | None = None
    owner_action: int | None = None
    owner_action_ref: str | None = None
    owner_sensor: int | None = None
    owner_sensor_ref: str | None = None


class WorkflowDefinition(Definition, kw_only=True, frozen=True):
    """A workflow, run by the action of the same ref. ``definition`` is as it was written (``domain.workflow``)."""

    pack: int
    pack_ref: str
    label: str
    version: str
    definition: Json
    description: str | None = None
    param_schema: Json = None
    out_schema: Json = None
    tags: list[str] = []
    is_adhoc: bool = False


class Grant(msgspec.Struct, kw_only=True, frozen=True):
    """``semantics.md`` §2.10: any grant that names the resource and action, and whose constraints all hold, allows."""

    resource: str
    actions: list[str]
    constraints: Json = None


class PermissionSet(Definition, kw_only=True, frozen=True):
    pack_ref: str | None = None
    label: str | None = None
    description: str | None = None
    grants: list[Grant] = []


class PermissionAssignment(msgspec.Struct, kw_only=True, frozen=True):
    id: int
    permission_set_ref: str
    created: datetime


class RoleAssignment(msgspec.Struct, kw_only=True, frozen=True):
    """``managed``: by the identity provider ``source``, and taken away by it alone."""

    id: int
    role: str
    created: datetime
    updated: datetime
    source: str = "manual"
    managed: bool = False


class Role(Definition, kw_only=True, frozen=True):
    """What the role ``ref`` gives to those who have it: permission sets of the tenant's and of the system's."""

    permission_sets: list[PermissionAssignment] = []


class External(msgspec.Struct, kw_only=True, frozen=True):
    """Who somebody is at a provider of identities: ``subject`` never passes to another person (OpenID Connect §2)."""

    issuer: str
    subject: str

    @property
    def key(self) -> str:
        """What the two are looked up by."""
        return hashlib.sha256(f"{self.issuer}\x00{self.subject}".encode()).hexdigest()


class Identity(Definition, kw_only=True, frozen=True):
    """Someone or something that signs in; ``ref`` is the login name."""

    display_name: str | None = None
    password_hash: str | None = None
    attributes: Json = {}
    frozen: bool = False
    assignments: list[PermissionAssignment] = []
    roles: list[RoleAssignment] = []
    sessions_since: datetime | None = None  # refresh tokens from before are void: the password is another one
    external: External | None = None  # for one that signs in at a provider of identities

    @property
    def login(self) -> str:
        return self.ref


class IntegrationToken(Definition, kw_only=True, frozen=True):
    """What a program signs in with as ``identity``; ``ref`` is the SHA-256 of the token, which nobody keeps."""

    identity: int
    label: str
    token_prefix: str
    token_suffix: str
    description: str | None = None
    created_by: int | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    revoked_by: int | None = None
    revocation_reason: str | None = None

    def active(self, now: datetime) -> bool:
        """Whether it opens anything at ``now``."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class Event(msgspec.Struct, kw_only=True, frozen=True):
    """Something happened. Never changes once stored."""

    id: int
    trigger_ref: str
    created: datetime
    trigger: int | None = None
    config: Json = None
    payload: Json = None
    source: int | None = None
    source_ref: str | None = None
    rule: int | None = None
    rule_ref: str | None = None


class Enforcement(msgspec.Struct, kw_only=True, frozen=True):
    """One rule met one event. ``processed``: its execution exists, under the same id. ``disabled``: it has none, and
    ``error`` says why (README 5)."""

    id: int
    rule: int | None
    rule_ref: str
    trigger_ref: str
    event: int
    status: EnforcementStatus
    created: datetime
    config: Json = None
    payload: Json = {}
    conditions: Json = {}
    resolved_at: datetime | None = None
    error: str | None = None


class Execution(Row, kw_only=True, frozen=True):
    """One run of an action. ``version`` guards its next transition; ``attempt`` numbers its dispatches."""

    action_ref: str
    status: ExecutionStatus
    version: int = 0
    attempt: int = 0
    action: int | None = None
    config: Json = None
    env_vars: dict[str, str] | None = None
    parent: int | None = None
    root: int | None = None  # the workflow execution at the top, for one that has a parent
    enforcement: int | None = None
    rule_ref: str | None = None
    trigger_ref: str | None = None
    executor: int | None = None
    permission_set_refs: list[str] = []
    secrets: Json = None  # where secrets go in `config`: {json pointer: [text | {"key": ref}]}
    timeout: int | None = None
    result: Json = None
    printed: str | None = None  # standard output that `result` has only as a value
    original_execution: int | None = None
    rerun: Json = None  # of a workflow: what it takes up of an earlier run (domain.workflow.state.Again)
    lane: int | None = None  # where it holds a slot, or waits for one (domain.admission)
    workflow_task: Json = None
    artifact_retention_policy: RetentionPolicy | None = None
    artifact_retention_limit: int | None = None
    worker_selector: Json = None
    worker_tolerations: Json = None
    worker_affinity: Json = None
    started_at: datetime | None = None
    deadline: datetime | None = None
    attempt_token: str | None = None  # hash of the one-time token a result must carry
    timed_out: bool = False  # it took longer than it may, whatever its status says (README 9)
    seat: bool = False  # it came through its tenant's gate, and gives its seat back when it ends (store.gates)

    @property
    def waiting_for(self) -> str | None:
        """Why it does not run yet, where there is more to say than that its turn has not come."""
        if self.status == "requested" and self.lane is not None:
            return f"a free slot: {self.action_ref} has a concurrency policy"
        return None


class Escalation(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """``after`` seconds without an answer somebody else may answer too: an identity, or whoever has a role."""

    after: float
    assigned_to: int | None = None
    assigned_role: str | None = None


class Answer(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What one person responded; ``key`` is the idempotency key it came with."""

    identity: int
    login: str
    response: Json
    at: datetime
    key: str | None = None


class Inquiry(Row, kw_only=True, frozen=True, omit_defaults=True):
    """A question to people, at most one per execution (semantics §2.8). ``domain.inquiries`` says who may answer it.

    ``waits``: the execution is the asking itself (``core.ask``) and ends with it. ``asker``: who started it.
    ``assigned_to`` and ``assigned_role`` are as asked; ``escalated`` counts the steps of ``escalation`` that were taken
    since. ``required``: how many people must agree. ``by_default``: nobody did, ``default_response`` was taken.
    """

    execution: int
    action_ref: str
    prompt: str
    status: InquiryStatus = "pending"
    version: int = 0
    waits: bool = False
    asker: int | None = None
    assigned_to: int | None = None
    assigned_role: str | None = None
    excluded: list[int] = []
    required: int = 1
    response_schema: Json = None
    responses: list[Answer] = []
    response: Json = None
    default_response: Json = None
    by_default: bool = False
    escalation: list[Escalation] = []
    escalated: int = 0
    timeout_at: datetime | None = None
    responded_at: datetime | None = None
