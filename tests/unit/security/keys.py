"""A deployment secret, and a Secrets Manager that has it."""

import json
from collections.abc import Mapping
from typing import Any

from chalicelib.security.keyring import Keyring

FIRST = {"kid": "k1", "key": "a" * 40}
SECOND = {"kid": "k2", "key": "b" * 40}


class SecretsManager:
    """Answers ``GetSecretValue`` and counts how often it had to."""

    def __init__(self, *current: Mapping[str, object]) -> None:
        self.asked = 0
        self.rotate(*current)

    def rotate(self, *keys: Mapping[str, object]) -> None:
        self.text = json.dumps({"jwt": keys, "master": keys})

    def get_secret_value(self, SecretId: str) -> dict[str, Any]:  # noqa: N803  # AWS's spelling
        assert SecretId == "attune"
        self.asked += 1
        return {"SecretString": self.text}


def keyring(*keys: Mapping[str, object]) -> Keyring:
    manager = SecretsManager(*(keys or (FIRST,)))
    return Keyring(lambda: manager, "attune")
