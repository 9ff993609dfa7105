"""What a fresh deployment, or a fresh tenant, needs before anybody can sign in. Every step may be repeated."""

from collections.abc import Sequence
from typing import Final

import msgspec

from chalicelib.domain.entities import SYSTEM_TENANT, Identity, PermissionAssignment, Tenant
from chalicelib.security import passwords
from chalicelib.services import Services
from chalicelib.store.registry import Put

PLATFORM_ADMINISTRATORS: Final = "core.platform_admin"
TENANT_ADMINISTRATOR: Final = ("core.admin",)


def ensure_tenant(services: Services, slug: str) -> None:
    """Give the deployment's own tenant the record that every other one has."""
    registry = services.store.tenant(SYSTEM_TENANT).registry
    if registry.tenants.get(slug) is None:
        now = services.clock()
        registry.commit(Put(Tenant(id=services.new_id(), ref=slug, created=now, updated=now, label=slug), new=True))


def ensure_administrator(
    services: Services,
    *,
    tenant: str,
    login: str,
    password: str,
    display_name: str | None = None,
    sets: Sequence[str] = TENANT_ADMINISTRATOR,
) -> bool:
    """Create the administrator ``login`` of ``tenant`` unless it exists. Returns whether it was created.

    An existing identity keeps its password: a redeployment must not undo a change of it.
    """
    registry = services.store.tenant(tenant).registry
    if registry.identities.get(login) is not None:
        return False
    now = services.clock()
    registry.commit(
        Put(
            Identity(
                id=services.new_id(),
                ref=login,
                created=now,
                updated=now,
                display_name=display_name or "Administrator",
                password_hash=passwords.hash_password(password),
                assignments=[_assignment(services, ref) for ref in sets],
            ),
            new=True,
        )
    )
    return True


def ensure_platform_administrator(services: Services, *, login: str) -> None:
    """Let the administrator ``login`` of the default tenant make tenants, unless somebody may."""
    registry = services.store.tenant(services.settings.default_tenant).registry
    identities = registry.identities.list()
    if any(PLATFORM_ADMINISTRATORS in _sets(each) for each in identities):
        return
    for identity in identities:
        if identity.login == login:
            added = [*identity.assignments, _assignment(services, PLATFORM_ADMINISTRATORS)]
            registry.commit(Put(msgspec.structs.replace(identity, assignments=added)))


def _assignment(services: Services, ref: str) -> PermissionAssignment:
    return PermissionAssignment(id=services.new_id(), permission_set_ref=ref, created=services.clock())


def _sets(identity: Identity) -> list[str]:
    return [each.permission_set_ref for each in identity.assignments]
