"""Runs of the runtimes, from the message to the result (semantics §2.6)."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chalicelib.protocol import Run, RunFinished
from runners import handler, results

Carry = Callable[..., RunFinished]

READ_PARAMETERS = "import json, sys\np = json.load(sys.stdin)\n"


def test_a_python_action_reads_its_parameters_and_answers_json(carry_out: Carry) -> None:
    finished = carry_out(
        "python",
        READ_PARAMETERS + "print(json.dumps({'sum': p['a'] + p['b']}))",
        parameters={"a": 1, "b": 2},
        output_format="json",
    )

    assert finished.status == "completed"
    assert finished.result["data"] == {"sum": 3}
    assert finished.result["succeeded"] is True
    assert finished.result["exit_code"] == 0
    assert "stdout" not in finished.result
    assert (finished.tenant, finished.execution, finished.attempt, finished.token) == ("acme", 7, 1, "one-time-token")


def test_an_exception_is_the_error_with_only_the_actions_own_frames(carry_out: Carry) -> None:
    finished = carry_out("python", "def f():\n    raise KeyError('gone')\nprint('before')\nf()\n")

    assert finished.status == "failed"
    assert finished.result["exit_code"] == 1
    assert finished.result["stdout"] == "before\n"
    assert finished.result["error"] == "KeyError: 'gone'"
    assert "runners" not in finished.result["stderr"]
    assert 'action.py", line 2, in f' in finished.result["stderr"]


@pytest.mark.parametrize(
    ("code", "exit_code", "error"),
    [
        ("import sys; sys.exit(3)", 3, "Command exited with code 3"),
        ("exit('no luck')", 1, "no luck"),
        ("import os; os._exit(9)", 9, "Command exited with code 9"),
        ("import sys; sys.exit(256 + 4)", 4, "Command exited with code 4"),
    ],
)
def test_python_exit_codes_are_the_interpreters(carry_out: Carry, code: str, exit_code: int, error: str) -> None:
    result = carry_out("python", code).result

    assert (result["exit_code"], result["error"], result["succeeded"]) == (exit_code, error, False)


def test_what_a_python_action_leaves_open_is_still_finished(carry_out: Carry) -> None:
    code = """
import atexit, os, sys, threading
class Written:
    def __init__(self): self.me, self.file = self, open(1, 'w', closefd=False)
written = Written(); written.file.write('in a cycle\\n')
atexit.register(lambda: print('at exit'))
threading.Thread(target=lambda: (threading.Event().wait(0.05), print('thread'))).start()
print('main')
"""
    lines = carry_out("python", code).result["stdout"].splitlines()

    assert lines == ["main", "thread", "at exit", "in a cycle"]


def test_nothing_passes_from_one_python_execution_to_the_next(carry_out: Carry) -> None:
    carry_out(
        "python",
        "import builtins, json, os, sys\nbuiltins.left = json.left = 1\nos.environ['LEFT'] = '1'\n"
        "sys.path.append('/left')\ntry: open('/tmp/left', 'w')\nexcept OSError: pass\n"
        "open(os.path.join(os.environ['HOME'], 'left'), 'w')",
        environment={"LEFT": "1"},
    )
    result = carry_out(
        "python",
        "import builtins, json, os, sys\n"
        "print(hasattr(builtins, 'left'), hasattr(json, 'left'), 'LEFT' in os.environ, '/left' in sys.path,"
        " os.path.exists('/tmp/left'), sorted(os.listdir(os.environ['HOME'])))",
    ).result

    assert result["stdout"] == "False False False False False ['action.py', 'artifacts']\n"


def test_python_sees_nothing_of_the_platform(carry_out: Carry) -> None:
    code = """
import sys
for name in ('runners', 'runners.child', 'msgspec', 'botocore', 'yaml'):
    try:
        __import__(name); print(name)
    except ImportError: pass
print(sorted(m for m in sys.modules if m.startswith('runners')), __name__, len(sys.argv))
"""
    assert carry_out("python", code).result["stdout"] == "[] __main__ 1\n"


def test_inline_shell_has_its_parameters_as_variables_that_are_not_exported(carry_out: Carry) -> None:
    finished = carry_out(
        "shell",
        'echo "$greeting|$PARAM_GREETING|$count|$flag|$list|$my_key|$nothing|"\n'
        "env | grep -i greeting || echo unexported\ncat",
        parameters={
            "greeting": "it's $HOME `id`\nand more",
            "count": 3,
            "flag": True,
            "list": [1, {"a": None}],
            "my-key": "k",
            "nothing": None,
        },
    )

    assert finished.result["stdout"] == (
        "it's $HOME `id`\nand more|it's $HOME `id`\nand more|3|true|[1,{\"a\":null}]|k||\nunexported\n"
    )


def test_a_parameter_cannot_take_the_place_of_a_shells_own_variable(carry_out: Carry) -> None:
    finished = carry_out(
        "shell", 'ls /usr >/dev/null && echo "$PARAM_PATH"', parameters={"PATH": "/nowhere", "UID": "0", "IFS": "s"}
    )

    assert finished.result["stdout"] == "/nowhere\n"


def test_inline_shell_stops_at_the_first_failure(carry_out: Carry) -> None:
    result = carry_out("shell", "echo one\nfalse\necho two").result

    assert (result["stdout"], result["exit_code"], result["error"]) == ("one\n", 1, "Command exited with code 1")


def test_the_script_with_its_secrets_is_out_of_reach_of_its_programs(carry_out: Carry) -> None:
    result = carry_out("shell", "ls /proc/self/fd | tr '\\n' ' '", parameters={"key": "canary"}).result

    assert result["stdout"].split() == ["0", "1", "2", "3"]  # 3 is the folder that `ls` reads


def test_node_reads_its_parameters(carry_out: Carry) -> None:
    code = "const p = JSON.parse(require('fs').readFileSync(0)); console.log(JSON.stringify({twice: 2 * p.n}))"
    finished = carry_out("node", code, parameters={"n": 21}, output_format="json")
    if "there is no `node`" in finished.result.get("error", ""):
        pytest.skip("node is not installed")

    assert finished.result["data"] == {"twice": 42}


@pytest.mark.parametrize("kind", ["python", "shell", "node"])
def test_a_file_takes_the_parameters_where_the_action_wants_it(carry_out: Carry, kind: str) -> None:
    code = {
        "python": "import os; print(open(os.environ['ATTUNE_PARAMETER_FILE']).read(), end='')",
        "shell": 'unset x; ls "$HOME" | grep -c parameters || true',
        "node": "process.stdout.write(require('fs').readFileSync(process.env.ATTUNE_PARAMETER_FILE))",
    }[kind]
    finished = carry_out(
        kind, code, parameters={"b": {"c": "it's"}, "a": None}, parameter_delivery="file", parameter_format="dotenv"
    )
    if "there is no `node`" in finished.result.get("error", ""):
        pytest.skip("node is not installed")

    # Inline shell has variables, and no document.
    assert finished.result["stdout"] == ("0\n" if kind == "shell" else "a=''\nb.c='it'\\''s'\n")


def test_the_environment_is_the_runs_and_not_the_platforms(carry_out: Carry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    finished = carry_out(
        "python",
        "import json, os; print(json.dumps(dict(os.environ)))",
        environment={"ATTUNE_EXEC_ID": "7", "MINE": "1"},
        output_format="json",
    )

    assert set(finished.result["data"]) == {
        *("PATH", "LANG", "HOME", "TMPDIR", "ATTUNE_ARTIFACTS_DIR", "ATTUNE_EXEC_ID", "MINE"),
        *("ATTUNE_PARAMETER_DELIVERY", "ATTUNE_PARAMETER_FORMAT"),
    }


def test_a_timeout_is_a_failure_that_says_so(carry_out: Carry) -> None:
    finished = carry_out("python", "print('begun')\nimport time\ntime.sleep(60)", timeout=0.2)

    assert (finished.status, finished.timed_out) == ("failed", True)
    assert finished.result["error"] == "Execution timed out after 0.2 seconds"
    assert (finished.result["exit_code"], finished.result["stdout"]) == (-1, "begun\n")
    assert finished.duration_ms < 5000


def test_the_result_gets_out_before_the_invocation_ends(runner: handler.Runner) -> None:
    run = Run(
        tenant="acme", execution=1, attempt=1, token="t" * 20, action_ref="a.b", runner="shell",
        entrypoint="sleep 60", timeout=300,
    )  # fmt: skip
    started = time.monotonic()
    finished = runner.carry_out(run, seconds_left=8.3)

    assert finished.timed_out
    assert time.monotonic() - started < 5


def test_secrets_and_the_token_leave_in_no_form(carry_out: Carry) -> None:
    code = (
        "import base64, sys, urllib.parse, json\np = json.load(sys.stdin)['key']\n"
        "print(p, base64.b64encode(('x:' + p).encode()).decode(), urllib.parse.quote(p))\n"
        "print(json.dumps(p), p.encode().hex())\n"
        "raise ValueError(p)"
    )
    secret = 'pass"wörd/\nsecond line'
    finished = carry_out("python", code, parameters={"key": secret}, secrets=[secret])
    text = json.dumps(finished.result, ensure_ascii=False)

    for trace in ("pass", "w\\u00f6rd", "second line", "wörd", "d8O2cmQ", secret.encode().hex()):
        assert trace not in text
    assert "ValueError: ********" in finished.result["stderr"]


class Queue:
    """The results queue's end of SQS."""

    def __init__(self) -> None:
        self.bodies: list[str] = []

    def send_message(self, **message: Any) -> None:
        self.bodies.append(message["MessageBody"])


class Context:
    def get_remaining_time_in_millis(self) -> int:
        return 60_000


def test_an_invocation_reports_on_the_queue_and_logs_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    queue = Queue()
    monkeypatch.setattr(results, "_sqs", lambda: queue)
    monkeypatch.setenv("ATTUNE_RESULTS_QUEUE", "http://queue")
    lines: list[str] = []
    monkeypatch.setattr(
        logging.getLogger("attune.runner").handlers[0],
        "emit",
        lambda record: lines.append(results._Lines().format(record)),
    )
    event = {
        "kind": "run", "tenant": "acme", "execution": 2**52, "attempt": 2, "token": "one-time", "action_ref": "demo.it",
        "runner": "python", "entrypoint": "print('secret output')",
    }  # fmt: skip

    handler.handle(event, Context())

    (body,) = queue.bodies
    assert json.loads(body)["execution"] == 2**52
    assert json.loads(body)["status"] == "completed"
    (line,) = lines
    assert json.loads(line)["execution"] == 2**52
    assert "secret output" not in line
    assert capsys.readouterr().out == ""
