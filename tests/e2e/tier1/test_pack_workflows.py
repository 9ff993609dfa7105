"""Workflows in packs: uploaded with them, run, brought back after a change, and gone with them."""

import pytest
from helpers.client import AttuneClient
from helpers.fixtures import pack_archive, unique_ref
from helpers.workflows import run

pytestmark = [pytest.mark.tier1, pytest.mark.packs, pytest.mark.workflow]

FLOW = """\
version: 1.0.0
parameters:
  who: {type: string, default: world}
tasks:
  - name: greet
    action: PACK.say
    input: {text: "Hello {{ parameters.who }}"}
output_map:
  said: "{{ task.greet.stdout | trim }}"
"""


def test_workflows_of_a_pack(client: AttuneClient) -> None:
    pack = unique_ref()
    files = {
        "pack.yaml": f"ref: {pack}\nname: Flows\nversion: 1.0.0\n",
        "actions/say.py": "import json, sys\nprint(json.load(sys.stdin)['text'])\n",
        "actions/say.yaml": "ref: say\nrunner_type: python\nentry_point: say.py\nparameters: {text: {type: string}}\n",
        "actions/named.yaml": "ref: named\nlabel: Named\nworkflow_file: workflows/named.yaml\n",
        "actions/workflows/named.yaml": FLOW,
        "workflows/alone.workflow.yaml": FLOW,
        "actions/inline.yaml": "ref: inline\nworkflow_definition:\n  " + FLOW.replace("\n", "\n  "),
        "workflows/broken.yaml": "tasks:\n  - name: a\n    action: core.noop\n    next: [{do: nobody}]\n",
    }
    archive = pack_archive({name: text.replace("PACK", pack) for name, text in files.items()})

    refused = client.request(
        "POST", "packs/upload", files={"pack": ("p.tar.gz", archive, "application/gzip")}, data={"strict": "true"}
    )
    assert refused.status_code == 422, "strict takes no pack with a broken workflow"
    uploaded = client.upload_pack(archive)
    flaws = [(flaw["file"], flaw["line"]) for flaw in uploaded["warnings"]]
    assert flaws == [("workflows/broken.yaml", 4)]

    refs = [f"{pack}.{name}" for name in ("alone", "inline", "named")]
    assert [each["ref"] for each in client.items(f"packs/{pack}/workflows")] == refs
    for ref in refs:
        assert run(client, ref, {"who": "packs"})["result"] == {"said": "Hello packs", "succeeded": True}

    other = {"tasks": [{"name": "nothing", "action": "core.noop"}]}
    client.data("PUT", f"workflows/{refs[0]}", json={"definition": other})
    assert run(client, refs[0])["result"] == {"succeeded": True}
    synced = client.data("POST", f"packs/{pack}/workflows/sync")
    assert (synced["registered_count"], len(synced["errors"])) == (3, 1)
    assert run(client, refs[0])["result"]["said"] == "Hello world"
    checked = client.data("POST", f"packs/{pack}/workflows/validate")
    assert (checked["validated_count"], checked["error_count"]) == (4, 1)

    client.delete_pack(pack)
    for kind in ("workflows", "actions"):
        assert client.request("GET", f"{kind}/{refs[0]}").status_code == 404
