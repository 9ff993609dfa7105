"""Keys are replaced and no token is refused for it, whatever a process has read and when."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from unit.security.keys import FIRST, SecretsManager

from chalicelib.domain.entities import Identity
from chalicelib.security.keyring import REREAD, Keyring, NamedKey
from chalicelib.security.rotation import KEPT, LEAD, Rotated, rotate, rotated
from chalicelib.security.tokens import TokenError, Tokens

START = int(datetime.now(UTC).timestamp())
LEAD_SECONDS, KEPT_SECONDS = int(LEAD.total_seconds()), int(KEPT.total_seconds())


def fresh(name: str) -> NamedKey:
    return NamedKey(kid=name, key=name * 40)


class Deployment:
    """A secret, and processes that read it when they do."""

    def __init__(self) -> None:
        self.now = START
        self.secret = SecretsManager(FIRST)

    def process(self) -> Tokens:
        return Tokens(Keyring(lambda: self.secret, "attune", lambda: self.now))

    def rotate(self, name: str) -> Rotated:
        self.secret.text, result = rotated(self.secret.text, fresh(name), self.now)
        return result

    def token(self, process: Tokens) -> str:
        at = datetime.fromtimestamp(START, UTC)
        identity = Identity(id=7, ref="somebody", created=at, updated=at)
        return process.issue_access(tenant="default", identity=identity, now=at)

    @property
    def kids(self) -> list[str]:
        return [key["kid"] for key in json.loads(self.secret.text)["jwt"]]


@pytest.mark.parametrize("age", [0, REREAD - 1])
def test_a_process_with_an_old_keyring_meets_a_token_of_the_new_key(age: int) -> None:
    deployment = Deployment()
    stale = deployment.process()
    stale.verify(deployment.token(stale))
    deployment.rotate("b")
    deployment.now += LEAD_SECONDS
    deployment.now -= age
    stale.verify(deployment.token(stale))  # whatever it knew, it has read the secret again by now
    deployment.now += age
    asked = deployment.secret.asked
    token = deployment.token(deployment.process())
    assert stale.verify(token).identity_id == 7
    assert deployment.secret.asked == asked + 1  # the other process: this one knew the key before it made anything


def test_a_process_that_slept_through_the_rotation_looks_for_the_key() -> None:
    deployment = Deployment()
    asleep = deployment.process()
    old = deployment.token(asleep)
    deployment.rotate("b")
    deployment.now += 10 * LEAD_SECONDS
    assert asleep.verify(deployment.token(deployment.process())).login == "somebody"
    assert asleep.verify(old).login == "somebody"


def test_a_key_put_in_front_by_hand_is_found_at_once() -> None:
    deployment = Deployment()
    process = deployment.process()
    deployment.token(process)
    deployment.now += 30
    deployment.secret.rotate({"kid": "hand", "key": "h" * 40}, FIRST)
    assert process.verify(deployment.token(deployment.process())).login == "somebody"


def test_old_tokens_hold_until_they_expire_and_the_key_goes_afterwards() -> None:
    deployment = Deployment()
    old = deployment.token(deployment.process())
    deployment.rotate("b")
    deployment.now += LEAD_SECONDS + KEPT_SECONDS - 1
    deployment.rotate("c")
    assert deployment.kids == ["c", "b", "k1"]
    assert deployment.process().verify(old)
    deployment.now += 1 + LEAD_SECONDS
    assert deployment.rotate("d").dropped == ["k1"]
    assert deployment.kids == ["d", "c", "b"]
    with pytest.raises(TokenError):
        deployment.process().verify(old)


def test_no_second_key_while_one_is_to_come() -> None:
    deployment = Deployment()
    assert deployment.rotate("b").added
    deployment.now += LEAD_SECONDS - 1
    again = deployment.rotate("c")
    assert (again.added, again.next.kid, deployment.kids) == (False, "b", ["b", "k1"])


def test_many_rotations_in_a_row_drop_no_key_too_early() -> None:
    deployment = Deployment()
    for number in range(20):
        token = deployment.token(deployment.process())
        deployment.rotate(chr(ord("b") + number))
        deployment.now += LEAD_SECONDS
        assert deployment.process().verify(token)
    assert len(deployment.kids) == 21


def test_a_key_whose_successor_came_by_hand_is_kept_until_the_next() -> None:
    by_hand, first = fresh("h"), NamedKey(**FIRST)
    result = rotate([by_hand, first], fresh("b"), START)
    assert [key.kid for key in result.keys] == ["b", "h", "k1"]
    later = rotate(result.keys, fresh("c"), START + LEAD_SECONDS + KEPT_SECONDS)
    assert (later.dropped, [key.kid for key in later.keys]) == (["h", "k1"], ["c", "b"])


def test_everything_else_in_the_secret_stays() -> None:
    secret = {"jwt": [FIRST], "master": [FIRST], "oidc": {"client_secret": "x"}}
    changed, _ = rotated(json.dumps(secret), fresh("b"), START)
    kept = json.loads(changed)
    assert (kept["master"], kept["oidc"]) == ([FIRST], {"client_secret": "x"})


def test_nobody_is_signed_out_within_the_life_of_a_token() -> None:
    assert timedelta(seconds=REREAD) < LEAD
