"""`make run` as a person uses it: started, stopped with Ctrl-C, started again; and what it says when it cannot."""

import os
import socket
import subprocess
from pathlib import Path

import pytest
from helpers.polling import wait_for_event_count, wait_for_execution_count
from helpers.stack import ROOT, free_ports, own_stack

pytestmark = pytest.mark.tier1


def test_second_start_finds_its_state_on_other_ports(tmp_path: Path) -> None:
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
        client.create_rule(
            "kept.every_second",
            "kept",
            trigger_ref="core.intervaltimer",
            action_ref="core.noop",
            trigger_params={"unit": "seconds", "interval": 1},
        )
        client.post_webhook(key, {"name": "first"})
        wait_for_execution_count(client, 1, rule_ref="kept.on_hook")
        before = wait_for_event_count(client, 3, match="at least", rule_ref="kept.every_second")

    with own_stack(tmp_path) as again, again.sign_in() as client:
        assert again.url != stack.url
        client.post_webhook(key, {"name": "second"})
        newest, oldest = wait_for_execution_count(client, 2, rule_ref="kept.on_hook")
        assert client.get_execution(oldest["id"])["result"]["stdout"] == "********, first\n"
        assert client.get_execution(newest["id"])["result"]["stdout"] == "********, second\n"
        after = wait_for_event_count(client, len(before) + 3, match="at least", rule_ref="kept.every_second")
        client.disable_rule("kept.every_second")
        fired = [client.get_event(event["id"])["payload"]["execution_count"] for event in after]
        assert len(fired) == len(set(fired)), "no second fires twice, and the restart is no exception"


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
