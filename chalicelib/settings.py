"""What a deployment tells its functions through their environment."""

from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

DEFAULT_TENANT = "default"  # whom public registration and a login without `tenant` mean (README 1)


class TaskSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Where containers run as tasks of ECS. ``closed_groups`` let them reach what they are started from, no more."""

    cluster: str
    image: str  # the platform's, from infra/task.Dockerfile
    role: str  # that ECS fetches images and writes logs with; a task itself has none
    subnets: list[str]
    closed_groups: list[str]
    open_groups: list[str]
    logs: str
    public_address: bool = False


class OidcSettings(msgspec.Struct, kw_only=True, frozen=True):
    """A provider of identities that speaks OpenID Connect. Its client secret is in the deployment's secret."""

    issuer: str
    client_id: str
    scope: str = "openid profile email"
    login_claim: str = "email"  # what a new identity's login is
    roles_claim: str | None = None  # dotted path to the names of roles; None: roles are given here
    sign_up: bool = False  # whether somebody new gets an identity; else it has to be there, without a password
    name: str = "oidc"
    label: str = "Single sign-on"
    icon_url: str | None = None


class Settings(msgspec.Struct, kw_only=True, frozen=True):
    """Set by the stack for every control-plane function (``infra``)."""

    registry_table: str
    activity_table: str
    events_queue: str
    executions_queue: str
    results_queue: str
    runner_function: str
    bucket: str
    secret: str
    api_url: str
    self_registration: bool = False
    tenant_isolation: bool = False  # Lambda's tenant isolation mode for the runner
    packs_dir: str | None = None  # where POST /packs/register may read; unset: the route is refused
    tasks: TaskSettings | None = None  # None: containers run where the other runs do
    tenant_share: int | None = None  # executions of one tenant that may run at once, whatever its quota; None: as many
    default_tenant: str = DEFAULT_TENANT
    cors_origins: frozenset[str] = frozenset()  # whose pages may call the API from a browser
    oidc: OidcSettings | None = None
    audit_days: int | None = None  # how long audit records are kept; None: for good


def settings_from(environment: Mapping[str, str]) -> Settings:
    """Read ``ATTUNE_*``. Raises KeyError naming the variable that is missing."""
    return Settings(
        registry_table=environment["ATTUNE_REGISTRY_TABLE"],
        activity_table=environment["ATTUNE_ACTIVITY_TABLE"],
        events_queue=environment["ATTUNE_EVENTS_QUEUE"],
        executions_queue=environment["ATTUNE_EXECUTIONS_QUEUE"],
        results_queue=environment["ATTUNE_RESULTS_QUEUE"],
        runner_function=environment["ATTUNE_RUNNER_FUNCTION"],
        bucket=environment["ATTUNE_BUCKET"],
        secret=environment["ATTUNE_SECRET"],
        api_url=environment["ATTUNE_API_URL"],
        self_registration=environment.get("ATTUNE_SELF_REGISTRATION") == "on",
        tenant_isolation=environment.get("ATTUNE_TENANT_ISOLATION") == "on",
        packs_dir=environment.get("ATTUNE_PACKS_DIR"),
        tenant_share=int(environment.get("ATTUNE_TENANT_SHARE") or 0) or None,
        tasks=_task_settings(environment) if environment.get("ATTUNE_TASK_CLUSTER") else None,
        cors_origins=frozenset(_listed(environment, "ATTUNE_CORS_ORIGINS")),
        oidc=oidc_settings(environment.get("ATTUNE_OIDC", "")),
        audit_days=int(environment.get("ATTUNE_AUDIT_DAYS") or 0) or None,
    )


def oidc_settings(text: str) -> OidcSettings | None:
    """The settings in ``text``, a JSON object; None: there are none. Raises ValueError, saying what is wrong."""
    if not text.strip():
        return None
    settings = msgspec.json.decode(text, type=OidcSettings)  # its errors are ValueErrors
    issuer = urlsplit(settings.issuer)
    local = issuer.hostname in ("localhost", "127.0.0.1", "::1")
    if not issuer.hostname or (issuer.scheme != "https" and not (issuer.scheme == "http" and local)):
        raise ValueError(f"issuer must begin with https://, not {settings.issuer!r}")
    return settings


def _listed(environment: Mapping[str, str], name: str) -> list[str]:
    return [each.strip() for each in environment.get(name, "").split(",") if each.strip()]


def _task_settings(environment: Mapping[str, str]) -> TaskSettings:
    return TaskSettings(
        cluster=environment["ATTUNE_TASK_CLUSTER"],
        image=environment["ATTUNE_TASK_IMAGE"],
        role=environment["ATTUNE_TASK_ROLE"],
        subnets=environment["ATTUNE_TASK_SUBNETS"].split(","),
        closed_groups=environment["ATTUNE_TASK_CLOSED_GROUPS"].split(","),
        open_groups=environment["ATTUNE_TASK_OPEN_GROUPS"].split(","),
        logs=environment["ATTUNE_TASK_LOGS"],
        public_address=environment.get("ATTUNE_TASK_PUBLIC_ADDRESS") == "on",
    )
