"""The embedded AWS is closed to actions: with made-up credentials, and with whatever an action can find."""

import json
import os
import shutil
from collections.abc import Iterator

import pytest
from helpers.client import AttuneClient, Json
from helpers.fixtures import unique_ref
from helpers.packs import pack_of_actions
from helpers.polling import wait_for_execution_status
from helpers.stack import ROOT, Stack

from runners import kernel

LOOK = r"""
import glob, http.client, json, os, re, sys

given = json.load(sys.stdin)
key = re.compile(rb"AKIA[A-Z2-7]{16}|aws_secret_access_key\s*=", re.I)
found, read = [], 0

def look(where, content):
    global read
    read += 1
    found.extend(f"{where}: {match.decode()}" for match in key.findall(content))

def look_into(path):
    try:
        with open(path, "rb") as file:
            look(path, file.read(1 << 20))
    except OSError:
        pass

look("environment", "\n".join(f"{name}={value}" for name, value in os.environ.items()).encode())
for what in ("environ", "cmdline", "maps"):
    for path in glob.glob(f"/proc/[0-9]*/{what}") + [f"/proc/self/{what}"]:
        look_into(path)
for path in glob.glob("/proc/[0-9]*/fd/*") + glob.glob("/proc/[0-9]*/cwd/*"):
    if os.path.isfile(path):
        look_into(path)
for top in given["folders"]:
    for folder, inner, files in os.walk(top):
        inner[:] = [name for name in inner if name not in ("lib", ".git", ".build")]  # of Python, with AWS's examples
        for name in files:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not path.endswith(".py"):
                look_into(path)

def ask(host, port, method, path, headers=None, body=None):
    try:
        connection = http.client.HTTPConnection(host, port, timeout=0.5 if host.startswith('169.') else 10)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read(2000)
    except OSError:
        return 0, b""

host, port = given["host"], given["port"]
for path in ("/v2/credentials", "/latest/meta-data/iam/security-credentials/", "/latest/api/token"):
    for place in ((host, port), ("169.254.169.254", 80), ("169.254.170.2", 80)):
        look(path, ask(*place, "GET", path)[1])

calls = {
    "secrets": ("POST", "/", "secretsmanager", "secretsmanager.GetSecretValue", {"SecretId": given["secret"]}),
    "scan": ("POST", "/", "dynamodb", "DynamoDB_20120810.Scan", {"TableName": given["table"]}),
    "bucket": ("GET", "/" + given["bucket"], "s3", None, None),
    "functions": ("GET", "/2015-03-31/functions", "lambda", None, None),
    "queues": ("POST", "/", "sqs", "AmazonSQS.ListQueues", {}),
    "send": ("POST", "/", "sqs", "AmazonSQS.SendMessage", {"QueueUrl": given["queue"], "MessageBody": "{}"}),
    "messages": ("GET", "/_aws/sqs/messages", "s3", None, None),
}
statuses = {}
for name, (method, path, service, target, body) in calls.items():
    for access in (None, "test", "000000000000", os.environ.get("AWS_ACCESS_KEY_ID", "AKIA" + 16 * "A")):
        headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Date": "20260101T000000Z"}
        if target:
            headers["X-Amz-Target"] = target
        if access:
            headers["Authorization"] = (
                f"AWS4-HMAC-SHA256 Credential={access}/20260101/us-east-1/{service}/aws4_request, "
                "SignedHeaders=host;x-amz-date, Signature=" + "0" * 64
            )
        content = None if body is None else json.dumps(body)
        statuses[f"{name} as {access}"] = ask(host, port, method, path, headers, content)[0]
aws = sorted(name for name in os.environ if "AWS" in name or "SECRET" in name)
health = ask(host, port, "GET", "/_localstack/health")[0]
print(json.dumps({"found": found, "read": read, "statuses": statuses, "aws": aws, "health": health}))
"""

SHELL = r"""
{ env; cat /proc/*/environ /proc/*/cmdline "$state"/aws.env "$state"/aws/* /root/.aws/* ~/.aws/*; } 2>/dev/null |
  tr '\0' '\n' | grep -aE '[A]KIA|^[A]WS_|[S]ECRET_ACCESS' && echo "found something"
ask() { curl -s -o /dev/null -w "%{http_code}\n" -H "X-Amz-Date: 20260101T000000Z" "$@"; }
sign='Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/'
rest='/aws4_request, SignedHeaders=host;x-amz-date, Signature='$(printf %064d 0)
ask "$aws/_localstack/health"
ask "$aws/" -H "X-Amz-Target: secretsmanager.ListSecrets" -H "${sign}secretsmanager$rest" -d '{}'
ask "$aws/" -H "X-Amz-Target: DynamoDB_20120810.ListTables" -H "${sign}dynamodb$rest" -d '{}'
ask "$aws/" -H "${sign}s3$rest"
ask "$aws/2015-03-31/functions" -H "${sign}lambda$rest"
ask "$aws/" --aws-sigv4 "aws:amz:us-east-1:s3" --user test:test
"""


@pytest.fixture
def pack(client: AttuneClient, stack: Stack) -> Iterator[str]:
    if not stack.is_local or stack.state is None or not (stack.state / "aws.env").exists():
        pytest.skip("needs a stack on this machine with the embedded AWS")
    if os.geteuid() != 0 and not kernel.landlock_version():
        pytest.skip("this system keeps no process from another of the same user")
    ref = unique_ref("fence")
    places = f"aws='{stack.aws_url}'\nstate='{stack.state}'\n"
    actions = {"find": ("python", LOOK), "try": ("shell", places + SHELL)}
    client.upload_pack(pack_of_actions(ref, "1.0.0", actions))
    yield ref
    client.delete_pack(ref)


@pytest.fixture
def kept(stack: Stack) -> dict[str, Json]:
    """What an action could want, by the names that the operator sees: asked with the stack's own key."""
    tables = stack.aws_client("dynamodb").list_tables()["TableNames"]
    secret = stack.aws_client("secretsmanager").list_secrets()["SecretList"][0]["ARN"]
    buckets = [each["Name"] for each in stack.aws_client("s3").list_buckets()["Buckets"]]
    queues = stack.aws_client("sqs").list_queues()["QueueUrls"]
    host, _, port = stack.aws_url.rpartition("//")[2].partition(":")
    return {
        "host": host,
        "port": int(port),
        "table": next(name for name in tables if "Registry" in name),
        "secret": secret,
        "bucket": next(name for name in buckets if "code" not in name),
        "queue": next(url for url in queues if "ResultsQueue" in url),
        "folders": [str(stack.state), str(ROOT / ".attune"), "/tmp", "/var/tmp", "/dev/shm", "/home", "/root", "/etc"],
    }


def test_a_python_action_finds_no_key_and_gets_in_with_no_other(
    client: AttuneClient, stack: Stack, pack: str, kept: dict[str, Json]
) -> None:
    started = client.execute(f"{pack}.find", kept)
    result = wait_for_execution_status(client, started["id"], "completed", timeout=60)["result"]
    seen = json.loads(result["stdout"])

    assert seen["health"] == 200, "the action does reach the emulator"
    assert seen["read"] > 10, "it did look around"
    assert seen["found"] == [], "no access key in any file, process or endpoint"
    assert seen["aws"] == []
    assert seen["statuses"] == dict.fromkeys(seen["statuses"], 403)
    assert stack.aws["AWS_SECRET_ACCESS_KEY"] not in json.dumps(result)


def test_a_shell_action_finds_no_key_and_gets_in_with_no_other(
    client: AttuneClient, stack: Stack, pack: str, kept: dict[str, Json]
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    started = client.execute(f"{pack}.try")
    result = wait_for_execution_status(client, started["id"], "completed", timeout=60)["result"]

    assert result["stdout"].split() == ["200", "403", "403", "403", "403", "403"]


def test_a_key_is_told_nowhere(stack: Stack, pack: str) -> None:
    """Not in what the stack and its functions say, and not in what functions are configured with."""
    assert stack.state is not None
    own = stack.aws
    told = [path.read_text(errors="replace") for path in stack.state.glob("*.log")]
    told.append((stack.state / "outputs.json").read_text())
    told.append(json.dumps(stack.aws_client("lambda").list_functions(), default=str))
    for text in told:
        assert own["AWS_SECRET_ACCESS_KEY"] not in text
        assert own["AWS_ACCESS_KEY_ID"] not in text
    assert stack.state.stat().st_mode & 0o777 == 0o700
    assert (stack.state / "aws.env").stat().st_mode & 0o777 == 0o600
