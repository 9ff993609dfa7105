"""Identities and what they are given (contract: http-api 1.4, Identities & permissions)."""

from typing import Any

import msgspec

from chalicelib.api.delegation import require_account, require_grants
from chalicelib.api.errors import BadRequest, Conflict, NotFound
from chalicelib.api.identity_views import (
    CreateIdentityRequest,
    CreateIdentityRoleAssignmentRequest,
    CreatePermissionAssignmentRequest,
    IdentityQuery,
    IdentityResponse,
    IdentityRoleAssignmentResponse,
    IdentitySummary,
    PermissionAssignmentResponse,
    UpdateIdentityRequest,
    assignment_view,
)
from chalicelib.api.permission_sets import visible_set
from chalicelib.api.routing import ROUTES, Call, grant
from chalicelib.api.views import Data, Page, Success, given
from chalicelib.domain import refs
from chalicelib.domain.entities import Identity, PermissionAssignment, RoleAssignment
from chalicelib.security import passwords
from chalicelib.security.access import grants_of
from chalicelib.store.registry import Delete, Put, persistently


@ROUTES.get(
    "/api/v1/identities",
    needs=grant("identities", "read"),
    query=IdentityQuery,
    returns=Page[IdentitySummary],
    tag="permissions",
)
def list_identities(call: Call) -> Page[IdentitySummary]:
    """Identities, by login."""
    rows = call.readable("identities", call.registry.identities.list())
    return Page.slice_of(rows, call.query.paging, IdentitySummary.of_identity)


@ROUTES.post(
    "/api/v1/identities",
    needs=grant("identities", "create"),
    body=CreateIdentityRequest,
    returns=Data[IdentityResponse],
    status=201,
    tag="permissions",
    errors=(409,),
)
def create_identity(call: Call) -> Data[IdentityResponse]:
    """Make an account. It has no permissions."""
    body: CreateIdentityRequest = call.body
    identity = Identity(
        id=call.services.new_id(),
        ref=refs.login(body.login),
        created=call.now,
        updated=call.now,
        display_name=body.display_name,
        password_hash=passwords.hash_password(body.password) if body.password else None,
        attributes=body.attributes or {},
    )
    call.require("identities", "create", call.context_of(identity))
    call.registry.commit(Put(identity, new=True))
    return Data(_response(call, identity), "Identity created successfully")


@ROUTES.get(
    "/api/v1/identities/{id}",
    needs=grant("identities", "read"),
    returns=Data[IdentityResponse],
    tag="permissions",
    errors=(404,),
)
def get_identity(call: Call, id: int) -> Data[IdentityResponse]:  # noqa: A002  # the name in the path
    """One identity with its roles and permission sets."""
    return Data(_response(call, call.to_read("identities", "Identity", id, _own(call, id))))


@ROUTES.put(
    "/api/v1/identities/{id}",
    needs=grant("identities", "update"),
    body=UpdateIdentityRequest,
    returns=Data[IdentityResponse],
    tag="permissions",
    errors=(404, 409),
)
def update_identity(call: Call, id: int) -> Data[IdentityResponse]:  # noqa: A002
    """Change an account. Its password and attributes change only by somebody who may do all that it may do."""
    body: UpdateIdentityRequest = call.body
    identity = to_change(call, id)
    if body.frozen:
        _refuse_self(call, identity, "freeze")
    changes = given(body, "display_name", "attributes", "frozen")
    if body.password is not None:
        changes |= {"password_hash": passwords.hash_password(body.password), "sessions_since": call.now}
    if body.password is not None or body.attributes not in (None, identity.attributes):
        require_account(call, identity)
    return Data(_changed(call, identity, **changes), "Identity updated successfully")


@ROUTES.delete(
    "/api/v1/identities/{id}",
    needs=grant("identities", "delete"),
    returns=Data[Success],
    tag="permissions",
    errors=(404, 409),
)
def delete_identity(call: Call, id: int) -> Data[Success]:  # noqa: A002
    """Delete an account with its tokens and its keys. 400 for one's own."""
    identity = to_change(call, id, "delete")
    _refuse_self(call, identity, "delete")
    registry = call.registry
    tokens = registry.integration_tokens.group(str(identity.id))
    registry.commit(
        Delete("identity", identity.ref),
        *(Delete("integration_token", token.ref) for token in tokens),
        *(Delete("key", key.ref) for key in registry.keys_of("identity", identity.id)),
    )
    return Data(Success("Identity deleted successfully"))


@ROUTES.post(
    "/api/v1/identities/{id}/freeze",
    needs=grant("identities", "update"),
    returns=Data[Success],
    tag="permissions",
    errors=(404, 409),
)
def freeze_identity(call: Call, id: int) -> Data[Success]:  # noqa: A002
    """Lock an account: none of its tokens opens anything any more, within a second or two. 400 for one's own."""
    identity = to_change(call, id)
    _refuse_self(call, identity, "freeze")
    _changed(call, identity, frozen=True)
    return Data(Success("Identity frozen successfully"))


@ROUTES.post(
    "/api/v1/identities/{id}/unfreeze",
    needs=grant("identities", "update"),
    returns=Data[Success],
    tag="permissions",
    errors=(404, 409),
)
def unfreeze_identity(call: Call, id: int) -> Data[Success]:  # noqa: A002
    """Unlock an account. 400 for one's own."""
    identity = to_change(call, id)
    _refuse_self(call, identity, "unfreeze")
    _changed(call, identity, frozen=False)
    return Data(Success("Identity unfrozen successfully"))


@ROUTES.get(
    "/api/v1/identities/{id}/permissions",
    needs=grant("permissions", "read"),
    returns=list[PermissionAssignmentResponse],
    tag="permissions",
    errors=(404,),
)
def list_identity_permissions(call: Call, id: int) -> list[PermissionAssignmentResponse]:  # noqa: A002
    """The permission sets that are assigned to an identity directly."""
    return _assignments(call, _found(call, id))


@ROUTES.post(
    "/api/v1/identities/{id}/roles",
    needs=grant("permissions", "manage"),
    body=CreateIdentityRoleAssignmentRequest,
    returns=Data[IdentityRoleAssignmentResponse],
    status=201,
    tag="permissions",
    errors=(404, 409),
)
def create_identity_role_assignment(call: Call, id: int) -> Data[IdentityRoleAssignmentResponse]:  # noqa: A002
    """Give an identity a role, and so the permission sets of the role, which the caller must have themselves."""
    name: str = call.body.role
    call.require("permissions", "manage", call.context_of(_found(call, id)))
    role = call.registry.roles.get(name)
    given_by = [each.permission_set_ref for each in role.permission_sets] if role else []
    require_grants(call, grants_of(call.snapshot, given_by), f"Role '{name}'")
    assigned = RoleAssignment(id=call.services.new_id(), role=name, created=call.now, updated=call.now)

    def assign() -> None:
        identity = _found(call, id)
        if any(each.role == name for each in identity.roles):
            raise Conflict(f"Identity '{identity.login}' has the role '{name}' already")
        _changed(call, identity, roles=[*identity.roles, assigned])

    persistently(assign)
    return Data(IdentityRoleAssignmentResponse.of(assigned, identity_id=id), "Role assignment created successfully")


@ROUTES.delete(
    "/api/v1/identities/roles/{id}",
    needs=grant("permissions", "manage"),
    returns=Data[Success],
    tag="permissions",
    errors=(404, 409),
)
def delete_identity_role_assignment(call: Call, id: int) -> Data[Success]:  # noqa: A002
    """Take a role from an identity. 400 for one that a provider of identities manages."""

    def take() -> None:
        for identity in call.registry.identities.list():
            for assigned in identity.roles:
                if assigned.id == id:
                    call.require("permissions", "manage", call.context_of(identity))
                    if assigned.managed:
                        raise BadRequest(f"This role is managed by '{assigned.source}' and cannot be taken away here")
                    _changed(call, identity, roles=[each for each in identity.roles if each.id != id])
                    return
        raise NotFound.of("Role assignment", id)

    persistently(take)
    return Data(Success("Role assignment deleted successfully"))


@ROUTES.post(
    "/api/v1/permissions/assignments",
    needs=grant("permissions", "manage"),
    body=CreatePermissionAssignmentRequest,
    returns=Data[PermissionAssignmentResponse],
    status=201,
    tag="permissions",
    errors=(404, 409),
)
def create_permission_assignment(call: Call) -> Data[PermissionAssignmentResponse]:
    """Give an identity a permission set, which the caller must have themselves."""
    body: CreatePermissionAssignmentRequest = call.body
    identity = _named(call, body)
    call.require("permissions", "manage", call.context_of(identity))
    permission_set = visible_set(
        call, call.registry.permission_sets.find(body.permission_set_ref), body.permission_set_ref
    )
    require_grants(call, permission_set.grants, f"Permission set '{permission_set.ref}'")
    assigned = PermissionAssignment(id=call.services.new_id(), permission_set_ref=permission_set.ref, created=call.now)

    def assign() -> None:
        current = _found(call, identity.id)
        if any(each.permission_set_ref == permission_set.ref for each in current.assignments):
            raise Conflict(f"Identity '{current.login}' has the permission set '{permission_set.ref}' already")
        _changed(call, current, assignments=[*current.assignments, assigned])

    persistently(assign)
    return Data(assignment_view(identity, assigned, permission_set.id), "Permission assignment created successfully")


@ROUTES.delete(
    "/api/v1/permissions/assignments/{id}",
    needs=grant("permissions", "manage"),
    returns=Data[Success],
    tag="permissions",
    errors=(404, 409),
)
def delete_permission_assignment(call: Call, id: int) -> Data[Success]:  # noqa: A002
    """Take a permission set from an identity."""

    def take() -> None:
        for identity in call.registry.identities.list():
            if any(each.id == id for each in identity.assignments):
                call.require("permissions", "manage", call.context_of(identity))
                _changed(call, identity, assignments=[each for each in identity.assignments if each.id != id])
                return
        raise NotFound.of("Permission assignment", id)

    persistently(take)
    return Data(Success("Permission assignment deleted successfully"))


def to_change(call: Call, id_: int, action: str = "update") -> Identity:
    """The identity, if the caller may do ``action`` to it; NotFound or Forbidden otherwise."""
    return call.to_write("identities", action, "Identity", id_, _own(call, id_))


def _own(call: Call, id_: int) -> Identity | None:
    return call.registry.identities.by_id(id_, own=True)


def _found(call: Call, id_: int) -> Identity:
    identity = _own(call, id_)
    if identity is None:
        raise NotFound.of("Identity", id_)
    return identity


def _named(call: Call, body: CreatePermissionAssignmentRequest) -> Identity:
    if body.identity_id is not None:
        return _found(call, body.identity_id)
    if body.identity_login is None:
        raise BadRequest("Say whose it is: identity_id or identity_login is missing")
    identity = call.registry.identities.get(body.identity_login)
    if identity is None:
        raise NotFound.of("Identity", body.identity_login)
    return identity


def _refuse_self(call: Call, identity: Identity, to: str) -> None:
    if identity.id == call.principal.identity_id:
        raise BadRequest(f"You cannot {to} your own identity")


def _changed(call: Call, identity: Identity, **changes: Any) -> IdentityResponse:
    changed = msgspec.structs.replace(identity, updated=call.now, **changes)
    call.registry.commit(Put(changed))
    return _response(call, changed)


def _response(call: Call, identity: Identity) -> IdentityResponse:
    return IdentityResponse.of(
        identity,
        roles=[IdentityRoleAssignmentResponse.of(each, identity_id=identity.id) for each in identity.roles],
        direct_permissions=_assignments(call, identity),
    )


def _assignments(call: Call, identity: Identity) -> list[PermissionAssignmentResponse]:
    ids = {each.ref: each.id for each in call.snapshot.permission_sets()} if identity.assignments else {}
    return [assignment_view(identity, each, ids.get(each.permission_set_ref, 0)) for each in identity.assignments]
