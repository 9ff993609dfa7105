"""What a deployment holds before its first client, and the proof that it works. May be repeated at any time."""

import time
from pathlib import Path
from typing import Final

from chalicelib.domain.entities import SYSTEM_TENANT
from chalicelib.domain.executions import TERMINAL
from chalicelib.flow import intake, packs
from chalicelib.flow.bootstrap import ensure_administrator, ensure_platform_administrator, ensure_tenant
from chalicelib.services import services
from chalicelib.settings import DEFAULT_TENANT

_PROOF_SECONDS: Final = 60
_LOOK_EVERY: Final = 0.05


class ProofError(Exception):
    """The deployment is there but does not work; one sentence says how far it came."""


def prepare(core: Path, administrator: tuple[str, str] | None) -> None:
    """Installs the pack in the folder ``core`` for every tenant, and makes the administrator (login, password) unless
    there is one of that login. Works on the deployment that the environment names (``ATTUNE_*``)."""
    deployment = services()
    packs.install(deployment, SYSTEM_TENANT, packs.read_directory(core), visibility="standard", force=True, strict=True)
    ensure_tenant(deployment, DEFAULT_TENANT)
    if administrator:
        login, password = administrator
        ensure_administrator(deployment, tenant=DEFAULT_TENANT, login=login, password=password)
        ensure_platform_administrator(deployment, login=login)


def prove() -> None:
    """Has the deployment take in an event and run an action, as the system's own tenant, where no user sees them.

    Both planes and every queue between them take part, so that a broken deployment is found by who deploys it, and
    the first user finds functions warm. Raises :class:`ProofError`.
    """
    deployment = services()
    system = deployment.store.tenant(SYSTEM_TENANT)
    trigger, action = system.registry.triggers.get("core.alert"), system.registry.actions.get("core.echo")
    if trigger is None or action is None:
        raise ProofError("The core pack lacks core.alert or core.echo.")
    intake.accept_event(deployment, SYSTEM_TENANT, trigger, payload={"message": "deployed"})
    execution = intake.request_execution(deployment, SYSTEM_TENANT, action, parameters={"message": "deployed"})
    deadline = time.monotonic() + _PROOF_SECONDS
    while execution.status not in TERMINAL and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY)
        execution = system.activity.get_execution(execution.id) or execution
    if execution.status != "completed":
        reason = execution.result["error"] if execution.result else f"no result within {_PROOF_SECONDS} s"
        raise ProofError(
            f"The deployment is there, but a first run of core.echo is {execution.status} ({reason}): "
            "see the functions' logs."
        )
