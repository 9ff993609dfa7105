"""What a fresh deployment needs before anybody can sign in. Every step may be repeated."""

from chalicelib.domain.entities import Identity, PermissionAssignment
from chalicelib.security import passwords
from chalicelib.services import Services
from chalicelib.store.registry import Put

ADMINISTRATORS = "core.admin"


def ensure_administrator(services: Services, *, tenant: str, login: str, password: str) -> bool:
    """Create the administrator ``login`` of ``tenant`` unless it exists. Returns whether it was created.

    An existing identity keeps its password: a redeployment must not undo a change of it.
    """
    registry = services.store.tenant(tenant).registry
    if registry.identities.get(login) is not None:
        return False
    now = services.clock()
    assignment = PermissionAssignment(id=services.new_id(), permission_set_ref=ADMINISTRATORS, created=now)
    registry.commit(
        Put(
            Identity(
                id=services.new_id(),
                ref=login,
                created=now,
                updated=now,
                display_name="Administrator",
                password_hash=passwords.hash_password(password),
                assignments=[assignment],
            ),
            new=True,
        )
    )
    return True
