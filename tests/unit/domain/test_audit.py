"""What audit records say of things, and what they never say."""

from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.domain.audit import MASK, AuditEvent, Change, Wanted, masked, of_execution, shown, singular, told
from chalicelib.domain.entities import Execution, Identity, IntegrationToken, Key, Pack, Rule, Trigger

NOW = datetime(2026, 11, 22, tzinfo=UTC)
ROW = {"id": 1, "created": NOW, "updated": NOW}
# Long and of few letters: nothing else in a record looks so.
SECRETS = st.text("xyz", min_size=12, max_size=700)
NAMES = st.sampled_from(
    ["password", "db_password", "Passphrase", "api_key", "apiKey", "token", "access_token", "client_secret",
     "private-key", "Authorization", "credentials", "webhook_key", "secret"]
)  # fmt: skip


def everything(secret: str, name: str):
    """One of each definition that has a secret, in each of its places."""
    nested = {"outer": [{"name": "n", name: secret}, {name: {"deep": [secret]}}], "url": f"https://me:{secret}@host/"}
    return [
        Key(**ROW, ref="k", owner_type="system", name="k", sealed=secret),
        Identity(**ROW, ref="bob", password_hash=secret, attributes=nested),
        Trigger(**ROW, ref="p.t", label="T", webhook_key=secret, webhook_config={"hmac": {"sealed": secret}, **nested}),
        Pack(**ROW, ref="p", label="P", version="1", config=nested, secrets={"/a": secret}),
        Rule(
            **ROW, ref="p.r", pack=1, pack_ref="p", label="R", action_ref="p.a", trigger_ref="p.t",
            action_params=nested, trigger_params=nested, secrets={"a": secret},
        ),
        IntegrationToken(**ROW, ref=secret, identity=1, label="L", token_prefix="attune_it_ab", token_suffix="cd"),
    ]  # fmt: skip


@given(SECRETS, SECRETS, NAMES)
def test_no_secret_is_told(before, after, name):
    changes = [
        change
        for was, is_ in zip(everything(before, name), everything(after, name), strict=True)
        for kind in [{"IntegrationToken": "integration_token"}.get(type(was).__name__, "thing")]
        for change in (
            Change(kind=kind, operation="create", ref=is_.ref, after=is_),
            Change(kind=kind, operation="update", ref=is_.ref, before=was, after=is_),
            Change(kind=kind, operation="delete", ref=was.ref, before=was),
        )
    ]
    text = msgspec.json.encode(told(changes)).decode()
    assert before not in text
    assert after not in text


def test_that_a_secret_changed_is_told():
    was, is_ = (Key(**ROW, ref="k", owner_type="system", name="k", sealed=sealed) for sealed in ("one", "two"))
    (change,) = told([Change(kind="key", operation="update", ref="k", before=was, after=is_)])
    assert (change["before"], change["after"]) == ({"sealed": MASK}, {"sealed": MASK})


def test_what_did_not_change_is_not_told():
    was = Pack(**ROW, ref="p", label="P", version="1", config={"a": 1})
    (change,) = told(
        [Change(kind="pack", operation="update", ref="p", before=was, after=msgspec.structs.replace(was, label="Q"))]
    )
    assert (change["before"], change["after"]) == ({"label": "P"}, {"label": "Q"})


def test_what_is_not_there_needs_no_mask():
    assert shown(Identity(**ROW, ref="bob"))["password_hash"] is None
    assert masked({"password": None, "token": ""}) == {"password": None, "token": ""}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
)


@given(JSON)
def test_masking_again_changes_nothing(value):
    once = masked(value)
    assert masked(once) == once


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 300), st.integers(0, 5_000))
def test_records_are_bounded(count, length):
    things = [Pack(**ROW, ref=f"p{n}", label="L" * length, version="1", meta={"a": "b" * length}) for n in range(count)]
    said = told(Change(kind="pack", operation="create", ref=each.ref, after=each) for each in things)
    assert len(msgspec.json.encode(said)) < 100_000  # DynamoDB: 400 KB an item
    assert [each["ref"] for each in said] == [each.ref for each in things][: len(said)]
    assert len(said) == min(count, 250)


def test_long_texts_are_told_by_their_digest():
    assert shown(Pack(**ROW, ref="p", label="a" * 501, version="1"))["label"].startswith(
        "a" * 100 + "… (501 characters"
    )


def test_the_start_of_an_execution():
    execution = Execution(
        **ROW, action_ref="p.a", status="failed", config={"password": "x"}, rule_ref="p.r", enforcement=7, executor=3
    )
    event = of_execution(execution, "bob")
    assert (event.id, event.category, event.outcome) == (1, "execution", "success")
    assert (event.actor_identity, event.actor_login, event.resource_ref) == (3, "bob", "p.a")
    assert event.correlation_chain == {"enforcement": 7, "rule_ref": "p.r"}
    assert event.details is None


EVENT = AuditEvent(
    id=1,
    created=NOW,
    category="api",
    event_type="pack.create",
    outcome="success",
    http_method="PUT",
    http_path="/api/x",
)


def test_what_is_wanted():
    assert Wanted().matches(EVENT)
    assert Wanted(created_after=NOW, http_method="put", http_path="/api/*").matches(EVENT)
    for refused in (
        Wanted(created_before=NOW),
        Wanted(created_after=NOW + timedelta(microseconds=1)),
        Wanted(http_path="/api"),
        Wanted(http_path="/b*"),
        Wanted(actor_identity=1),
        Wanted(category="auth"),
    ):
        assert not refused.matches(EVENT)


def test_starts_are_looked_for_where_they_can_be():
    assert Wanted().executions
    assert Wanted(category="execution", resource_ref="p.a", actor_identity=1).executions
    assert not Wanted(category="execution").stored
    for without in (Wanted(category="api"), Wanted(http_status=200), Wanted(request_id="x"), Wanted(outcome="denied")):
        assert not without.executions


def test_kinds_of_things():
    nouns = ["keys", "identities", "integration-tokens", "sets", "inquiries", "packs"]
    kinds = ["key", "identity", "integration_token", "permission_set", "inquiry", "pack"]
    assert [singular(noun) for noun in nouns] == kinds
