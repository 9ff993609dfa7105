"""Actions made by API whose code is in several files (issue 3): ``POST /actions/{ref}/files``."""

import shutil

import pytest
from helpers.client import AttuneClient, Json
from helpers.polling import wait_for_execution_status

pytestmark = [pytest.mark.tier1, pytest.mark.runner]

PROGRAMS = {
    "core.python": {
        "main.py": "import json, sys\nfrom lib.greeting import greet\nprint(greet(json.load(sys.stdin)['name']))\n",
        "lib/__init__.py": "",
        "lib/greeting.py": "import pathlib\nhere = pathlib.Path(__file__).parent\n"
        "def greet(name):\n    return (here / 'words.txt').read_text().strip() + ' ' + name\n",
        "lib/words.txt": "hello\n",
    },
    "core.shell": {
        "main.sh": '. ./lib/greeting.sh\nname=$(sed \'s/.*"name":"\\([^"]*\\)".*/\\1/\')\ngreet "$name"\n',
        "lib/greeting.sh": 'greet() { echo "$(cat lib/words.txt) $1"; }\n',
        "lib/words.txt": "hello\n",
    },
    "core.nodejs": {
        "main.js": "const {greet} = require('./lib/greeting');\n"
        "console.log(greet(JSON.parse(require('fs').readFileSync(0, 'utf8')).name));\n",
        "lib/greeting.js": "const fs = require('fs'), path = require('path');\n"
        "const words = fs.readFileSync(path.join(__dirname, 'words.txt'), 'utf8').trim();\n"
        "exports.greet = name => `${words} ${name}`;\n",
        "lib/words.txt": "hello\n",
    },
}


def upload(client: AttuneClient, ref: str, files: dict[str, str], **fields: str) -> dict[str, Json]:
    parts = [("files", (path, content.encode(), "application/octet-stream")) for path, content in files.items()]
    answer: dict[str, Json] = client.data("POST", f"actions/{ref}/files", files=parts, data=fields)
    return answer


@pytest.mark.parametrize("runtime", PROGRAMS)
def test_an_action_of_several_files(client: AttuneClient, test_pack: dict[str, Json], runtime: str) -> None:
    """They find each other, and their data; a file that is replaced is what runs next; the rest stays."""
    if runtime == "core.nodejs" and shutil.which("node") is None:
        pytest.skip("no node on this machine")
    pack, files = test_pack["ref"], PROGRAMS[runtime]
    main = next(iter(files))
    action = f"{pack}.greet"
    schema = {"name": {"type": "string", "required": True}}
    client.create_action(action, pack, entrypoint=main, runtime_ref=runtime, param_schema=schema)

    uploaded = upload(client, action, files, entrypoint=main)
    first = client.execute(action, {"name": "world"})
    first = wait_for_execution_status(client, first["id"], "succeeded")
    changed = upload(client, action, {"lib/words.txt": "goodbye\n"}, keep="true")
    second = client.execute(action, {"name": "world"})
    second = wait_for_execution_status(client, second["id"], "succeeded")

    assert [file["path"] for file in uploaded["files"]] == sorted(files)
    assert [file["path"] for file in changed["files"]] == sorted(files)
    assert changed["content"] != uploaded["content"]
    assert client.data("GET", f"actions/{action}/files") == changed
    assert first["result"]["stdout"].strip() == "hello world"
    assert second["result"]["stdout"].strip() == "goodbye world"


def test_from_one_file_to_several_and_back(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Inline code, then files, then inline code again."""
    pack = test_pack["ref"]
    action = f"{pack}.say"
    client.create_action(action, pack, entrypoint="print('inline')", runtime_ref="core.python")
    said = []

    def run() -> None:
        started = client.execute(action)
        said.append(wait_for_execution_status(client, started["id"], "succeeded")["result"]["stdout"].strip())

    run()
    upload(client, action, {"say.py": "print('file')"})
    run()
    client.call("DELETE", f"actions/{action}/files")
    run()
    client.data("PUT", f"actions/{action}", json={"entrypoint": "print('again')"})
    run()

    assert said == ["inline", "file", "file", "again"]


def test_files_that_lead_elsewhere_are_refused(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Nothing is stored of a form with one bad name."""
    pack = test_pack["ref"]
    action = f"{pack}.say"
    client.create_action(action, pack, entrypoint="print('inline')", runtime_ref="core.python")
    form = [("files", ("ok.py", b"", "text/plain")), ("files", ("../../etc/cron.d/x", b"", "text/plain"))]

    answer = client.request("POST", f"actions/{action}/files", files=form)

    assert answer.status_code == 400
    assert client.data("GET", f"actions/{action}/files")["files"] == []
