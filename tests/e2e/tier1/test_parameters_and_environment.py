"""What an action finds when it starts (semantics §2.6): its parameters in every form and by every way, and the
contract's environment."""

import json
import shlex
import shutil
from collections.abc import Iterator

import pytest
import yaml
from helpers.client import AttuneClient, Json
from helpers.fixtures import create_webhook_trigger, pack_archive, unique_ref
from helpers.polling import wait_for_execution_count, wait_for_execution_status

pytestmark = [pytest.mark.tier1, pytest.mark.parameters, pytest.mark.runner]

FORMATS = ("json", "dotenv", "yaml")
DELIVERIES = ("stdin", "file")
# Each prints what it was told about its parameters, and then the document as it is.
SHOW = {
    "shell": 'echo "$ATTUNE_PARAMETER_FORMAT $ATTUNE_PARAMETER_DELIVERY"\ncat ${ATTUNE_PARAMETER_FILE:-}\n',
    "python": "import os, sys\n"
    "print(os.environ['ATTUNE_PARAMETER_FORMAT'], os.environ['ATTUNE_PARAMETER_DELIVERY'])\n"
    "file = os.environ.get('ATTUNE_PARAMETER_FILE')\n"
    "print(open(file, encoding='utf-8').read() if file else sys.stdin.read(), end='')\n"
    "assert not file or sys.stdin.read() == ''\n",
}
GIVEN: dict[str, Json] = {
    "text": 'it\'s "quoted" $HOME `x`\nline two \\ ü',
    "count": 3,
    "ratio": 0.5,
    "flag": True,
    "nothing": None,
    "items": [1, "two", {"three": 3}],
    "nested": {"deep": {"er": "x"}, "empty": {}},
}
ENVIRONMENT_SHELL = "env -0 | sort -z | tr '\\0' '\\n' | grep -E '^(ATTUNE_|GREETING)' || true"
ENVIRONMENT_PYTHON = """
import os
for name in sorted(os.environ):
    if name.startswith(("ATTUNE_", "GREETING")):
        print(f"{name}={os.environ[name]}")
"""


@pytest.fixture
def shows(client: AttuneClient) -> Iterator[str]:
    """A pack with an action for every runtime, format and delivery: ``show_{runtime}_{format}_{delivery}``."""
    pack = unique_ref("show")
    files = {"pack.yaml": f"ref: {pack}\nlabel: Show\nversion: 1.0.0\n"}
    for runtime, code in SHOW.items():
        files[f"actions/show.{runtime}"] = code
        for form in FORMATS:
            for delivery in DELIVERIES:
                name = f"show_{runtime}_{form}_{delivery}"
                files[f"actions/{name}.yaml"] = (
                    f"ref: {pack}.{name}\nlabel: {name}\nrunner_type: {runtime}\nentry_point: show.{runtime}\n"
                    f"parameter_format: {form}\nparameter_delivery: {delivery}\n"
                )
    client.upload_pack(pack_archive(files), strict=True)
    client.create_secret(f"{pack}.colour", "blue", encrypted=False, owner_type="pack", owner_pack_ref=pack)
    yield pack
    client.delete_pack(pack)


def test_every_format_and_delivery(client: AttuneClient, shows: str) -> None:
    """The document says what was given, keys by name among it, whatever its form and the way it comes."""
    cases = [(runtime, form, delivery) for runtime in SHOW for form in FORMATS for delivery in DELIVERIES]
    started = {case: client.execute(f"{shows}.show_{'_'.join(case)}", GIVEN)["id"] for case in cases}
    expected = {**GIVEN, "colour": "blue"}
    for case, id_ in started.items():
        _, form, delivery = case
        stdout = wait_for_execution_status(client, id_, "succeeded", timeout=40)["result"]["stdout"]
        told, _, document = stdout.partition("\n")
        assert told == f"{form} {delivery}", case
        if form == "json":
            assert json.loads(document) == expected, case
        elif form == "yaml":
            assert yaml.safe_load(document) == expected, case
        else:
            assert from_dotenv(document) == {
                "colour": "blue",
                "count": "3",
                "flag": "true",
                "items": '[1,"two",{"three":3}]',
                "nested.deep.er": "x",
                "nested.empty": "{}",
                "nothing": "",
                "ratio": "0.5",
                "text": GIVEN["text"],
            }, case


def from_dotenv(document: str) -> dict[str, str]:
    """As a shell reads it; the names must be in order."""
    pairs = dict(line.split("=", 1) for line in shlex.split(document))
    assert list(pairs) == sorted(pairs)
    return pairs


def test_inline_shell_gets_variables(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """``name`` and ``PARAM_NAME``, which no child process inherits; nothing on standard input."""
    pack = test_pack["ref"]
    code = (
        'printf "%s|" "$text" "$PARAM_TEXT" "$count" "$flag" "$nothing" "$items" "$with_dash"\n'
        'bash -c \'printf "%s|" "${text:-unset}" "${PARAM_TEXT:-unset}"\'\ncat\n'
    )
    client.create_action(f"{pack}.show", pack, entrypoint=code)
    started = client.execute(f"{pack}.show", {**GIVEN, "with-dash": "w"})
    stdout = wait_for_execution_status(client, started["id"], "succeeded")["result"]["stdout"]
    text = GIVEN["text"]
    assert stdout == f'{text}|{text}|3|true||[1,"two",{{"three":3}}]|w|unset|unset|'


@pytest.mark.parametrize(
    ("runtime", "code"),
    [("core.shell", ENVIRONMENT_SHELL), ("core.python", ENVIRONMENT_PYTHON)],
    ids=["shell", "python"],
)
def test_the_contracts_environment(client: AttuneClient, test_pack: dict[str, Json], runtime: str, code: str) -> None:
    """Who runs, what for, where the API is; the request's own variables, the context, and for a rule which one."""
    pack = test_pack["ref"]
    action = f"{pack}.environment"
    client.create_action(action, pack, entrypoint=code, runtime_ref=runtime)
    parameters = {"context": {"team": "ops", "run-id": 7}}

    by_hand = client.execute(action, parameters, env_vars={"GREETING": "hello"})
    trigger = create_webhook_trigger(client, pack)
    client.create_rule(f"{pack}.rule", pack, trigger_ref=trigger.ref, action_ref=action)
    client.post_webhook(trigger.key, {})
    (by_rule,) = wait_for_execution_count(client, 1, trigger_ref=trigger.ref)

    found = environment_of(client, by_hand["id"])
    assert found["ATTUNE_EXEC_ID"] == str(by_hand["id"])
    assert (found["ATTUNE_ACTION"], found["ATTUNE_PACK_REF"]) == (action, pack)
    assert found["ATTUNE_API_URL"].startswith("http")
    assert found["ATTUNE_ARTIFACTS_DIR"].startswith("/")
    assert found["GREETING"] == "hello"
    forged = {"action_ref": action, "env_vars": {"ATTUNE_ACTION": "forged"}}
    assert client.request("POST", "executions/execute", json=forged).status_code == 422
    assert (found["ATTUNE_CONTEXT_TEAM"], found["ATTUNE_CONTEXT_RUN_ID"]) == ("ops", "7")
    assert not found.keys() & {"ATTUNE_RULE", "ATTUNE_TRIGGER", "ATTUNE_API_TOKEN"}
    found = environment_of(client, by_rule["id"])
    assert (found["ATTUNE_RULE"], found["ATTUNE_TRIGGER"]) == (f"{pack}.rule", trigger.ref)


def environment_of(client: AttuneClient, execution_id: int) -> dict[str, str]:
    stdout = wait_for_execution_status(client, execution_id, "succeeded")["result"]["stdout"]
    return dict(line.split("=", 1) for line in stdout.splitlines())


CALL_SHELL = 'curl -sS -H "Authorization: Bearer $ATTUNE_API_TOKEN" "$ATTUNE_API_URL$path"'
CALL_PYTHON = """
import json, os, sys, urllib.error, urllib.request
url = os.environ["ATTUNE_API_URL"] + json.load(sys.stdin)["path"]
asked = urllib.request.Request(url, headers={"Authorization": "Bearer " + os.environ["ATTUNE_API_TOKEN"]})
try:
    print(urllib.request.urlopen(asked).read().decode())
except urllib.error.HTTPError as error:
    print(error.read().decode())
"""


@pytest.mark.parametrize(
    ("runtime", "code"), [("core.shell", CALL_SHELL), ("core.python", CALL_PYTHON)], ids=["shell", "python"]
)
def test_an_action_calls_the_api(client: AttuneClient, test_pack: dict[str, Json], runtime: str, code: str) -> None:
    """With the permissions that its execution was given and no others; the token is masked in what it prints."""
    if runtime == "core.shell" and shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    pack = test_pack["ref"]
    action = f"{pack}.call"
    client.create_action(action, pack, entrypoint=code, runtime_ref=runtime, output_format="json")
    client.create_secret(f"{pack}.token", "s3cret-of-the-pack", owner_type="pack", owner_pack_ref=pack)

    def call(path: str) -> Json:
        started = client.execute(action, {"path": path}, permission_set_refs=["core.viewer"])
        return wait_for_execution_status(client, started["id"], "succeeded")["result"]["data"]

    assert "ref" in call("/api/v1/packs/core")["data"]
    refused = call(f"/api/v1/keys/{pack}.token")
    assert "s3cret" not in json.dumps(refused)
    # What it prints of its own token is masked like any other secret.
    show = f"{pack}.show"
    client.create_action(show, pack, entrypoint='echo "token $ATTUNE_API_TOKEN"')
    started = client.execute(show, permission_set_refs=["core.viewer"])
    assert wait_for_execution_status(client, started["id"], "succeeded")["result"]["stdout"] == "token ********\n"
