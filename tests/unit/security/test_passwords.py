import time

from chalicelib.security import passwords


def test_only_the_right_one() -> None:
    hashed = passwords.hash_password("TestPass123!")
    assert hashed.startswith("$argon2id$")
    assert "TestPass123!" not in hashed
    assert passwords.verify_password(hashed, "TestPass123!")
    assert not passwords.verify_password(hashed, "testpass123!")


def test_hashes_are_salted() -> None:
    assert passwords.hash_password("same") != passwords.hash_password("same")


def test_no_hash_or_no_such_hash_is_no_entry() -> None:
    assert not passwords.verify_password(None, "x")
    assert not passwords.verify_password("", "x")
    assert not passwords.verify_password("$argon2id$nonsense", "x")


def test_nobody_takes_as_long_as_somebody() -> None:
    hashed = passwords.hash_password("password")
    passwords.verify_nobody("warm")

    def cpu(check: object) -> float:
        best = 1.0
        for _ in range(5):
            started = time.process_time()
            assert check() is False  # type: ignore[operator]
            best = min(best, time.process_time() - started)
        return best

    known, unknown = cpu(lambda: passwords.verify_password(hashed, "x")), cpu(lambda: passwords.verify_nobody("x"))
    assert 0.5 < known / unknown < 2


def test_rehash_when_parameters_change() -> None:
    assert not passwords.needs_rehash(passwords.hash_password("x"))
    weak = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$0WgHL735xMKbT0cJ6yrOhHnOMfWFu2xUHTNEf5bnDCk"
    assert passwords.needs_rehash(weak)
