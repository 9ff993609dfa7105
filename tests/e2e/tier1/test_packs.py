"""Packs: uploaded as an archive, replaced, taken away; their actions run from their files."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from helpers.client import ApiError, AttuneClient, Json
from helpers.fixtures import pack_archive, tar_gz, unique_ref
from helpers.polling import wait_for_execution_status
from helpers.stack import Stack

pytestmark = [pytest.mark.tier1, pytest.mark.packs]

# Prints how it was called, so that one script serves every format.
MIRROR = "import sys\nsys.stdout.write(sys.stdin.read())\n"
SUM = "import json, sys\np = json.load(sys.stdin)\nprint(json.dumps({'sum': p['a'] + p['b']}))\n"


def manifest(ref: str, version: str = "1.0.0") -> str:
    return f"ref: {ref}\nname: A test\nversion: {version}\ndescription: Made by a test\nkeywords: [one, two]\n"


def action_yaml(ref: str, entry_point: str, runner: str = "python", **more: str) -> str:
    lines = [f"ref: {ref}", "label: An action", f"runner_type: {runner}", f"entry_point: {entry_point}"]
    return "\n".join(lines + [f"{key}: {value}" for key, value in more.items()]) + "\n"


def test_upload_and_run(client: AttuneClient) -> None:
    """A Python file and a shell file of an uploaded pack, with parameters on stdin and JSON output parsed."""
    pack = unique_ref("up")
    archive = pack_archive(
        {
            "pack.yaml": manifest(pack),
            "actions/sum.yaml": action_yaml(f"{pack}.sum", "sum.py", output_format="json"),
            "actions/sum.py": SUM,
            "actions/show.yaml": action_yaml(f"{pack}.show", "show.sh", "shell"),
            "actions/show.sh": "#!/bin/sh\ncat\n",
            "triggers/ping.yaml": f"ref: {pack}.ping\nlabel: Ping\n",
            "rules/sum_on_ping.yaml": (
                f"ref: {pack}.sum_on_ping\nlabel: Sum\ntrigger_ref: ping\naction_ref: sum\n"
                "action_params: {a: '{{ event.payload.a }}', b: 1}\n"
            ),
        }
    )

    uploaded = client.upload_pack(archive)

    assert uploaded["pack"]["ref"] == pack
    assert (uploaded["pack"]["label"], uploaded["pack"]["tags"]) == ("A test", ["one", "two"])
    assert uploaded["pack"]["is_standard"] is False
    assert uploaded["test_result"] is None
    summed = wait_for_execution_status(client, client.execute(f"{pack}.sum", {"a": 2, "b": 40})["id"], "succeeded")
    assert summed["result"]["data"] == {"sum": 42}
    assert "stdout" not in summed["result"], "parsed output is not repeated as text"
    shown = wait_for_execution_status(client, client.execute(f"{pack}.show", {"a": 1})["id"], "succeeded")
    assert json.loads(shown["result"]["stdout"]) == {"a": 1}
    assert client.data("GET", f"rules/{pack}.sum_on_ping")["trigger_ref"] == f"{pack}.ping"
    assert [action["ref"] for action in client.items(f"packs/{pack}/actions")] == [f"{pack}.show", f"{pack}.sum"]
    client.delete_pack(pack)
    assert client.request("GET", f"actions/{pack}.sum").status_code == 404


def test_formats(client: AttuneClient) -> None:
    """Parameters as JSON, dotenv and YAML, by stdin or file; output as text, JSON, JSON lines and YAML."""
    pack = unique_ref("formats")
    files = {"pack.yaml": manifest(pack), "actions/mirror.py": MIRROR}
    for name in ("json", "dotenv", "yaml"):
        files[f"actions/in_{name}.yaml"] = action_yaml(f"{pack}.in_{name}", "mirror.py", parameter_format=name)
    files["actions/file.py"] = "import os\nprint(open(os.environ['ATTUNE_PARAMETER_FILE']).read())\n"
    files["actions/in_file.yaml"] = action_yaml(f"{pack}.in_file", "file.py", parameter_delivery="file")
    outputs = {"json": '{"a": [1, null]}', "yaml": "a: [1, null]\n", "jsonl": '{"a": 1}\n{"a": 2}\n'}
    for name, text in outputs.items():
        files[f"actions/out_{name}.py"] = f"print({text!r})\n"
        files[f"actions/out_{name}.yaml"] = action_yaml(f"{pack}.out_{name}", f"out_{name}.py", output_format=name)
    client.upload_pack(pack_archive(files))

    def result(action: str) -> dict[str, Json]:
        started = client.execute(f"{pack}.{action}", {"text": "it's", "deep": {"n": 1}} if "in_" in action else {})
        return wait_for_execution_status(client, started["id"], "succeeded")["result"]

    assert json.loads(result("in_json")["stdout"]) == {"text": "it's", "deep": {"n": 1}}
    assert json.loads(result("in_file")["stdout"]) == {"text": "it's", "deep": {"n": 1}}
    assert result("in_dotenv")["stdout"].split("\n")[:2] == ["deep.n='1'", "text='it'\\''s'"]
    assert "text: it's" in result("in_yaml")["stdout"]
    assert result("out_json")["data"] == {"a": [1, None]}
    assert result("out_yaml")["data"] == {"a": [1, None]}
    assert result("out_jsonl")["data"] == [{"a": 1}, {"a": 2}]
    client.delete_pack(pack)


def test_upload_again_replaces(client: AttuneClient) -> None:
    """With ``force`` what is gone from the archive is gone, what is new is there, and ad-hoc things and the
    configuration stay; without it 409."""
    pack = unique_ref("again")
    first = {
        "pack.yaml": manifest(pack),
        "actions/old.yaml": action_yaml(f"{pack}.old", "run.py"),
        "actions/same.yaml": action_yaml(f"{pack}.same", "run.py"),
        "actions/run.py": "print('first')\n",
    }
    second = {
        "pack.yaml": manifest(pack, "2.0.0"),
        "actions/new.yaml": action_yaml(f"{pack}.new", "run.py"),
        "actions/same.yaml": action_yaml(f"{pack}.same", "run.py"),
        "actions/run.py": "print('second')\n",
    }
    client.upload_pack(pack_archive(first))
    client.data("PUT", f"packs/{pack}", json={"config": {"region": "eu"}})
    client.create_action(f"{pack}.adhoc", pack, entrypoint="true")

    with pytest.raises(ApiError) as refused:
        client.upload_pack(pack_archive(second))
    assert refused.value.status == 409
    same = client.execute(f"{pack}.same")
    assert wait_for_execution_status(client, same["id"], "succeeded")["result"]["stdout"] == "first\n"

    client.upload_pack(pack_archive(second), force=True)
    assert [action["ref"] for action in client.items(f"packs/{pack}/actions")] == [
        f"{pack}.adhoc", f"{pack}.new", f"{pack}.same",
    ]  # fmt: skip
    assert client.get_pack(pack)["version"] == "2.0.0"
    assert client.get_pack(pack)["config"] == {"region": "eu"}
    same = client.execute(f"{pack}.same")
    assert wait_for_execution_status(client, same["id"], "succeeded")["result"]["stdout"] == "second\n"
    client.delete_pack(pack)


def test_broken_component_is_named_and_the_rest_installed(client: AttuneClient) -> None:
    """Lenient at the door, never silent; ``strict`` refuses the whole and installs nothing (contract README 16)."""
    pack = unique_ref("broken")
    archive = pack_archive(
        {
            "pack.yaml": manifest(pack),
            "actions/good.yaml": action_yaml(f"{pack}.good", "good.sh", "shell"),
            "actions/good.sh": "echo good\n",
            "actions/bad.yaml": "ref: [unclosed\nlabel: no\n",
            "actions/nameless.yaml": "label: has no ref\nrunner_type: shell\nentry_point: good.sh\n",
        }
    )

    strict = client.request("POST", "packs/upload", **_form(archive, strict="true"))
    assert strict.status_code == 422
    assert "actions/bad.yaml" in strict.text
    assert client.request("GET", f"packs/{pack}").status_code == 404

    uploaded = client.upload_pack(archive)
    named = {warning["file"]: warning for warning in uploaded["warnings"]}
    assert set(named) == {"actions/bad.yaml", "actions/nameless.yaml"}
    assert all(warning["reason"] for warning in named.values())
    assert named["actions/bad.yaml"]["line"] in {1, 2}
    good = client.execute(f"{pack}.good")
    assert wait_for_execution_status(client, good["id"], "succeeded")["result"]["stdout"] == "good\n"
    client.delete_pack(pack)


def test_register_from_a_folder(stack: Stack, client: AttuneClient) -> None:
    """Folders below the one that the operator lends, and no others."""
    if stack.packs_dir is None:
        pytest.skip("only a stack of this session's own lends a folder")
    pack = unique_ref("folder")
    actions = stack.packs_dir / pack / "actions"
    actions.mkdir(parents=True)
    (actions.parent / "pack.yaml").write_text(manifest(pack))
    (actions / "run.yaml").write_text(action_yaml(f"{pack}.run", "run.sh", "shell"))
    (actions / "run.sh").write_text("echo registered\n")

    registered = client.data("POST", "packs/register", json={"path": str(actions.parent)})
    again = client.request("POST", "packs/register", json={"path": str(actions.parent)})
    elsewhere = client.request("POST", "packs/register", json={"path": "/etc"})
    climbing = client.request("POST", "packs/register", json={"path": f"{stack.packs_dir}/../../etc"})

    assert registered["ref"] == pack
    assert again.status_code == 409
    assert elsewhere.status_code == 400
    assert climbing.status_code == 400
    run = client.execute(f"{pack}.run")
    assert wait_for_execution_status(client, run["id"], "succeeded")["result"]["stdout"] == "registered\n"
    client.delete_pack(pack)


def _form(archive: bytes, **flags: str) -> dict[str, Json]:
    return {"files": {"pack": ("pack.tar.gz", archive, "application/gzip")}, "data": flags}


def _link(pack: str, kind: bytes, target: str) -> bytes:
    link = tarfile.TarInfo("actions/link.py")
    link.type, link.linkname = kind, target
    return tar_gz([_file("pack.yaml", manifest(pack).encode()), (link, b"")])


def _file(path: str, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(path)
    info.size = len(content)
    return info, content


def _hostile(pack: str) -> dict[str, bytes]:
    yaml = manifest(pack).encode()
    good = pack_archive({"pack.yaml": yaml})
    zeros = tarfile.TarInfo("zeros")
    zeros.size = 300_000_000
    bomb = io.BytesIO()
    with tarfile.open(fileobj=bomb, mode="w:gz") as archive, Path("/dev/zero").open("rb") as source:
        archive.addfile(_file("pack.yaml", yaml)[0], io.BytesIO(yaml))
        archive.addfile(zeros, source)
    device = tarfile.TarInfo("actions/zero")
    device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 5
    return {
        "climbs out": tar_gz([_file("pack.yaml", yaml), _file("../../etc/cron.d/evil", b"x")]),
        "absolute": tar_gz([_file("pack.yaml", yaml), _file("/tmp/evil", b"x")]),
        "symbolic link": _link(pack, tarfile.SYMTYPE, "/etc/passwd"),
        "hard link": _link(pack, tarfile.LNKTYPE, "pack.yaml"),
        "device": tar_gz([_file("pack.yaml", yaml), (device, b"")]),
        "bomb": bomb.getvalue(),
        "no pack.yaml": pack_archive({"actions/a.yaml": "ref: x.y\n"}),
        "pack.yaml without ref": pack_archive({"pack.yaml": "version: 1.0.0\n"}),
        "pack.yaml is not YAML": pack_archive({"pack.yaml": "ref: [\n"}),
        "pack.yaml is a list": pack_archive({"pack.yaml": "- a\n- b\n"}),
        "ref in upper case": pack_archive({"pack.yaml": manifest(pack.upper())}),
        "YAML bomb": pack_archive({"pack.yaml": yaml + _yaml_bomb()}),
        "not gzip": b"PK\x03\x04 not a tarball",
        "cut off": good[: len(good) // 2],
        "empty": b"",
    }


def _yaml_bomb() -> bytes:
    lines = [b"a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [b"a%d: &a%d [%s]" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 9)]
    return b"\n".join(lines) + b"\n"


@pytest.mark.security
def test_hostile_archives_are_refused(client: AttuneClient) -> None:
    """The contract's error body, nothing installed, and the platform goes on."""
    pack = unique_ref("hostile")

    for name, archive in _hostile(pack).items():
        answer = client.request("POST", "packs/upload", **_form(archive))
        assert answer.status_code in {400, 413, 422}, f"{name}: {answer.status_code} {answer.text[:300]}"
        assert {"error", "code"} <= set(answer.json()), name
        assert client.request("GET", f"packs/{pack}").status_code == 404, name

    missing = client.request("POST", "packs/upload", files={"other": ("x", b"x")}, data={"force": "true"})
    assert missing.status_code == 400


def test_standard_pack_is_there_and_read_only(client: AttuneClient) -> None:
    core = client.get_pack("core")
    assert core["is_standard"] is True
    actions = {action["ref"] for action in client.items("packs/core/actions", page_size=100)}
    assert {"core.echo", "core.noop", "core.sleep", "core.fail", "core.http_request"} <= actions
    triggers = {trigger["ref"] for trigger in client.items("triggers", page_size=100)}
    timers = {"core.intervaltimer", "core.crontimer", "core.datetimetimer", "core.rruletimer"}
    assert timers | {"core.alert"} <= triggers
    assert client.request("DELETE", "packs/core").status_code == 403
    assert client.request("PUT", "packs/core", json={"label": "Mine"}).status_code == 403
    assert client.get_pack("core")["label"] == core["label"]
