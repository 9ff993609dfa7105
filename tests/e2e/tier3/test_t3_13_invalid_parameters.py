"""T3.13: parameters are validated before anything runs.

An execution with bad parameters is created, is failed from the start and names every violation; defaults are filled in
and visible; what the schema does not know is ignored (contract README 6).
"""

import pytest
from helpers.client import ApiError, AttuneClient, Json
from helpers.fixtures import create_webhook_trigger
from helpers.narration import step, summary, title
from helpers.polling import wait_for_execution_status


def create_fetch_action(client: AttuneClient, pack: str) -> str:
    """An action with a required parameter, bounds, an enumeration and defaults."""
    ref = f"{pack}.fetch"
    schema = {
        "url": {"type": "string", "required": True},
        "method": {"type": "string", "enum": ["GET", "POST"], "default": "GET"},
        "retries": {"type": "integer", "minimum": 0, "maximum": 5, "default": 3},
        "verify": {"type": "boolean", "default": True},
    }
    client.create_action(
        ref, pack, entrypoint='echo "$method $url retries=$retries verify=$verify"', param_schema=schema
    )
    return ref


def assert_failed_from_the_start(client: AttuneClient, execution: dict[str, Json], *names: str) -> str:
    """Created, failed at once, never run; returns the error, which names all of ``names``."""
    assert execution["status"] == "failed", "bad parameters fail at once"
    stored = client.get_execution(execution["id"])
    assert stored["status"] == "failed"
    assert stored.get("started_at") is None, "it never reached a runner"
    error: str = stored["result"]["error"]
    for name in names:
        assert name in error, f"the error names {name}: {error}"
    return error


@pytest.mark.tier3
@pytest.mark.validation
@pytest.mark.parameters
def test_missing_required_parameter(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Without a required parameter nothing runs, whether it is absent or null; a rule cannot leave it out either."""
    title("T3.13: Missing Required Parameter")
    pack = test_pack["ref"]

    step(1, "Creating an action with a required parameter")
    action = create_fetch_action(client, pack)

    step(2, "Executing without it")
    absent = assert_failed_from_the_start(client, client.execute(action, {"method": "POST"}), "url")
    null = assert_failed_from_the_start(client, client.execute(action, {"url": None}), "url")
    nothing = assert_failed_from_the_start(client, client.execute(action), "url")

    step(3, "Executing with it")
    good = wait_for_execution_status(client, client.execute(action, {"url": "http://x"})["id"], "succeeded")

    step(4, "Creating a rule that leaves it out")
    trigger = create_webhook_trigger(client, pack)
    with pytest.raises(ApiError) as refused:
        client.create_rule(f"{pack}.rule", pack, trigger_ref=trigger.ref, action_ref=action)

    summary(f"absent: {absent}", f"null: {null}", f"none at all: {nothing}", f"given: {good['result']['stdout']}")
    assert good["result"]["stdout"].strip() == "GET http://x retries=3 verify=true"
    assert refused.value.status == 422
    assert "url" in str(refused.value.body)


@pytest.mark.tier3
@pytest.mark.validation
@pytest.mark.parameters
def test_invalid_parameter_type(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Wrong types, values outside bounds or enumeration: failed at once, and every one of them is named."""
    title("T3.13: Invalid Parameter Type")

    step(1, "Creating an action with typed parameters")
    action = create_fetch_action(client, test_pack["ref"])

    step(2, "Executing with one wrong value after the other")
    wrong: dict[str, Json] = {"url": 5, "method": "PATCH", "retries": "three", "verify": "yes"}
    errors = {}
    for name, value in wrong.items():
        parameters = {"url": "http://x", name: value}
        errors[name] = assert_failed_from_the_start(client, client.execute(action, parameters), name)
    for retries in (-1, 6, 2.5, True):
        errors[f"retries={retries}"] = assert_failed_from_the_start(
            client, client.execute(action, {"url": "http://x", "retries": retries}), "retries"
        )

    step(3, "Executing with all of them at once")
    together = assert_failed_from_the_start(client, client.execute(action, wrong), *wrong)

    summary(*(f"{name}: {error}" for name, error in errors.items()), f"all: {together}")
    assert all("url" not in error for name, error in errors.items() if name != "url"), "only what is wrong is named"


@pytest.mark.tier3
@pytest.mark.validation
@pytest.mark.parameters
def test_extra_parameters_ignored(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Parameters that the schema does not know do no harm."""
    title("T3.13: Extra Parameters Ignored")

    step(1, "Creating an action")
    action = create_fetch_action(client, test_pack["ref"])

    step(2, "Executing with parameters it does not know")
    parameters = {"url": "http://x", "colour": "red", "nested": {"deep": [1, 2]}}
    execution = wait_for_execution_status(client, client.execute(action, parameters)["id"], "succeeded")

    summary(f"output: {execution['result']['stdout']}")
    assert execution["result"]["stdout"].strip() == "GET http://x retries=3 verify=true"


@pytest.mark.tier3
@pytest.mark.validation
@pytest.mark.parameters
def test_parameter_default_values(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Defaults are filled in for absent and null parameters, visible in ``config``, and give way to what is given."""
    title("T3.13: Parameter Default Values")

    step(1, "Creating an action with defaults")
    action = create_fetch_action(client, test_pack["ref"])
    defaults = {"method": "GET", "retries": 3, "verify": True}
    given: dict[str, dict[str, Json]] = {
        "none given": {},
        "some given": {"retries": 0, "verify": False},
        "null given": {"method": None, "retries": None},
        "all given": {"method": "POST", "retries": 5, "verify": False},
    }

    step(2, "Executing with none, some, null and all of them")
    seen = {}
    for case, parameters in given.items():
        started = client.execute(action, {"url": "http://x", **parameters})
        seen[case] = wait_for_execution_status(client, started["id"], "succeeded")

    summary(*(f"{case}: {execution['config']}" for case, execution in seen.items()))
    for case, parameters in given.items():
        named = {name: value for name, value in parameters.items() if value is not None}
        expected = {"url": "http://x", **defaults, **named}
        assert seen[case]["config"] == expected, case
        said = f"{expected['method']} http://x retries={expected['retries']} verify={str(expected['verify']).lower()}"
        assert seen[case]["result"]["stdout"].strip() == said, case
