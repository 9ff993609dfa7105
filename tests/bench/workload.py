"""What the benchmarks run: one webhook per kind of action, in a pack of its own."""

from dataclasses import dataclass

from helpers.client import AttuneClient
from helpers.fixtures import create_webhook_trigger, pack_archive, unique_ref

SCRIPT = "import json, sys\n\nprint(json.load(sys.stdin)['n'] * 2)\n"
ACTION = """\
ref: {pack}.double
label: Double
runner_type: python
entry_point: double.py
parameters:
  n: {{type: integer, required: true}}
"""


@dataclass(frozen=True)
class Line:
    """A webhook whose rule starts one kind of action."""

    kind: str
    key: str
    rule_ref: str


@dataclass(frozen=True)
class Workload:
    """``python`` is a file of an uploaded pack, ``shell`` an inline script, ``noop`` starts no process."""

    pack: str
    shell: Line
    python: Line
    noop: Line

    @property
    def lines(self) -> tuple[Line, ...]:
        return self.shell, self.python, self.noop


def create_workload(client: AttuneClient) -> Workload:
    """Each rule fires for payloads with ``go``; ``n`` is what its action is given."""
    pack = unique_ref("bench")
    manifest = f"ref: {pack}\nname: Benchmark\nversion: 1.0.0\n"
    client.upload_pack(
        pack_archive(
            {"pack.yaml": manifest, "actions/double.yaml": ACTION.format(pack=pack), "actions/double.py": SCRIPT}
        )
    )
    schema = {"n": {"type": "integer", "required": True}}
    client.create_action(f"{pack}.shell", pack, entrypoint='echo "$n"', param_schema=schema)
    return Workload(
        pack,
        shell=_line(client, pack, "shell", f"{pack}.shell"),
        python=_line(client, pack, "python", f"{pack}.double"),
        noop=_line(client, pack, "noop", "core.noop"),
    )


def _line(client: AttuneClient, pack: str, kind: str, action_ref: str) -> Line:
    trigger = create_webhook_trigger(client, pack, f"hook_{kind}")
    rule = client.create_rule(
        f"{pack}.rule_{kind}",
        pack,
        trigger_ref=trigger.ref,
        action_ref=action_ref,
        conditions={"expression": "event.payload.go"},
        action_params={"n": "{{ event.payload.n }}"},
    )
    return Line(kind, trigger.key, rule["ref"])
