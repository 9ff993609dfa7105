"""T3.20: secrets reach an action on standard input and nowhere else, rest encrypted, are masked in all that comes back,
and exist for their own tenant only (contract README 1, 11)."""

import base64
import hashlib
import json
import shutil
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from helpers.client import AttuneClient, Json
from helpers.fixtures import create_python_action, create_webhook_trigger, unique_ref
from helpers.footprint import Footprint, places_of
from helpers.narration import step, summary, title
from helpers.polling import wait_for_execution_completion, wait_for_execution_count, wait_for_execution_status
from helpers.stack import Stack
from helpers.tenants import create_tenant

pytestmark = [pytest.mark.tier3, pytest.mark.security, pytest.mark.secrets]

MASK = "********"
# Each looks for the secret everywhere but on standard input, and prints only what it found, never the secret itself.
LOOK_AROUND_PYTHON = """
import glob, hashlib, json, os, sys
parameters = json.load(sys.stdin)
token = parameters["token"]
files = [path for path in glob.glob("./**", recursive=True) + glob.glob("/tmp/**", recursive=True)
         if os.path.isfile(path) and os.access(path, os.R_OK) and os.path.getsize(path) < 1 << 20]
found = {
    "environment": token in str(dict(os.environ)),
    "proc environ": token.encode() in open("/proc/self/environ", "rb").read(),
    "argv": token.encode() in open("/proc/self/cmdline", "rb").read() + str(sys.argv).encode(),
    "files": [path for path in files if token.encode() in open(path, "rb").read()],
}
print(json.dumps({"digest": hashlib.sha256(token.encode()).hexdigest(), "found": found}))
"""
LOOK_AROUND_SHELL = """
count() { grep -c -a -F -- "$token" || true; }
echo "{\\"digest\\": \\"$(printf %s "$token" | sha256sum | cut -d' ' -f1)\\", \\"found\\": {"
echo "\\"environment\\": $(env | count), \\"argv\\": $(tr '\\0' ' ' < /proc/$$/cmdline | count),"
echo "\\"proc environ\\": $(count < /proc/$$/environ),"
echo "\\"files\\": $(cat ./* /tmp/* 2>/dev/null | count)}}"
"""
LOOK_AROUND_NODE = """
const fs = require("fs"), crypto = require("crypto");
const {token} = JSON.parse(fs.readFileSync(0, "utf8"));
const has = text => text.includes(token);
console.log(JSON.stringify({
  digest: crypto.createHash("sha256").update(token).digest("hex"),
  found: {
    environment: has(JSON.stringify(process.env)), argv: has(process.argv.join(" ")),
    "proc environ": has(fs.readFileSync("/proc/self/environ", "utf8")), files: false,
  },
}));
"""


def new_secret() -> str:
    """A value that occurs nowhere else and changes under every encoding."""
    return f's3cret/{unique_ref("v")}+ä="quote"'


@pytest.fixture
def system_key(client: AttuneClient) -> Iterator[tuple[str, str]]:
    """The ref of an encrypted system key named ``token``, and its value."""
    ref, value = f"{unique_ref('sys')}.token", new_secret()
    client.create_secret(ref, value)
    yield ref, value
    client.delete_secret(ref)


def test_secret_injection_via_stdin(
    client: AttuneClient, test_pack: dict[str, Json], system_key: tuple[str, str]
) -> None:
    """The value arrives on standard input (in a shell as a variable that is not exported), whatever the runtime; it is
    in no environment, no command line and no file."""
    title("T3.20: Secret Injection via Stdin")
    pack, (key, value) = test_pack["ref"], system_key

    step(1, "Creating actions that look for the secret everywhere else")
    actions = {
        "core.python": LOOK_AROUND_PYTHON,
        "core.shell": LOOK_AROUND_SHELL,
        **({"core.nodejs": LOOK_AROUND_NODE} if shutil.which("node") else {}),
    }
    for runtime, code in actions.items():
        ref = f"{pack}.{runtime.partition('.')[2]}"
        client.create_action(ref, pack, entrypoint=code, runtime_ref=runtime, output_format="json")

    step(2, "Executing them with the secret")
    seen: dict[str, Json] = {}
    for runtime in actions:
        started = client.create_execution({"action": f"{pack}.{runtime.partition('.')[2]}", "secrets": [key]})
        seen[runtime] = wait_for_execution_status(client, started["id"], "succeeded")

    summary(*(f"{runtime}: {execution['result'].get('data')}" for runtime, execution in seen.items()))
    digest = hashlib.sha256(value.encode()).hexdigest()
    for runtime, execution in seen.items():
        data = execution["result"]["data"]
        assert data["digest"] == digest, f"{runtime} had the real value"
        assert not any(data["found"].values()), f"{runtime} found it elsewhere: {data['found']}"
        assert value not in json.dumps(execution, ensure_ascii=False)


def test_secret_encryption_at_rest(client: AttuneClient, test_pack: dict[str, Json], stack: Stack) -> None:
    """Every value is encrypted at rest; ``encrypted`` decides who may read it back. A parameter that the schema calls
    secret is encrypted in the execution's row too."""
    title("T3.20: Secret Encryption at Rest")
    pack = test_pack["ref"]
    encrypted, plain, parameter = new_secret(), new_secret(), new_secret()

    step(1, "Storing an encrypted and a plain key")
    keys = {f"{pack}.token": (encrypted, True), f"{pack}.setting": (plain, False)}
    for ref, (value, flag) in keys.items():
        client.create_secret(ref, value, encrypted=flag, owner_type="pack", owner_pack_ref=pack)
    shown = {ref: client.get_secret(ref) for ref in keys}

    step(2, "Executing with a secret parameter")
    schema = {"password": {"type": "string", "secret": True}, "user": {"type": "string"}}
    code = "import json, sys\nprint(sorted(json.load(sys.stdin)))"
    action = create_python_action(client, pack, "login", code, schema)
    started = client.execute(action, {"password": parameter, "user": "visible-user"})
    done = wait_for_execution_status(client, started["id"], "succeeded")

    step(3, "Reading it back, with and without the right")
    revealed = client.data("GET", f"executions/{done['id']}", params={"include_secret_values": "true"})

    step(4, "Looking into the tables")
    found = []
    if stack.is_local:
        footprint = Footprint(stack)
        found = [place for value in (encrypted, plain, parameter) for place in places_of(value, footprint.items())]
        assert places_of("visible-user", footprint.items()), "what is no secret is found, so the search works"

    summary(f"shown: {[(key['ref'], key['encrypted']) for key in shown.values()]}", f"found in clear: {found}")
    for ref, (value, flag) in keys.items():
        assert (shown[ref]["encrypted"], shown[ref]["value"]) == (flag, value)
    listed = list(client.items("keys", owner=pack, per_page=100))
    assert len(listed) == 2
    assert all("value" not in key for key in listed)
    assert done["config"] == {"password": {"$attune_secret": True, "redacted": True}, "user": "visible-user"}
    assert revealed["config"]["password"] == parameter
    assert found == []


def test_secret_not_in_execution_logs(
    client: AttuneClient, test_pack: dict[str, Json], system_key: tuple[str, str]
) -> None:
    """Whatever an action prints of a secret, however encoded, on either stream, in its result or in a traceback, comes
    back masked; what is no secret comes back as it is."""
    title("T3.20: Secret Not in Execution Logs")
    pack, (key, value) = test_pack["ref"], system_key

    step(1, "Creating actions that give the secret away")
    careless = create_python_action(
        client,
        pack,
        "careless",
        "import base64, json, sys, urllib.parse\n"
        "token = json.load(sys.stdin)['token']\n"
        "print('plain', token)\nprint('base64', base64.b64encode(token.encode()).decode())\n"
        "print('shifted', base64.b64encode(b'Basic:' + token.encode()).decode())\n"
        "print('url', urllib.parse.quote(token, safe=''))\nprint('json', json.dumps({'token': token}))\n"
        "print('harmless', 'visible-42')\nprint('stderr', token, file=sys.stderr)\n",
    )
    raising = create_python_action(
        client, pack, "raising", "import json, sys\nraise ValueError('bad token ' + json.load(sys.stdin)['token'])\n"
    )
    ref = f"{pack}.structured"
    client.create_action(
        ref,
        pack,
        entrypoint="import json, sys\nt = json.load(sys.stdin)['token']\nprint(json.dumps({'a': [t], t: 1}))",
        runtime_ref="core.python",
        output_format="json",
    )

    step(2, "Executing them")
    ended = {}
    for action in (careless, raising, ref):
        started = client.create_execution({"action": action, "secrets": [key]})
        ended[action] = wait_for_execution_completion(client, started["id"])

    step(3, "Reading everything that there is to read about them")
    told = []
    for execution in ended.values():
        told.append(json.dumps(execution, ensure_ascii=False))
        logs = (f"executions/{execution['id']}/logs/{stream}" for stream in ("stdout", "stderr"))
        told += [client.request("GET", log).text for log in logs]

    summary(ended[careless]["result"]["stdout"], str(ended[raising]["result"]), str(ended[ref]["result"]))
    stdout = ended[careless]["result"]["stdout"].splitlines()
    assert ended[careless]["status"] == "completed"
    assert f"plain {MASK}" in stdout
    assert "harmless visible-42" in stdout
    for form in ("base64", "url", "json"):
        assert any(line.startswith(f"{form} ") and MASK in line for line in stdout), form
    assert ended[raising]["status"] == "failed"
    assert f"bad token {MASK}" in ended[raising]["result"]["error"]
    assert ended[ref]["result"]["data"] == {"a": [MASK], MASK: 1}
    forms = (value, base64.b64encode(value.encode()).decode(), quote(value, safe=""), json.dumps(value)[1:-1])
    assert not any(form in text for text in told for form in forms)


def test_secret_access_tenant_isolation(
    client: AttuneClient, test_pack: dict[str, Json], stack: Stack, system_key: tuple[str, str]
) -> None:
    """A key of one tenant does not exist for another: not to be read, not to be asked for, not in a template; a key of
    the same ref is another key."""
    title("T3.20: Secret Access Tenant Isolation")
    if not stack.is_local:
        pytest.skip("a second tenant is made on this machine's stack only")
    key, value = system_key

    with create_tenant(stack) as other:
        step(1, "Looking for the key from another tenant")
        pack = other.create_pack(unique_ref())["ref"]
        show = f"{pack}.show"
        other.create_action(show, pack, entrypoint='printf %s "$token" | sha256sum | cut -d" " -f1')
        read = other.request("GET", f"keys/{key}")
        listed = [each["ref"] for each in other.items("keys", per_page=100)]
        changed = other.request("PUT", f"keys/{key}", json={"value": "mine"})
        deleted = other.request("DELETE", f"keys/{key}")

        step(2, "Asking for it by name, and in the template of a rule")
        asked = other.request("POST", "executions/execute", json={"action_ref": show, "secrets": [key]})
        trigger = create_webhook_trigger(other, pack)
        template = f"{{{{ keystore.{key} }}}}"
        other.create_rule(
            f"{pack}.rule", pack, trigger_ref=trigger.ref, action_ref=show, action_params={"token": template}
        )
        other.post_webhook(trigger.key, {})
        (row,) = wait_for_execution_count(other, 1, status="failed", trigger_ref=trigger.ref)
        templated = other.get_execution(row["id"])

        step(3, "Making a key of the same ref")
        other.create_secret(key, "another value")
        started = other.create_execution({"action": show, "secrets": [key]})
        theirs = wait_for_execution_status(other, started["id"], "succeeded")["result"]["stdout"].strip()
        other.delete_secret(key)
        other.delete_pack(pack)

    summary(f"read: {read.status_code}", f"asked: {asked.text}", f"templated: {templated['result']}")
    assert [read.status_code, changed.status_code, deleted.status_code] == [404, 404, 404]
    assert key not in listed
    assert asked.status_code == 422
    assert f"unknown key: {key}" in asked.text
    assert f"unknown key: {key}" in templated["result"]["error"]
    assert theirs == hashlib.sha256(b"another value").hexdigest()
    assert client.get_secret(key)["value"] == value, "nobody touched it"
