"""T3.21: what actions print, however much and whatever it is.

The two streams are kept apart. Up to 64 KB are in the result; beyond that it shows the first and the last part and says
so, and the whole, up to 10 MB, is behind ``GET /executions/{id}/logs/{stream}``, while the action runs as well.
"""

import base64
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from helpers.client import ApiError, AttuneClient, Json
from helpers.fixtures import create_python_action, unique_login, unique_ref
from helpers.narration import step, summary, title
from helpers.polling import wait_for, wait_for_execution_status

SHOWN = 64 * 1024
LIMIT = 10 * 1024 * 1024
VISIBLE = 2.0  # seconds after which what was written can be read

pytestmark = [pytest.mark.tier3, pytest.mark.logs]


def read(client: AttuneClient, execution_id: int, stream: str = "stdout", **params: Any) -> httpx.Response:
    answer = client.request("GET", f"executions/{execution_id}/logs/{stream}", params=params)
    if answer.is_error:
        raise ApiError(answer)
    return answer


def whole(client: AttuneClient, execution_id: int, stream: str = "stdout") -> str:
    """The log of an execution that has ended, in as many requests as it takes."""
    text, offset = "", 0
    while True:
        answer = read(client, execution_id, stream, offset=offset)
        text += answer.text
        offset = int(answer.headers["x-log-next-offset"])
        if answer.headers["x-log-complete"] == "true":
            return text


def events(client: AttuneClient, execution_id: int, stream: str = "stdout") -> Iterator[tuple[str, str]]:
    """Name and data of every event until ``done``, as an EventSource sees them: it reconnects where it left off."""
    last = None
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        headers = {} if last is None else {"Last-Event-ID": last}
        path = f"executions/{execution_id}/logs/{stream}/stream"
        answer = client.request("GET", path, headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/event-stream")
        retry = 0.0
        for block in answer.text.split("\n\n"):
            fields = [line.partition(": ")[::2] for line in block.splitlines() if not line.startswith(":")]
            named = dict(fields)
            retry = int(named["retry"]) / 1000 if "retry" in named else retry
            last = named.get("id", last)
            if "event" in named:
                yield named["event"], "\n".join(value for name, value in fields if name.rstrip(":") == "data")
            if named.get("event") == "done":
                return
        time.sleep(retry)  # what the protocol tells a client to do
    raise AssertionError("the stream of events did not end")


def run(client: AttuneClient, pack: str, name: str, code: str, **fields: Json) -> dict[str, Json]:
    """The execution of a Python action, once it has succeeded."""
    action = create_python_action(client, pack, name, code)
    execution = client.execute(action, **fields)
    return wait_for_execution_status(client, execution["id"], "succeeded", timeout=60)


@pytest.mark.limits
def test_large_log_output_truncation(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """5 MB pass whole; the result shows their first and last part; beyond 10 MB there is a notice and no crash."""
    title("T3.21: Large Log Output")
    pack = test_pack["ref"]

    step(1, "Printing 5 MB")
    line = "'%06d ' % n + 'x' * 92"
    ended = run(client, pack, "five", f"for n in range(52_429): print({line})")
    result = ended["result"]
    expected = "".join(f"{n:06d} {'x' * 92}\n" for n in range(52_429))
    assert result["stdout_truncated"] is True
    assert result["stdout_bytes"] == len(expected) >= 5 * 1024 * 1024
    assert result["stdout_bytes_truncated"] == len(expected) - SHOWN
    assert len(result["stdout"]) < SHOWN + 200
    assert result["stdout"].startswith(expected[:1000])
    assert result["stdout"].endswith(expected[-1000:])

    step(2, "Reading it whole, in part, and from its end")
    assert whole(client, ended["id"]) == expected
    assert read(client, ended["id"], offset=len(expected) - 100).text == expected[-100:]
    tail = read(client, ended["id"], tail=3)
    assert tail.text == "".join(expected.splitlines(keepends=True)[-3:])
    assert int(tail.headers["x-log-offset"]) == len(expected) - 300
    assert "".join(data for name, data in events(client, ended["id"]) if name != "done") == expected

    step(3, "Printing 12 MB")
    over = run(client, pack, "twelve", "import sys\nfor n in range(12): sys.stdout.write(('%02d' % n) * (1 << 19))")
    text = whole(client, over["id"])
    assert over["result"]["stdout_bytes"] == 12 * 1024 * 1024
    assert over["result"]["stdout"].endswith("1111")
    assert text[:LIMIT] == "".join(f"{n:02d}" * (1 << 19) for n in range(10))
    assert f"{2 * 1024 * 1024} bytes left out" in text[LIMIT:]
    assert len(text) < LIMIT + 200
    summary("5 MB whole in the log, 12 MB cut with a notice")


def test_stderr_log_capture(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """The streams are kept apart, also when only one of them is large, and when the action fails."""
    title("T3.21: Separate stdout and stderr")
    pack = test_pack["ref"]

    step(1, "Writing a little to both")
    code = "import sys\nprint('to stdout')\nprint('to stderr', file=sys.stderr)"
    little = run(client, pack, "both", code)
    assert little["result"]["stdout"] == "to stdout\n"
    assert whole(client, little["id"]) == "to stdout\n"
    assert whole(client, little["id"], "stderr") == "to stderr\n"

    step(2, "Writing much to stderr only")
    much = run(
        client, pack, "much", "import sys\nprint('out')\nfor n in range(50_000): print('err', n, file=sys.stderr)"
    )
    assert much["result"]["stdout"] == "out\n"
    assert much["result"]["stderr_truncated"] is True
    assert "stdout_truncated" not in much["result"]
    assert whole(client, much["id"]) == "out\n"
    assert whole(client, much["id"], "stderr") == "".join(f"err {n}\n" for n in range(50_000))

    step(3, "Failing with a traceback")
    failing = create_python_action(client, pack, "failing", "print('before')\nraise ValueError('on purpose')")
    failed = wait_for_execution_status(client, client.execute(failing)["id"], "failed")
    assert whole(client, failed["id"]) == "before\n"
    assert whole(client, failed["id"], "stderr").endswith("ValueError: on purpose\n")

    step(4, "Answering JSON, which the result has as a value")
    action = f"{pack}.answers"
    client.create_action(action, pack, entrypoint="echo '{ \"a\":1 }'", output_format="json", runtime_ref="core.shell")
    answered = wait_for_execution_status(client, client.execute(action)["id"], "succeeded")
    assert answered["result"]["data"] == {"a": 1}
    assert whole(client, answered["id"]) == '{ "a":1 }\n'
    summary("stdout and stderr apart")


@pytest.mark.limits
def test_log_line_count_limits(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """10,000 lines pass in order, by the last lines as well; and lines can be read two seconds after they are written,
    from the log and from its events."""
    title("T3.21: Many Lines")
    pack = test_pack["ref"]

    step(1, "Printing 10,000 lines")
    ended = run(client, pack, "lines", "for n in range(10_000): print('line', n)")
    lines = whole(client, ended["id"]).splitlines()
    assert lines == [f"line {n}" for n in range(10_000)]
    assert read(client, ended["id"], tail=10).text.splitlines() == lines[-10:]
    assert read(client, ended["id"], tail=10_000).text.splitlines() == lines

    step(2, "Reading lines while they are written")
    code = "import time\nfor n in range(12):\n  print(time.time(), flush=True)\n  time.sleep(0.5)"
    slow = client.execute(create_python_action(client, pack, "slow", code))
    with ThreadPoolExecutor() as pool:
        streamed = pool.submit(lambda: list(events(client, slow["id"])))
        late = _lateness(client, slow["id"])
        seen = streamed.result()
    print(f"    lines were there after {min(late):.2f} to {max(late):.2f} s")
    assert len(late) == 12
    assert max(late) < VISIBLE
    assert seen[-1][0] == "done"
    assert "".join(data for name, data in seen if name in ("content", "append")) == whole(client, slow["id"])
    kinds = [name for name, _ in seen]
    assert kinds.count("content") == 1
    assert kinds.count("append") >= 3
    summary("10,000 lines in order, each within two seconds")


def _lateness(client: AttuneClient, execution_id: int) -> list[float]:
    """For every line, which is the time it was written at, how many seconds later it could be read."""
    late: list[float] = []
    offset, complete = 0, False

    def look() -> bool:
        nonlocal offset, complete
        answer = read(client, execution_id, offset=offset)
        now = time.time()
        late.extend(now - float(line) for line in answer.text.splitlines())
        offset = int(answer.headers["x-log-next-offset"])
        complete = answer.headers["x-log-complete"] == "true"
        return complete

    wait_for(look, timeout=60, what="the log to be complete")
    return late


@pytest.mark.edge_case
def test_binary_output_handling(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Bytes that are no text become printable, in result and log alike; text beside them survives."""
    title("T3.21: Binary Output")
    pack = test_pack["ref"]

    step(1, "Printing every byte, and text around it")
    code = "import os\nos.write(1, b'begin ' + bytes(range(256)) + ' ünd end\\n'.encode())"
    ended = run(client, pack, "bytes", code)
    text = whole(client, ended["id"])
    assert text == ended["result"]["stdout"]
    assert text.startswith("begin ")
    assert text.endswith(" ünd end\n")
    assert "\N{REPLACEMENT CHARACTER}" in text
    assert "\x00" not in text

    step(2, "Printing 300 KB of noise")
    noise = run(
        client, pack, "noise", "import os\nos.write(2, b'x')\nfor _ in range(3): os.write(1, os.urandom(100_000))"
    )
    assert noise["result"]["stdout_bytes"] == 300_000
    log = whole(client, noise["id"])
    assert len(log.encode()) > SHOWN
    assert all(character.isprintable() or character.isspace() or character in "\x1b\N{REPLACEMENT CHARACTER}"
               or ord(character) > 127 for character in log)  # fmt: skip

    step(3, "The platform is none the worse")
    assert run(client, pack, "after", "print('fine')")["result"]["stdout"] == "fine\n"
    summary("binary output is printable")


@pytest.mark.secrets
def test_secrets_are_masked_in_logs(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Wherever a secret falls, across blocks and parts, in both streams, while it runs and afterwards."""
    title("T3.21: Secrets in Logs")
    pack = test_pack["ref"]
    secret = f"canary-{unique_ref()}"
    client.create_secret(f"{pack}.token", secret, owner_type="pack", owner_pack_ref=pack, name="token")

    step(1, "Printing it in pieces over several seconds, and amid a lot of other text")
    code = """
import base64, json, os, sys, time
secret = json.load(sys.stdin)['token']
for piece in (secret[:5], secret[5:9], secret[9:]):
    os.write(1, piece.encode())
    time.sleep(1.7)
os.write(2, b'.' * ((1 << 20) - 11) + secret.encode() + b'!' + base64.b64encode(secret.encode()))
"""
    execution = client.execute(create_python_action(client, pack, "leaky", code))
    seen = ""

    def ended() -> bool:
        nonlocal seen
        status = client.get_execution(execution["id"])["status"]
        seen += read(client, execution["id"]).text
        return status not in ("requested", "scheduled", "running")

    wait_for(ended, timeout=60, what="the execution to end")
    streams = {name: whole(client, execution["id"], name) for name in ("stdout", "stderr")}
    assert streams["stdout"] == "********"
    assert "********!********" in streams["stderr"]
    for text in (seen, *streams.values(), str(client.get_execution(execution["id"]))):
        assert secret not in text
        assert secret[:9] not in text
        assert base64.b64encode(secret.encode()).decode() not in text
    summary("no piece of the secret in any log")


def test_logs_are_for_those_who_may_read_the_execution(
    client: AttuneClient, anonymous: AttuneClient, test_pack: dict[str, Json]
) -> None:
    """Without a token 401, without the permission 403, and what does not exist is 404 or 422."""
    title("T3.21: Access to Logs")
    ended = run(client, test_pack["ref"], "private", "print('private')")
    path = f"executions/{ended['id']}/logs/stdout"

    step(1, "Asking as nobody and as somebody without permissions")
    assert anonymous.request("GET", path).status_code == 401
    with AttuneClient(client.base_url) as stranger:
        registered = stranger.request(
            "POST", "/auth/register", json={"login": unique_login(), "password": "a-long-password"}
        )
        if registered.status_code != 403:  # 403: nobody may register here
            stranger.token = registered.json()["data"]["access_token"]
            assert stranger.request("GET", path).status_code == 403
            assert stranger.request("GET", f"{path}/stream").status_code == 403

    step(2, "Asking for what there is not")
    for wrong, status in (
        ("executions/1/logs/stdout", 404),
        (f"executions/{ended['id']}/logs/stdin", 422),
        (f"{path}/stream/x", 404),
    ):
        assert client.request("GET", wrong).status_code == status, wrong
    assert client.request("GET", path, params={"offset": "x"}).status_code == 400
    summary("logs follow the execution's permissions")


def test_a_large_result_is_kept_and_one_that_is_too_large_says_so(
    client: AttuneClient, test_pack: dict[str, Json]
) -> None:
    """A queue takes 1 MB; a result may have 4 MB."""
    pack = test_pack["ref"]
    action = f"{pack}.much"
    code = 'import json, sys\nprint(json.dumps({"text": "x" * json.load(sys.stdin)["bytes"]}))'
    client.create_action(action, pack, entrypoint=code, runtime_ref="core.python", output_format="json")

    for size in (1_500_000, 3_900_000):
        id_ = client.execute(action, {"bytes": size})["id"]
        result = wait_for_execution_status(client, id_, "completed", timeout=60)["result"]
        assert result["data"] == {"text": "x" * size}

    id_ = client.execute(action, {"bytes": 5_000_000})["id"]
    result = wait_for_execution_status(client, id_, "failed", timeout=60)["result"]
    assert "the most is 4194304" in result["error"]
