"""T3.13: parameters are validated before anything runs.

An execution with bad parameters is created, is failed from the start and names every violation; defaults are filled in
and visible; what the schema does not know is ignored (contract README 6). All of it holds on every runtime.
"""

import shutil

import pytest
from helpers.client import ApiError, AttuneClient, Json
from helpers.fixtures import create_webhook_trigger
from helpers.narration import step, summary, title
from helpers.polling import wait_for_execution_status

HTTP = "core.http"
# Each says what it was given: the method, the URL, retries and verify.
CODE = {
    "core.shell": 'echo "$method $url retries=$retries verify=$verify"',
    "core.python": "import json, sys\np = json.load(sys.stdin)\n"
    "print(p['method'], p['url'], f\"retries={p['retries']} verify={str(p['verify']).lower()}\")\n",
    "core.nodejs": "const p = JSON.parse(require('fs').readFileSync(0, 'utf8'));\n"
    "console.log(`${p.method} ${p.url} retries=${p.retries} verify=${p.verify}`);\n",
    HTTP: "http",  # makes the call
}


@pytest.fixture(params=CODE)
def runtime(request: pytest.FixtureRequest) -> str:
    """One runtime after the other."""
    name: str = request.param
    if name == "core.nodejs" and shutil.which("node") is None:
        pytest.skip("no node on this machine")
    return name


@pytest.fixture
def url(client: AttuneClient) -> str:
    """Where an HTTP action may go, and what the others just say."""
    return f"{client.base_url}/health"


def create_fetch_action(client: AttuneClient, pack: str, runtime: str) -> str:
    """An action with a required parameter, bounds, an enumeration and defaults."""
    ref = f"{pack}.fetch"
    schema = {
        "url": {"type": "string", "required": True},
        "method": {"type": "string", "enum": ["GET", "POST"], "default": "GET"},
        "retries": {"type": "integer", "minimum": 0, "maximum": 5, "default": 3},
        "verify": {"type": "boolean", "default": True},
    }
    client.create_action(ref, pack, entrypoint=CODE[runtime], runtime_ref=runtime, param_schema=schema)
    return ref


def said(execution: dict[str, Json]) -> str:
    """What the action was given, by its own account; of an HTTP call, what the peer makes of it bears witness."""
    result, config = execution["result"], execution["config"]
    if "status_code" not in result:
        stdout: str = result["stdout"]
        return stdout.strip()
    assert result["url"] == config["url"]
    assert result["status_code"] == {"GET": 200, "POST": 405}[config["method"]]
    return f"{config['method']} {result['url']} retries={config['retries']} verify={str(config['verify']).lower()}"


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
def test_missing_required_parameter(client: AttuneClient, test_pack: dict[str, Json], runtime: str, url: str) -> None:
    """Without a required parameter nothing runs, whether it is absent or null; a rule cannot leave it out either."""
    title("T3.13: Missing Required Parameter")
    pack = test_pack["ref"]

    step(1, "Creating an action with a required parameter")
    action = create_fetch_action(client, pack, runtime)

    step(2, "Executing without it")
    absent = assert_failed_from_the_start(client, client.execute(action, {"method": "POST"}), "url")
    null = assert_failed_from_the_start(client, client.execute(action, {"url": None}), "url")
    nothing = assert_failed_from_the_start(client, client.execute(action), "url")

    step(3, "Executing with it")
    good = wait_for_execution_status(client, client.execute(action, {"url": url})["id"], "succeeded")

    step(4, "Creating a rule that leaves it out")
    trigger = create_webhook_trigger(client, pack)
    with pytest.raises(ApiError) as refused:
        client.create_rule(f"{pack}.rule", pack, trigger_ref=trigger.ref, action_ref=action)

    summary(f"absent: {absent}", f"null: {null}", f"none at all: {nothing}", f"given: {said(good)}")
    assert said(good) == f"GET {url} retries=3 verify=true"
    assert refused.value.status == 422
    assert "url" in str(refused.value.body)


@pytest.mark.tier3
@pytest.mark.validation
@pytest.mark.parameters
def test_invalid_parameter_type(client: AttuneClient, test_pack: dict[str, Json], runtime: str, url: str) -> None:
    """Wrong types, values outside bounds or enumeration: failed at once, and every one of them is named."""
    title("T3.13: Invalid Parameter Type")

    step(1, "Creating an action with typed parameters")
    action = create_fetch_action(client, test_pack["ref"], runtime)

    step(2, "Executing with one wrong value after the other")
    wrong: dict[str, Json] = {"url": 5, "method": "PATCH", "retries": "three", "verify": "yes"}
    errors = {}
    for name, value in wrong.items():
        parameters = {"url": url, name: value}
        errors[name] = assert_failed_from_the_start(client, client.execute(action, parameters), name)
    for retries in (-1, 6, 2.5, True):
        errors[f"retries={retries}"] = assert_failed_from_the_start(
            client, client.execute(action, {"url": url, "retries": retries}), "retries"
        )

    step(3, "Executing with all of them at once")
    together = assert_failed_from_the_start(client, client.execute(action, wrong), *wrong)

    summary(*(f"{name}: {error}" for name, error in errors.items()), f"all: {together}")
    assert all("url" not in error for name, error in errors.items() if name != "url"), "only what is wrong is named"


@pytest.mark.tier3
@pytest.mark.validation
@pytest.mark.parameters
def test_extra_parameters_ignored(client: AttuneClient, test_pack: dict[str, Json], runtime: str, url: str) -> None:
    """Parameters that the schema does not know do no harm."""
    title("T3.13: Extra Parameters Ignored")

    step(1, "Creating an action")
    action = create_fetch_action(client, test_pack["ref"], runtime)

    step(2, "Executing with parameters it does not know")
    parameters = {"url": url, "colour": "red", "nested": {"deep": [1, 2]}}
    execution = wait_for_execution_status(client, client.execute(action, parameters)["id"], "succeeded")

    summary(f"output: {said(execution)}")
    assert said(execution) == f"GET {url} retries=3 verify=true"


@pytest.mark.tier3
@pytest.mark.validation
@pytest.mark.parameters
def test_parameter_default_values(client: AttuneClient, test_pack: dict[str, Json], runtime: str, url: str) -> None:
    """Defaults are filled in for absent and null parameters, visible in ``config``, and give way to what is given."""
    title("T3.13: Parameter Default Values")

    step(1, "Creating an action with defaults")
    action = create_fetch_action(client, test_pack["ref"], runtime)
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
        started = client.execute(action, {"url": url, **parameters})
        seen[case] = wait_for_execution_status(client, started["id"], "succeeded")

    summary(*(f"{case}: {execution['config']}" for case, execution in seen.items()))
    for case, parameters in given.items():
        named = {name: value for name, value in parameters.items() if value is not None}
        expected = {"url": url, **defaults, **named}
        assert seen[case]["config"] == expected, case
        line = f"{expected['method']} {url} retries={expected['retries']} verify={str(expected['verify']).lower()}"
        assert said(seen[case]) == line, case
