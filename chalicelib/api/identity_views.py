"""Identities, roles, permission sets and integration tokens on the wire (contract: ``permission.rs``)."""

from datetime import datetime
from typing import Annotated, Any

import msgspec

from chalicelib.api.views import Body, Id, Json, Label, PageQuery, Query, Ref, View
from chalicelib.domain.entities import Identity, IntegrationToken, PermissionAssignment, PermissionSet
from chalicelib.store.token_notes import Use

NewLogin = Annotated[str, msgspec.Meta(min_length=3, max_length=255)]
NewPassword = Annotated[str, msgspec.Meta(min_length=8, max_length=128)]
DisplayName = Annotated[str, msgspec.Meta(max_length=255)]
RoleName = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
LongText = Annotated[str, msgspec.Meta(max_length=2000)]
Attributes = Annotated[dict[str, Any], msgspec.Meta(max_length=100)]
Grants = Annotated[list[Any], msgspec.Meta(max_length=500)]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class CreateIdentityRequest(Body, kw_only=True, frozen=True):
    """Without a ``password`` it signs in with integration tokens, or by a provider of identities, only."""

    login: NewLogin
    display_name: DisplayName | None = None
    password: NewPassword | None = None
    attributes: Attributes | None = None


class UpdateIdentityRequest(Body, kw_only=True, frozen=True):
    display_name: DisplayName | None = None
    password: NewPassword | None = None
    attributes: Attributes | None = None
    frozen: bool | None = None


class CreateIdentityRoleAssignmentRequest(Body, kw_only=True, frozen=True):
    role: RoleName


class CreatePermissionSetRoleAssignmentRequest(Body, kw_only=True, frozen=True):
    role: RoleName


class CreatePermissionAssignmentRequest(Body, kw_only=True, frozen=True):
    """The identity by id or by login; the id counts if both are there."""

    permission_set_ref: Ref
    identity_id: Id | None = None
    identity_login: Label | None = None


class CreatePermissionSetRequest(Body, kw_only=True, frozen=True):
    ref: Ref
    grants: Grants
    label: DisplayName | None = None
    description: LongText | None = None


class UpdatePermissionSetRequest(Body, kw_only=True, frozen=True):
    grants: Grants
    label: DisplayName | None = None
    description: LongText | None = None


class CreateIntegrationTokenRequest(Body, kw_only=True, frozen=True):
    label: Label
    description: LongText | None = None
    expires_at: Moment | None = None


class RevokeIntegrationTokenRequest(Body, kw_only=True, frozen=True):
    reason: LongText | None = None


class IdentityQuery(PageQuery, kw_only=True, frozen=True):
    pass


class PermissionSetQuery(Query, kw_only=True, frozen=True):
    pack_ref: str | None = None


class IdentityRoleAssignmentResponse(View, kw_only=True, frozen=True):
    id: int
    identity_id: int
    role: str
    source: str
    managed: bool
    created: datetime
    updated: datetime


class PermissionAssignmentResponse(View, kw_only=True, frozen=True):
    id: int
    identity_id: int
    permission_set_id: int
    permission_set_ref: str
    created: datetime


class PermissionSetRoleAssignmentResponse(View, kw_only=True, frozen=True):
    id: int
    permission_set_id: int
    permission_set_ref: str | None
    role: str
    created: datetime


class IdentitySummary(View, kw_only=True, frozen=True):
    id: int
    login: str
    display_name: str | None
    frozen: bool
    attributes: Json
    roles: list[str]

    @classmethod
    def of_identity(cls, identity: Identity) -> "IdentitySummary":
        return cls.of(identity, roles=[each.role for each in identity.roles])


class IdentityResponse(View, kw_only=True, frozen=True):
    id: int
    login: str
    display_name: str | None
    frozen: bool
    attributes: Json
    roles: list[IdentityRoleAssignmentResponse]
    direct_permissions: list[PermissionAssignmentResponse]


class PermissionSetSummary(View, kw_only=True, frozen=True):
    id: int
    ref: str
    pack_ref: str | None
    label: str | None
    description: str | None
    grants: Json
    roles: list[PermissionSetRoleAssignmentResponse]


class IntegrationTokenResponse(View, kw_only=True, frozen=True):
    """``active``: neither revoked nor expired. The last use is known to the minute."""

    id: int
    identity_id: int
    label: str
    description: str | None
    token_prefix: str
    token_suffix: str
    created_by: int | None
    expires_at: datetime | None
    last_used_at: datetime | None
    last_used_ip: str | None
    revoked_at: datetime | None
    revoked_by: int | None
    revocation_reason: str | None
    active: bool
    created: datetime
    updated: datetime

    @classmethod
    def of_token(cls, token: IntegrationToken, now: datetime, use: Use | None = None) -> "IntegrationTokenResponse":
        return cls.of(
            token,
            identity_id=token.identity,
            active=token.active(now),
            last_used_at=use.at if use else None,
            last_used_ip=use.ip if use else None,
        )


class CreateIntegrationTokenResponse(View, kw_only=True, frozen=True):
    """``token`` is shown this once and never again."""

    token: str
    integration_token: IntegrationTokenResponse


def assignment_view(identity: Identity, assignment: PermissionAssignment, set_id: int) -> PermissionAssignmentResponse:
    """``set_id`` is 0 for a permission set that is no more."""
    return PermissionAssignmentResponse.of(assignment, identity_id=identity.id, permission_set_id=set_id)


def set_role_view(
    permission_set: PermissionSet, role: str, assignment: PermissionAssignment
) -> PermissionSetRoleAssignmentResponse:
    return PermissionSetRoleAssignmentResponse.of(assignment, permission_set_id=permission_set.id, role=role)
