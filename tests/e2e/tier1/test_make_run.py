"""`make run` as a person uses it: started, stopped with Ctrl-C, started again; and what it says when it cannot."""

import os
import socket
import subprocess
from pathlib import Path

import pytest
from helpers.client import AttuneClient, Json
from helpers.polling import wait_for, wait_for_execution_completion, wait_for_execution_count
from helpers.stack import ROOT, Stack, free_ports, own_stack

pytestmark = pytest.mark.tier1


def test_a_second_start_finds_its_state_on_other_ports(tmp_path: Path) -> None:
    with own_stack(tmp_path) as stack, stack.sign_in() as client:
        client.create_pack("kept")
        client.create_action("kept.greet", "kept", entrypoint='echo "$greeting, $name"')
        client.create_secret(key="kept_greeting", value="good morning", encrypted=True)
        client.create_trigger("kept.hook", "kept")
        key = client.enable_webhook("kept.hook")
        client.create_rule(
            "kept.on_hook",
            "kept",
            trigger_ref="kept.hook",
            action_ref="kept.greet",
            action_params={"greeting": "{{ keystore.kept_greeting }}", "name": "{{ event.payload.name }}"},
        )
        # Their messages come in while the second start is still at it.
        for number in range(4):
            client.create_rule(
                f"kept.every_second_{number}",
                "kept",
                trigger_ref="core.intervaltimer",
                action_ref="core.noop",
                trigger_params={"unit": "seconds", "interval": 1},
            )
        client.post_webhook(key, {"name": "first"})
        wait_for_execution_count(client, 1, rule_ref="kept.on_hook")

    with own_stack(tmp_path) as again, again.sign_in() as client:
        assert again.url != stack.url
        client.post_webhook(key, {"name": "second"})
        newest, oldest = wait_for_execution_count(client, 2, rule_ref="kept.on_hook")
        assert client.get_execution(oldest["id"])["result"]["stdout"] == "********, first\n"
        assert client.get_execution(newest["id"])["result"]["stdout"] == "********, second\n"


def test_a_function_that_is_changed_finishes_what_it_is_at(
    stack: Stack, client: AttuneClient, test_pack: dict[str, Json]
) -> None:
    functions = stack.aws_client("lambda")
    listed = functions.get_paginator("list_functions").paginate().search("Functions[]")
    runner = next(each for each in listed if "Runner" in each["FunctionName"])
    action = client.create_action(f"{test_pack['ref']}.wait", test_pack["ref"], entrypoint="date +%s%N; sleep 4")
    running = client.execute(action["ref"])
    log = f"executions/{running['id']}/logs/stdout"
    began = wait_for(lambda: client.request("GET", log).text.strip(), timeout=30, what="the action to begin")
    functions.update_function_configuration(FunctionName=runner["FunctionName"], MemorySize=runner["MemorySize"])
    ended = wait_for_execution_completion(client, running["id"])
    assert ended["result"]["stdout"].strip() == began, "it was not run a second time"


def test_a_taken_port_is_one_clear_sentence(tmp_path: Path) -> None:
    port, aws_port = free_ports(2)
    with socket.create_server(("127.0.0.1", port)):
        done = subprocess.run(
            ["make", "--silent", "run"],
            cwd=ROOT,
            env={
                **os.environ,
                "ATTUNE_PORT": str(port),
                "ATTUNE_AWS_PORT": str(aws_port),
                "ATTUNE_STATE_DIR": str(tmp_path),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode != 0
    (sentence,) = [line for line in done.stderr.splitlines() if str(port) in line]
    assert "ATTUNE_PORT" in sentence
    assert "Traceback" not in done.stderr
