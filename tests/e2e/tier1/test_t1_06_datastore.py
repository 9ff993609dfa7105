"""T1.6: values kept by the platform reach the actions that they belong to, and nobody else sees the secret ones."""

import base64
import hashlib
import json

import pytest
from helpers.client import ApiError, AttuneClient, Json
from helpers.fixtures import create_webhook_trigger, pack_archive, unique_ref
from helpers.polling import wait_for_execution_count, wait_for_execution_status

pytestmark = [pytest.mark.tier1, pytest.mark.secrets]

SECRET = "s3cret-värde/with+odd=chars 42"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()
SHOW_DIGEST = 'printf %s "$token" | sha256sum'


def test_keys_are_stored_listed_changed_and_deleted(client: AttuneClient) -> None:
    """CRUD; lists never carry values; a ref exists once."""
    ref = f"{unique_ref('key')}.limit"
    created = client.create_secret(ref, {"cpu": 80, "hosts": ["a", "b"]}, encrypted=False)
    assert created["value"] == {"cpu": 80, "hosts": ["a", "b"]}
    assert (created["name"], created["owner_type"], created["encrypted"]) == ("limit", "system", False)

    with pytest.raises(ApiError) as twice:
        client.create_secret(ref, 1)
    assert twice.value.status == 409

    (listed,) = [key for key in client.items("keys", owner_type="system", per_page=100) if key["ref"] == ref]
    assert "value" not in listed

    client.update_secret(ref, value="new")
    assert client.get_secret(ref)["value"] == "new"
    client.delete_secret(ref)
    assert client.request("GET", f"keys/{ref}").status_code == 404


def test_action_reads_from_datastore(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """An action gets its pack's and its own keys by name; its own win; a key it has no claim to stays away."""
    pack = test_pack["ref"]
    action = f"{pack}.reader"
    client.create_action(action, pack, entrypoint='[ "$threshold" = 80 ] && [ "$colour" = red ] && [ -z "$other" ]')
    client.create_secret(f"{pack}.threshold", 80, encrypted=False, owner_type="pack", owner_pack_ref=pack)
    client.create_secret(f"{pack}.colour", "blue", encrypted=False, owner_type="pack", owner_pack_ref=pack)
    client.create_secret(f"{pack}.reader.colour", "red", encrypted=False, owner_type="action", owner_action_ref=action)
    client.create_secret(f"{pack}.elsewhere.other", "not yours", encrypted=False)

    execution = client.execute(action)

    wait_for_execution_status(client, execution["id"], "succeeded")


def test_encrypted_values_are_used_and_never_shown(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """The action gets the value; what it prints of it, plain or encoded, is masked in everything that can be read."""
    pack = test_pack["ref"]
    action = f"{pack}.leaky"
    encoded = base64.b64encode(SECRET.encode()).decode()
    client.create_action(
        action, pack, entrypoint=f'echo "token $token"; printf %s "$token" | base64 -w0; echo; {SHOW_DIGEST}'
    )
    client.create_secret(f"{pack}.token", SECRET, owner_type="pack", owner_pack_ref=pack)

    execution = wait_for_execution_status(client, client.execute(action)["id"], "succeeded")

    stdout = execution["result"]["stdout"]
    assert DIGEST in stdout, "the action had the real value"
    shown = json.dumps(execution, ensure_ascii=False)
    assert SECRET not in shown
    assert encoded not in shown
    assert "token ********" in stdout


def test_secret_named_by_execute(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """A system key comes only where it is asked for (contract README 11)."""
    pack = test_pack["ref"]
    key = f"{unique_ref('sys')}.token"
    action = f"{pack}.user"
    client.create_action(action, pack, entrypoint=SHOW_DIGEST)
    client.create_secret(key=key, value=SECRET, encrypted=True)

    asked = client.create_execution({"action": action, "parameters": {}, "secrets": [key]})
    without = client.execute(action)

    with_it = wait_for_execution_status(client, asked["id"], "succeeded")
    assert DIGEST in with_it["result"]["stdout"]
    assert SECRET not in json.dumps(with_it, ensure_ascii=False)
    nothing = wait_for_execution_status(client, without["id"], "succeeded")
    assert hashlib.sha256(b"").hexdigest() in nothing["result"]["stdout"]
    unknown = client.request("POST", "executions/execute", json={"action_ref": action, "secrets": ["no.such.key"]})
    assert unknown.status_code in {404, 422}


def test_secrets_that_an_action_asks_for(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """``secrets`` of the action, by API and in its file, bring system keys to whoever runs it and may read them."""
    pack, own = test_pack["ref"], unique_ref("asks")
    key = f"{unique_ref('sys')}.token"
    client.create_secret(key, SECRET)
    client.create_action(f"{pack}.user", pack, entrypoint=SHOW_DIGEST, secrets=[key])
    files = {
        "pack.yaml": f"ref: {own}\nlabel: Own\nversion: 1.0.0\n",
        "actions/user.yaml": f"ref: {own}.user\nrunner_type: python\nentry_point: u.py\nsecrets: [{key}]\n",
        "actions/u.py": "import hashlib, json, sys\n"
        "print(hashlib.sha256(json.load(sys.stdin)['token'].encode()).hexdigest())\n",
    }
    client.upload_pack(pack_archive(files), strict=True)

    ended = [wait_for_execution_status(client, client.execute(f"{ref}.user")["id"], "succeeded") for ref in (pack, own)]
    client.delete_secret(key)
    gone = wait_for_execution_status(client, client.execute(f"{own}.user")["id"], "failed")
    client.delete_pack(own)

    assert all(DIGEST in execution["result"]["stdout"] for execution in ended)
    assert gone["result"]["error"] == f"unknown key: {key}"


def test_keystore_in_a_rule(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """``{{ keystore.<ref> }}`` is resolved for the run; the stored parameters hold a marker (contract README 4, 11)."""
    pack = test_pack["ref"]
    trigger = create_webhook_trigger(client, pack)
    key = f"{unique_ref('sys')}.token"
    client.create_secret(key, SECRET)
    action = f"{pack}.user"
    client.create_action(action, pack, entrypoint=f'{SHOW_DIGEST}\necho "$header"')
    client.create_rule(
        f"{pack}.rule",
        pack,
        trigger_ref=trigger.ref,
        action_ref=action,
        action_params={"token": f"{{{{ keystore.{key} }}}}", "header": f"Bearer {{{{ keystore.{key} }}}}"},
    )

    client.post_webhook(trigger.key, {})

    (row,) = wait_for_execution_count(client, 1, trigger_ref=trigger.ref)
    execution = client.get_execution(row["id"])
    assert DIGEST in execution["result"]["stdout"]
    assert "Bearer ********" in execution["result"]["stdout"]
    marker = {"$attune_secret": True, "redacted": True}
    assert execution["config"] == {"token": marker, "header": marker}
    enforcement = client.get_enforcement(execution["enforcement"])
    assert SECRET not in json.dumps([execution, enforcement], ensure_ascii=False)


def test_secrets_are_not_in_the_environment(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Parameters and secrets go in on stdin or as unexported variables: no child process inherits them."""
    pack = test_pack["ref"]
    action = f"{pack}.env"
    # Only counted, so that masking cannot hide a leak.
    client.create_action(
        action, pack, entrypoint='env | grep -c "s3cret" || true\ncat /proc/$$/environ | grep -c s3cret || true'
    )
    client.create_secret(f"{pack}.token", SECRET, owner_type="pack", owner_pack_ref=pack)

    execution = wait_for_execution_status(client, client.execute(action)["id"], "succeeded")

    assert execution["result"]["stdout"].split() == ["0", "0"]


def test_encrypted_value_needs_decrypt_to_be_read(client: AttuneClient) -> None:
    """The administrator may read it back; ``encrypted`` can be switched."""
    ref = f"{unique_ref('key')}.token"
    assert client.create_secret(ref, SECRET)["value"] == SECRET
    assert client.get_secret(ref)["value"] == SECRET
    client.update_secret(ref, encrypted=False)
    shown = client.get_secret(ref)
    assert (shown["encrypted"], shown["value"]) == (False, SECRET)
    client.delete_secret(ref)
