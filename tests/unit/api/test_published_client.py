"""The generated client of ``attune-sdk`` against the adapter: what it sends is understood, what it gets it can read."""

import io
import tarfile
from datetime import timedelta
from uuid import uuid4

import httpx
import pytest
from attune.api_client import AuthenticatedClient, Client
from attune.api_client.api.actions import create_action, get_action, list_actions, list_actions_by_pack, search_actions
from attune.api_client.api.auth import auth_settings, change_password, get_current_user, login, refresh_token, register
from attune.api_client.api.enforcements import list_enforcements
from attune.api_client.api.events import list_events
from attune.api_client.api.executions import (
    create_execution,
    get_execution,
    get_execution_stats,
    list_executions,
    list_executions_by_status,
)
from attune.api_client.api.health import health, health_detailed
from attune.api_client.api.inquiries import (
    create_inquiry,
    delete_inquiry,
    get_inquiry,
    list_inquiries,
    list_inquiries_by_execution,
    list_inquiries_by_status,
    respond_to_inquiry,
    update_inquiry,
)
from attune.api_client.api.packs import (
    create_pack,
    delete_pack,
    get_pack,
    list_packs,
    sync_pack_workflows,
    upload_pack,
    validate_pack_workflows,
)
from attune.api_client.api.rules import create_rule, disable_rule, enable_rule, get_rule, list_rules, list_rules_by_pack
from attune.api_client.api.runtimes import get_runtime, list_runtimes, list_runtimes_by_pack
from attune.api_client.api.secrets import create_key, delete_key, get_key, list_keys, update_key
from attune.api_client.api.sensors import (
    create_sensor,
    delete_sensor,
    disable_sensor,
    enable_sensor,
    get_sensor,
    get_sensor_log,
    list_enabled_sensors,
    list_sensor_logs,
    list_sensors,
    list_sensors_by_pack,
    list_sensors_by_trigger,
    update_sensor,
)
from attune.api_client.api.triggers import create_trigger, get_trigger, list_triggers
from attune.api_client.api.webhooks import enable_webhook, receive_webhook
from attune.api_client.api.workflows import (
    create_workflow,
    delete_workflow,
    get_workflow,
    list_workflows,
    list_workflows_by_pack,
    save_workflow_file,
    update_workflow,
    update_workflow_file,
)
from attune.api_client.models import (
    ChangePasswordRequest,
    CreateActionRequest,
    CreateExecutionRequest,
    CreateExecutionRequestEnvVars,
    CreateExecutionRequestParameters,
    CreateInquiryRequest,
    CreateInquiryRequestResponseSchema,
    CreateKeyRequest,
    CreatePackRequest,
    CreateRuleRequest,
    CreateSensorRequest,
    CreateTriggerRequest,
    CreateWorkflowRequest,
    InquiryRespondRequest,
    InquiryStatus,
    LoginRequest,
    OwnerType,
    PackUploadForm,
    RefreshTokenRequest,
    RegisterRequest,
    SaveWorkflowFileRequest,
    UpdateInquiryRequest,
    UpdateKeyRequest,
    UpdateSensorRequest,
    UpdateWorkflowRequest,
    WebhookReceiverRequest,
)
from attune.api_client.types import File

from chalicelib.api import adapter
from chalicelib.api.routing import Request
from chalicelib.domain.entities import Runtime
from chalicelib.store.registry import Put


@pytest.fixture
def transport(api):
    def send(request: httpx.Request) -> httpx.Response:
        response = adapter.handle(
            Request(
                method=request.method,
                path=request.url.path,
                query={name: request.url.params.get_list(name) for name in request.url.params},
                headers=dict(request.headers),
                body=request.read(),
                client_ip="203.0.113.7",
                request_id=str(uuid4()),
            ),
            api.services,
        )
        return httpx.Response(response.status, headers=response.headers, content=response.body)

    return {"transport": httpx.MockTransport(send)}


@pytest.fixture
def client(api, transport):
    return AuthenticatedClient(
        base_url="http://attune.test", token=api.token, httpx_args=transport, raise_on_unexpected_status=True
    )


@pytest.fixture
def anonymous(transport):
    return Client(base_url="http://attune.test", httpx_args=transport, raise_on_unexpected_status=True)


@pytest.fixture
def demo(api, client):
    """A pack with an action, a trigger and a rule, made by the client."""
    api.post("/api/v1/packs", json={"ref": "demo", "label": "Demo", "version": "1.0.0"})
    create_action.sync_detailed(
        client=client, body=CreateActionRequest(ref="demo.a", pack_ref="demo", label="A", entrypoint="echo hello")
    )
    create_trigger.sync_detailed(client=client, body=CreateTriggerRequest(ref="demo.t", pack_ref="demo", label="T"))
    body = CreateRuleRequest(ref="demo.r", pack_ref="demo", label="R", action_ref="demo.a", trigger_ref="demo.t")
    create_rule.sync_detailed(client=client, body=body)


def read(call, client, *arguments, **options):
    """The parsed answer; every call must have an answer that the client can parse."""
    response = call.sync_detailed(*arguments, client=client, **options)
    assert response.status_code < 300, response.content
    assert response.parsed is not None
    return response.parsed


def test_accounts(anonymous, transport):
    made = read(register, anonymous, body=RegisterRequest(login="sdk@example.org", password="a long password"))
    assert made.data.user.login == "sdk@example.org"
    tokens = read(login, anonymous, body=LoginRequest(login="sdk@example.org", password="a long password")).data
    signed_in = AuthenticatedClient(base_url="http://attune.test", token=tokens.access_token, httpx_args=transport)
    assert read(get_current_user, signed_in).data.login == "sdk@example.org"
    again = read(refresh_token, anonymous, body=RefreshTokenRequest(refresh_token=tokens.refresh_token))
    assert again.data.expires_in == 3600
    change = ChangePasswordRequest(current_password="a long password", new_password="another password")
    assert read(change_password, signed_in, body=change).data.success is True
    assert auth_settings.sync_detailed(client=anonymous).status_code == 200


def test_health(anonymous):
    assert health.sync_detailed(client=anonymous).status_code == 200
    assert health_detailed.sync_detailed(client=anonymous).status_code == 200


def test_keys(client):
    body = CreateKeyRequest(local_ref="token", name="Token", owner_type=OwnerType.SYSTEM, value={"a": 1})
    made = read(create_key, client, body=body).data
    assert (made.ref, made.local_ref, made.value) == ("system.token", "token", {"a": 1})
    assert read(get_key, client, made.ref).data.value == {"a": 1}
    assert [each.ref for each in read(list_keys, client).items] == ["system.token"]
    assert read(update_key, client, made.ref, body=UpdateKeyRequest(name="New")).data.name == "New"
    assert read(delete_key, client, made.ref).success is True


def test_runtimes(api, client):
    now = api.services.clock()
    api.registry.commit(Put(Runtime(id=1, ref="demo.ruby", name="Ruby", created=now, updated=now), new=True))
    assert read(get_runtime, client, "demo.ruby").data.name == "Ruby"
    assert [each.ref for each in read(list_runtimes, client).items] == ["demo.ruby"]
    assert read(list_runtimes_by_pack, client, "core").items == []


def test_packs(client, demo):
    body = CreatePackRequest(ref="more", label="More", version="1.0.0")
    assert read(create_pack, client, body=body).data.ref == "more"
    assert read(get_pack, client, "demo").data.label == "Demo"
    assert [each.ref for each in read(list_packs, client).items] == ["core", "demo", "more"]
    assert delete_pack.sync_detailed("demo", client=client).status_code == 200


def test_an_uploaded_pack(client):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        content = b"ref: up\nname: Up\nversion: 1.0.0\n"
        entry = tarfile.TarInfo("pack.yaml")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    file = File(payload=io.BytesIO(archive.getvalue()), file_name="up.tar.gz", mime_type="application/gzip")
    assert read(upload_pack, client, body=PackUploadForm(pack=file)).data.pack.ref == "up"


def test_actions(client, demo):
    assert read(get_action, client, "demo.a").data.entrypoint == "echo hello"
    assert "demo.a" in [each.ref for each in read(list_actions, client).items]
    assert [each.ref for each in read(list_actions_by_pack, client, "demo").items] == ["demo.a"]
    assert [each.ref for each in read(search_actions, client, q="demo").items] == ["demo.a"]


def test_workflows(client, demo):
    definition = {"tasks": [{"name": "a", "action": "demo.a"}]}
    said = {"pack_ref": "demo", "label": "F", "version": "1.0.0", "definition": definition}
    body = CreateWorkflowRequest.from_dict({"ref": "demo.f", "param_schema": {}, "out_schema": {}, **said})
    assert read(create_workflow, client, body=body).data.definition.to_dict() == definition
    assert read(get_workflow, client, "demo.f").data.version == "1.0.0"
    kept = {"definition": None, "param_schema": None, "out_schema": None}
    assert read(update_workflow, client, "demo.f", body=UpdateWorkflowRequest(**kept, label="G")).data.label == "G"
    saved = {"name": "g", "param_schema": None, "out_schema": None, **said}
    read(save_workflow_file, client, "demo", body=SaveWorkflowFileRequest.from_dict(saved))
    read(update_workflow_file, client, "demo.g", body=SaveWorkflowFileRequest.from_dict(saved))
    assert [each.ref for each in read(list_workflows, client).items] == ["demo.f", "demo.g"]
    assert [each.ref for each in read(list_workflows_by_pack, client, "demo").items] == ["demo.f", "demo.g"]
    assert read(validate_pack_workflows, client, "demo").data.validated_count == 2
    assert read(sync_pack_workflows, client, "demo").data.registered_count == 0
    read(delete_workflow, client, "demo.f")


def test_triggers_and_webhooks(client, anonymous, demo):
    assert read(get_trigger, client, "demo.t").data.label == "T"
    assert [each.ref for each in read(list_triggers, client).items] == ["demo.t"]
    key = read(enable_webhook, client, "demo.t").webhook_key
    received = read(receive_webhook, anonymous, key, body=WebhookReceiverRequest(payload={"n": 1}))
    assert received.trigger_ref == "demo.t"
    assert received.event_id > 0


def test_rules(client, demo):
    assert read(get_rule, client, "demo.r").data.action_ref == "demo.a"
    assert [each.ref for each in read(list_rules, client).items] == ["demo.r"]
    assert [each.ref for each in read(list_rules_by_pack, client, "demo").items] == ["demo.r"]
    assert read(disable_rule, client, "demo.r").data.enabled is False
    assert read(enable_rule, client, "demo.r").data.enabled is True


def finish(api, id_, result):
    """What the executor and the conductor do; the client cannot read an execution without a result."""
    now = api.services.clock()
    api.activity.claim(id_, token_hash="t", deadline=now + timedelta(minutes=1), now=now)
    api.activity.finish(id_, attempt=1, token_hash="t", status="completed", result=result, now=now)


def test_executions(api, client, demo):
    body = CreateExecutionRequest(
        action_ref="demo.a",
        parameters=CreateExecutionRequestParameters.from_dict({"text": "hi"}),
        env_vars=CreateExecutionRequestEnvVars(),
    )
    made = read(create_execution, client, body=body)
    assert made.action_ref == "demo.a"
    finish(api, made.id, {"stdout": "hello"})
    assert read(get_execution, client, made.id).data.result["stdout"] == "hello"
    assert [each.id for each in read(list_executions, client, action_ref="demo.a").items] == [made.id]
    assert read(list_executions_by_status, client, "completed").items[0].id == made.id
    assert get_execution_stats.sync_detailed(client=client).status_code == 200


def test_events_and_enforcements(client, demo):
    assert read(list_events, client, trigger_ref="demo.t").items == []
    assert read(list_enforcements, client, rule_ref="demo.r").items == []


def test_sensors(api, client, demo):
    now = api.services.clock()
    python = Runtime(id=api.services.new_id(), ref="core.python", created=now, updated=now, name="Python")
    api.registry.commit(Put(python, new=True))
    body = CreateSensorRequest(
        ref="demo.s", pack_ref="demo", label="S", entrypoint="look()", runtime_ref="core.python", trigger_ref="demo.t"
    )
    assert create_sensor.sync_detailed(client=client, body=body).status_code == 201
    assert read(get_sensor, client, "demo.s").data.entrypoint == "look()"
    assert update_sensor.sync_detailed("demo.s", client=client, body=UpdateSensorRequest(label="T")).status_code == 200
    listed = [
        read(list_sensors, client),
        read(list_enabled_sensors, client),
        read(list_sensors_by_pack, client, "demo"),
        read(list_sensors_by_trigger, client, "demo.t"),
    ]
    assert [[item.label for item in page.items] for page in listed] == [["T"]] * 4
    assert read(disable_sensor, client, "demo.s").data.enabled is False
    assert read(enable_sensor, client, "demo.s").data.enabled is True
    assert list_sensor_logs.sync_detailed("demo.s", client=client).status_code == 200
    assert get_sensor_log.sync_detailed("demo.s", "stdout", client=client).status_code == 200
    assert delete_sensor.sync_detailed("demo.s", client=client).status_code == 200


def test_inquiries(api, client):
    execution = api.as_execution(status="completed").execution_id
    schema = CreateInquiryRequestResponseSchema.from_dict({"ok": {"type": "boolean"}})
    body = CreateInquiryRequest(execution=execution, prompt="Go?", response_schema=schema)
    made = read(create_inquiry, client, body=body).data
    assert read(get_inquiry, client, made.id).data.prompt == "Go?"
    assert read(list_inquiries, client, limit=5, offset=0).items[0].execution == execution
    assert read(list_inquiries_by_status, client, "pending", page=1, page_size=5).items[0].id == made.id
    assert read(list_inquiries_by_execution, client, execution, page=1, page_size=5).items[0].has_response is False
    changed = UpdateInquiryRequest(response=None, assigned_to=api.identity.id)
    assert read(update_inquiry, client, made.id, body=changed).data.assigned_to == api.identity.id
    response = InquiryRespondRequest.from_dict({"response": {"ok": True}})
    assert read(respond_to_inquiry, client, made.id, body=response).data.status == InquiryStatus.RESPONDED
    assert delete_inquiry.sync_detailed(made.id, client=client).status_code == 200
