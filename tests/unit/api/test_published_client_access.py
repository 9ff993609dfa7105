"""The generated client of ``attune-sdk`` on identities, permissions and integration tokens."""

import pytest
from attune.api_client.api.auth import token_login
from attune.api_client.api.permissions import (
    create_identity,
    create_identity_role_assignment,
    create_integration_token,
    create_permission_assignment,
    create_permission_set_role_assignment,
    delete_identity,
    delete_identity_role_assignment,
    delete_integration_token,
    delete_permission_assignment,
    delete_permission_set_role_assignment,
    freeze_identity,
    get_identity,
    list_identities,
    list_identity_permissions,
    list_integration_tokens,
    list_permission_sets,
    revoke_integration_token,
    unfreeze_identity,
    update_identity,
    update_permission_set,
)
from attune.api_client.models import (
    CreateIdentityRequest,
    CreateIdentityRoleAssignmentRequest,
    CreateIntegrationTokenRequest,
    CreatePermissionAssignmentRequest,
    CreatePermissionSetRoleAssignmentRequest,
    RevokeIntegrationTokenRequest,
    TokenLoginRequest,
    UpdateIdentityRequest,
    UpdatePermissionSetRequest,
)
from unit.api.test_published_client import anonymous, client, read, transport

__all__ = ["anonymous", "client", "transport"]  # fixtures


@pytest.fixture
def ann(client):
    body = CreateIdentityRequest(login="ann@example.org", password="correct horse battery")
    return read(create_identity, client, body=body).data.id


def test_identities(client, ann):
    assert read(get_identity, client, ann).data.login == "ann@example.org"
    assert read(update_identity, client, ann, body=UpdateIdentityRequest(display_name="Ann")).data.display_name == "Ann"
    assert "ann@example.org" in [each.login for each in read(list_identities, client).items]
    assert read(freeze_identity, client, ann).data.success is True
    assert read(unfreeze_identity, client, ann).data.success is True
    assert read(delete_identity, client, ann).data.success is True


def test_permissions(api, client, ann):
    viewer = next(each for each in read(list_permission_sets, client) if each.ref == "core.viewer")
    given = read(
        create_permission_assignment,
        client,
        body=CreatePermissionAssignmentRequest(identity_id=ann, permission_set_ref="core.viewer"),
    ).data
    assert given.permission_set_id == viewer.id
    assert [each.id for each in read(list_identity_permissions, client, ann)] == [given.id]
    assert read(delete_permission_assignment, client, given.id).data.success is True
    role = read(create_identity_role_assignment, client, ann, body=CreateIdentityRoleAssignmentRequest(role="ops")).data
    mapped = read(
        create_permission_set_role_assignment,
        client,
        viewer.id,
        body=CreatePermissionSetRoleAssignmentRequest(role="ops"),
    ).data
    assert read(delete_permission_set_role_assignment, client, mapped.id).data.success is True
    assert read(delete_identity_role_assignment, client, role.id).data.success is True
    made = api.post("/api/v1/permissions/sets", json={"ref": "ops.readers", "grants": []}).data
    body = UpdatePermissionSetRequest(grants=[{"resource": "packs", "actions": ["read"]}])
    assert read(update_permission_set, client, made["id"], body=body).data.ref == "ops.readers"


def test_integration_tokens(client, anonymous, ann):
    made = read(create_integration_token, client, ann, body=CreateIntegrationTokenRequest(label="ci")).data
    tokens = read(token_login, anonymous, body=TokenLoginRequest(token=made.token)).data
    assert tokens.user.login == "ann@example.org"
    (listed,) = read(list_integration_tokens, client, ann).data
    assert listed.active is True
    revoked = read(
        revoke_integration_token, client, ann, listed.id, body=RevokeIntegrationTokenRequest(reason="over")
    ).data
    assert revoked.active is False
    assert read(delete_integration_token, client, ann, listed.id).data.success is True
