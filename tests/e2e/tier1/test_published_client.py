"""The client that Attune's users have (``attune-sdk`` on PyPI) works here as it is."""

from collections.abc import Iterator

import pytest
from attune.api_client import AuthenticatedClient, Client
from attune.api_client.api.actions import get_action, list_actions
from attune.api_client.api.auth import get_current_user, login
from attune.api_client.api.executions import create_execution, get_execution, list_executions
from attune.api_client.api.packs import get_pack, list_packs
from attune.api_client.api.rules import create_rule, get_rule, list_rules_by_pack
from attune.api_client.api.triggers import get_trigger, list_triggers
from attune.api_client.models.create_execution_request import CreateExecutionRequest
from attune.api_client.models.create_execution_request_env_vars import CreateExecutionRequestEnvVars
from attune.api_client.models.create_execution_request_parameters import CreateExecutionRequestParameters
from attune.api_client.models.create_rule_request import CreateRuleRequest
from attune.api_client.models.execution_status import ExecutionStatus
from attune.api_client.models.login_request import LoginRequest
from helpers.client import AttuneClient, Json
from helpers.fixtures import create_echo_action, create_webhook_trigger
from helpers.polling import wait_for
from helpers.stack import ADMIN_LOGIN, ADMIN_PASSWORD, Stack

pytestmark = pytest.mark.tier1


@pytest.fixture
def published(stack: Stack) -> Iterator[AuthenticatedClient]:
    """Signed in with the generated client itself."""
    with Client(base_url=stack.url, raise_on_unexpected_status=True) as anonymous:
        answer = login.sync(client=anonymous, body=LoginRequest(login=ADMIN_LOGIN, password=ADMIN_PASSWORD))
    token = answer.data.access_token
    with AuthenticatedClient(base_url=stack.url, token=token, raise_on_unexpected_status=True) as signed_in:
        yield signed_in


def test_reads(published: AuthenticatedClient) -> None:
    assert "core" in {pack.ref for pack in list_packs.sync(client=published, page_size=100).items}
    assert get_pack.sync("core", client=published).data.is_standard is True
    assert get_current_user.sync(client=published).data.login == ADMIN_LOGIN
    assert "core.echo" in {action.ref for action in list_actions.sync(client=published, page_size=100).items}
    assert get_action.sync("core.echo", client=published).data.pack_ref == "core"
    assert "core.intervaltimer" in {each.ref for each in list_triggers.sync(client=published, page_size=100).items}
    assert get_trigger.sync("core.intervaltimer", client=published).data.webhook_enabled is False


def test_creates_a_rule(published: AuthenticatedClient, client: AttuneClient, test_pack: dict[str, Json]) -> None:
    pack = test_pack["ref"]
    trigger = create_webhook_trigger(client, pack)
    body = CreateRuleRequest(
        ref=f"{pack}.rule", pack_ref=pack, label="By the SDK", trigger_ref=trigger.ref, action_ref="core.echo"
    )

    created = create_rule.sync(client=published, body=body)

    assert created.data.ref == f"{pack}.rule"
    assert created.data.enabled is True
    assert get_rule.sync(f"{pack}.rule", client=published).data.trigger_ref == trigger.ref
    assert [rule.ref for rule in list_rules_by_pack.sync(pack, client=published).items] == [f"{pack}.rule"]


def test_executes_and_reads_the_result(
    published: AuthenticatedClient, client: AttuneClient, test_pack: dict[str, Json]
) -> None:
    action = create_echo_action(client, test_pack["ref"])
    parameters = CreateExecutionRequestParameters.from_dict({"message": "from the SDK"})
    body = CreateExecutionRequest(
        action_ref=action, parameters=parameters, env_vars=CreateExecutionRequestEnvVars.from_dict({})
    )

    # Its parser of this one answer knows nothing of the envelope that the wire has (contract §1.2).
    sent = published.get_httpx_client().request(**create_execution._get_kwargs(body=body))
    assert sent.status_code == 201
    execution_id = sent.json()["data"]["id"]

    def ended() -> bool:
        rows = list_executions.sync(client=published, action_ref=action).items
        return [row.status for row in rows if row.id == execution_id] == [ExecutionStatus.COMPLETED]

    wait_for(ended, timeout=20, what="the execution to complete")
    execution = get_execution.sync(execution_id, client=published).data
    assert execution.status is ExecutionStatus.COMPLETED
    assert execution.result["stdout"] == "from the SDK\n"
    assert execution.config["message"] == "from the SDK"
