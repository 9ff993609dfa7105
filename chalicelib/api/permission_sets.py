"""Permission sets, and the roles that give them (contract: http-api 1.4, Identities & permissions).

Packs bring them along; a tenant may make its own by API. Those of standard packs are for everybody to give, and for
nobody to change.
"""

import msgspec

from chalicelib.api.components import is_hidden
from chalicelib.api.delegation import require_change, require_grants
from chalicelib.api.errors import Conflict, Forbidden, NotFound, Unprocessable
from chalicelib.api.identity_views import (
    CreatePermissionSetRequest,
    CreatePermissionSetRoleAssignmentRequest,
    PermissionSetQuery,
    PermissionSetRoleAssignmentResponse,
    PermissionSetSummary,
    UpdatePermissionSetRequest,
    set_role_view,
)
from chalicelib.api.routing import ROUTES, Call, grant
from chalicelib.api.views import Data, Json, Success, given
from chalicelib.domain import refs
from chalicelib.domain.entities import Grant, PermissionAssignment, PermissionSet, Role
from chalicelib.domain.permissions import GrantError, check_grants
from chalicelib.flow.permission_sets import taken_away
from chalicelib.store.registry import Delete, Put, persistently


@ROUTES.get(
    "/api/v1/permissions/sets",
    needs=grant("permissions", "read"),
    query=PermissionSetQuery,
    returns=list[PermissionSetSummary],
    tag="permissions",
)
def list_permission_sets(call: Call) -> list[PermissionSetSummary]:
    """Permission sets, by ref, with the roles that give them."""
    wanted = call.query.pack_ref
    sets = [each for each in call.registry.permission_sets.visible() if wanted in (None, each.pack_ref)]
    roles = call.registry.roles.list()
    return [_summary(each, roles) for each in call.readable("permissions", sets)]


@ROUTES.post(
    "/api/v1/permissions/sets",
    needs=grant("permissions", "create"),
    body=CreatePermissionSetRequest,
    returns=Data[PermissionSetSummary],
    status=201,
    tag="permissions",
    errors=(409,),
)
def create_permission_set(call: Call) -> Data[PermissionSetSummary]:
    """Make a permission set that no pack owns. It holds nothing that the caller does not have."""
    body: CreatePermissionSetRequest = call.body
    pack = call.pack(refs.split(body.ref)[0])
    if pack is not None and pack.is_standard:
        raise Forbidden(f"Pack '{pack.ref}' is a standard pack and cannot be changed")
    made = PermissionSet(
        id=call.services.new_id(),
        ref=body.ref,
        created=call.now,
        updated=call.now,
        label=body.label,
        description=body.description,
        grants=_checked(body.grants),
    )
    call.require("permissions", "create", call.context_of(made))
    require_grants(call, made.grants, "This permission set")
    call.registry.commit(Put(made, new=True))
    return Data(_summary(made, []), "Permission set created successfully")


@ROUTES.put(
    "/api/v1/permissions/sets/{id}",
    needs=grant("permissions", "manage"),
    body=UpdatePermissionSetRequest,
    returns=Data[PermissionSetSummary],
    tag="permissions",
    errors=(404, 409),
)
def update_permission_set(call: Call, id: int) -> Data[PermissionSetSummary]:  # noqa: A002  # the name in the path
    """Change what a permission set holds; what is added to it the caller must have themselves."""
    body: UpdatePermissionSetRequest = call.body
    before = _to_change(call, id, "manage")
    grants = _checked(body.grants)
    require_change(call, before.grants, grants, "This permission set")
    changed = msgspec.structs.replace(before, grants=grants, updated=call.now, **given(body, "label", "description"))
    call.registry.commit(Put(changed))
    return Data(_summary(changed, call.registry.roles.list()), "Permission set updated successfully")


@ROUTES.delete(
    "/api/v1/permissions/sets/{id}",
    needs=grant("permissions", "delete"),
    returns=Data[Success],
    tag="permissions",
    errors=(404, 409),
)
def delete_permission_set(call: Call, id: int) -> Data[Success]:  # noqa: A002
    """Delete a permission set, and take it from everybody. One that belongs to a pack goes with the pack: 403."""
    found = _to_change(call, id, "delete")
    if found.pack_ref is not None:
        raise Forbidden(f"Permission set '{found.ref}' belongs to pack '{found.pack_ref}' and goes with it")
    call.registry.commit(Delete("permission_set", found.ref), *taken_away(call.registry, {found.ref}, call.now))
    return Data(Success("Permission set deleted successfully"))


@ROUTES.post(
    "/api/v1/permissions/sets/{id}/roles",
    needs=grant("permissions", "manage"),
    body=CreatePermissionSetRoleAssignmentRequest,
    returns=Data[PermissionSetRoleAssignmentResponse],
    status=201,
    tag="permissions",
    errors=(404, 409),
)
def create_permission_set_role_assignment(
    call: Call,
    id: int,  # noqa: A002
) -> Data[PermissionSetRoleAssignmentResponse]:
    """Have a role give a permission set, a standard one too, which the caller must have themselves."""
    name: str = call.body.role
    found = visible_set(call, call.registry.permission_sets.by_id(id), id)
    call.require("permissions", "manage", call.context_of(found))
    require_grants(call, found.grants, f"Permission set '{found.ref}'")
    added = PermissionAssignment(id=call.services.new_id(), permission_set_ref=found.ref, created=call.now)

    def give() -> None:
        role = call.registry.roles.get(name)
        if role is None:
            made = Role(
                id=call.services.new_id(), ref=name, created=call.now, updated=call.now, permission_sets=[added]
            )
            call.registry.commit(Put(made, new=True))
        elif any(each.permission_set_ref == found.ref for each in role.permission_sets):
            raise Conflict(f"Role '{name}' gives the permission set '{found.ref}' already")
        else:
            _give(call, role, [*role.permission_sets, added])

    persistently(give)
    return Data(set_role_view(found, name, added), "Permission set role assignment created successfully")


@ROUTES.delete(
    "/api/v1/permissions/sets/roles/{id}",
    needs=grant("permissions", "manage"),
    returns=Data[Success],
    tag="permissions",
    errors=(404, 409),
)
def delete_permission_set_role_assignment(call: Call, id: int) -> Data[Success]:  # noqa: A002
    """Have a role give a permission set no more."""

    def take() -> None:
        for role in call.registry.roles.list():
            for each in role.permission_sets:
                if each.id == id:
                    found = call.registry.permission_sets.find(each.permission_set_ref)
                    if found is not None:
                        call.require("permissions", "manage", call.context_of(visible_set(call, found, id)))
                    _give(call, role, [other for other in role.permission_sets if other.id != id])
                    return
        raise NotFound.of("Permission set role assignment", id)

    persistently(take)
    return Data(Success("Permission set role assignment deleted successfully"))


def visible_set(call: Call, found: PermissionSet | None, named: object) -> PermissionSet:
    """``found``, or NotFound where there is none or it belongs to somebody's private pack."""
    if found is None or is_hidden(call, call.pack(found.pack_ref)):
        raise NotFound.of("Permission set", named)
    return found


def _to_change(call: Call, id_: int, action: str) -> PermissionSet:
    found = visible_set(call, call.registry.permission_sets.by_id(id_), id_)
    return call.to_write("permissions", action, "Permission set", found.ref, found)


def _give(call: Call, role: Role, permission_sets: list[PermissionAssignment]) -> None:
    call.registry.commit(Put(msgspec.structs.replace(role, permission_sets=permission_sets, updated=call.now)))


def _checked(grants: Json) -> list[Grant]:
    try:
        return check_grants(grants)
    except GrantError as error:
        raise Unprocessable(str(error), details={"path": "grants"}) from None


def _summary(permission_set: PermissionSet, roles: list[Role]) -> PermissionSetSummary:
    given_by = [
        set_role_view(permission_set, role.ref, each)
        for role in roles
        for each in role.permission_sets
        if each.permission_set_ref == permission_set.ref
    ]
    return PermissionSetSummary.of(permission_set, roles=given_by)
